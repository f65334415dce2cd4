"""The peers' side of ``backtest_speed``: one case a process, in their own environment. Imports nothing of MTS."""

from __future__ import annotations

import sys

import backtrader as bt
import numpy as np
import pandas as pd
import vectorbt as vbt
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

from benchmarks.backtest_speed_data import (
    BARS,
    CAPITAL,
    FAST,
    FEE_RATE,
    PORTFOLIO_BARS,
    SLOW,
    SWEEP_BARS,
    SWEEP_FAST,
    SWEEP_SLOW,
    SYMBOLS,
    answer,
    average,
    best,
    peak_bytes,
    walk,
)


def single() -> None:
    """Let vectorbt trade one symbol: given signals, and from prices to metrics."""
    opens, close = walk(BARS, 7)
    above = average(close, FAST) > average(close, SLOW)
    decided = np.diff(above.astype(np.int8), prepend=0)
    entries, exits = np.roll(decided == 1, 1), np.roll(decided == -1, 1)
    options = {"price": opens, "fees": FEE_RATE, "init_cash": CAPITAL, "freq": "1min"}

    def given() -> None:
        vbt.Portfolio.from_signals(close, entries, exits, **options).final_value()

    series = pd.Series(close)

    def from_prices() -> None:
        fast, slow = vbt.MA.run(series, FAST), vbt.MA.run(series, SLOW)
        crossed_up = fast.ma_crossed_above(slow).shift(1, fill_value=False)
        crossed_down = fast.ma_crossed_below(slow).shift(1, fill_value=False)
        portfolio = vbt.Portfolio.from_signals(series, crossed_up, crossed_down, **options)
        portfolio.total_return(), portfolio.sharpe_ratio(), portfolio.max_drawdown()
        portfolio.trades.win_rate(), portfolio.trades.profit_factor(), portfolio.orders.fees.sum()

    answer(**{"given signals": best(given, 7), "prices to metrics": best(from_prices, 7)})


def portfolio() -> None:
    """Let vectorbt trade ten symbols with one cash account."""
    pairs = [walk(PORTFOLIO_BARS, seed) for seed in range(SYMBOLS)]
    opens, close = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    above = np.column_stack([average(column, FAST) > average(column, SLOW) for column in close.T])
    decided = np.diff(above.astype(np.int8), axis=0, prepend=0)
    entries, exits = np.roll(decided == 1, 1, axis=0), np.roll(decided == -1, 1, axis=0)

    def work() -> None:
        vbt.Portfolio.from_signals(
            close,
            entries,
            exits,
            price=opens,
            size=1 / SYMBOLS,
            size_type="percent",
            fees=FEE_RATE,
            init_cash=CAPITAL,
            cash_sharing=True,
            group_by=True,
            freq="1min",
        ).final_value()

    answer(portfolio=best(work, 50))


def sweep() -> None:
    """Let vectorbt try five hundred parameter sets."""
    opens, close = walk(SWEEP_BARS, 7)
    prices, fills = pd.Series(close), pd.Series(opens)
    fast_windows = np.repeat(SWEEP_FAST, len(SWEEP_SLOW))
    slow_windows = np.tile(SWEEP_SLOW, len(SWEEP_FAST))
    before = peak_bytes()

    def work() -> None:
        fast = vbt.MA.run(prices, fast_windows, short_name="fast")
        slow = vbt.MA.run(prices, slow_windows, short_name="slow")
        entries = fast.ma_crossed_above(slow).shift(1, fill_value=False)
        exits = fast.ma_crossed_below(slow).shift(1, fill_value=False)
        options = {"price": fills, "fees": FEE_RATE, "init_cash": CAPITAL, "freq": "1min"}
        portfolio = vbt.Portfolio.from_signals(prices, entries, exits, **options)
        portfolio.total_return(), portfolio.sharpe_ratio(), portfolio.max_drawdown()

    seconds = best(work, 1)
    answer(sweep=seconds, **{"sweep memory": peak_bytes() - before})


def on_bar() -> None:
    """Let backtesting.py call a strategy for each bar."""

    class Cross(Strategy):  # type: ignore[misc]  # the peers are not installed where types are checked
        """Long while the fast average is above the slow one."""

        def init(self) -> None:
            """Compute both averages."""
            self.fast = self.I(average, self.data.Close, FAST)
            self.slow = self.I(average, self.data.Close, SLOW)

        def next(self) -> None:
            """Trade the crossings."""
            if crossover(self.fast, self.slow):
                self.buy()
            elif crossover(self.slow, self.fast):
                self.position.close()

    opens, close = walk(BARS, 7)
    frame = pd.DataFrame(
        {"Open": opens, "High": np.maximum(opens, close), "Low": np.minimum(opens, close), "Close": close},
        index=pd.date_range("2020-01-01", periods=BARS, freq="min"),
    )
    frame = frame / 1000  # it trades whole units, so one must cost less than the account
    test = Backtest(frame.assign(Volume=1.0), Cross, cash=CAPITAL, commission=FEE_RATE)
    answer(on_bar=best(test.run, 1))


def backtrader() -> None:
    """Let backtrader do the same over 100,000 bars."""

    class Cross(bt.Strategy):  # type: ignore[misc]  # same
        """Long while the fast average is above the slow one."""

        def __init__(self) -> None:
            fast, slow = (bt.indicators.SMA(self.data.close, period=window) for window in (FAST, SLOW))
            self.cross = bt.indicators.CrossOver(fast, slow)

        def next(self) -> None:
            """Trade the crossings."""
            if self.cross > 0:
                self.order_target_percent(target=0.95)
            elif self.cross < 0:
                self.close()

    opens, close = (values[:100_000] for values in walk(BARS, 7))
    frame = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close},
        index=pd.date_range("2020-01-01", periods=len(close), freq="min"),
    ).assign(volume=1.0)

    def work() -> None:
        cerebro = bt.Cerebro()
        cerebro.broker.setcash(CAPITAL)
        cerebro.broker.setcommission(commission=FEE_RATE)
        cerebro.adddata(bt.feeds.PandasData(dataname=frame))
        cerebro.addstrategy(Cross)
        cerebro.run()

    answer(backtrader=best(work, 1))


if __name__ == "__main__":
    {"single": single, "portfolio": portfolio, "sweep": sweep, "on_bar": on_bar, "backtrader": backtrader}[
        sys.argv[1]
    ]()
