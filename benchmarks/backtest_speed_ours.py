"""Our side of ``backtest_speed``: one case a process, named on the command line."""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd

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
    Array,
    answer,
    average,
    best,
    peak_bytes,
    walk,
)
from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Venue
from mts_dagster.backtest.market import MarketData, market_from_arrays
from mts_dagster.backtest.metrics import Trials
from mts_dagster.backtest.python_strategy import Broker, Strategy, run_bars
from mts_dagster.backtest.run import backtest_signals, buy_hold_of, outcome_of
from mts_dagster.backtest.signals import Targets, commands_from_targets
from mts_dagster.backtest.simulation import simulate
from mts_dagster.backtest.sweep import Params, sweep

TERMS = Assumptions(
    initial_capital_usd=CAPITAL,
    venues={"bench": Venue(maker_fee_bps=FEE_RATE * 1e4, taker_fee_bps=FEE_RATE * 1e4, kind="perpetual")},
    default_instrument=InstrumentRules(venue="bench"),
    fills=Fills(slippage_bps=0.0),
)
MINUTE_NS = 60_000_000_000


def crossed(close: Array) -> Targets:
    """Return 1 while the fast average is above the slow one; both come from one running total."""
    total = np.zeros(len(close) + 1)
    np.cumsum(close, out=total[1:])
    fast = total[SLOW:] - total[SLOW - FAST : -FAST]
    fast *= SLOW / FAST
    slow = total[SLOW:] - total[:-SLOW]
    above = np.zeros(len(close), np.int8)
    np.greater(fast, slow, out=above[SLOW - 1 :].view(np.bool_))
    return above


def single() -> None:
    """One symbol: given signals, and from prices to metrics."""
    opens, close = walk(BARS, 7)
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    times = np.arange(BARS) * MINUTE_NS
    targets = crossed(close)

    def given() -> float:
        market = market_from_arrays(times, opens, high, low, close)
        return float(simulate(market, commands_from_targets(targets), TERMS).equity[-1])

    def from_prices() -> float:
        market = market_from_arrays(times, opens, high, low, close)
        simulation = simulate(market, commands_from_targets(crossed(close)), TERMS)
        return outcome_of(simulation, TERMS, buy_hold_of(market), Trials()).metrics.sharpe

    answer(**{"given signals": best(given, 15), "prices to metrics": best(from_prices, 10)})


def portfolio() -> None:
    """Ten symbols with one cash account."""
    names = tuple(f"coin{i}" for i in range(SYMBOLS))
    pairs = [walk(PORTFOLIO_BARS, seed) for seed in range(SYMBOLS)]
    opens, close = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    times = np.arange(PORTFOLIO_BARS) * MINUTE_NS
    above = [average(column, FAST) > average(column, SLOW) for column in close.T]
    targets = np.ascontiguousarray(np.column_stack(above)).view(np.int8)

    def work() -> float:
        market = market_from_arrays(times, opens, high, low, close, assets=names)
        return float(simulate(market, commands_from_targets(targets, 1 / SYMBOLS), TERMS).equity[-1])

    answer(portfolio=best(work, 300))


def parameters() -> None:
    """Five hundred parameter sets."""
    opens, close = walk(SWEEP_BARS, 7)
    times = np.arange(SWEEP_BARS) * MINUTE_NS
    sets = [{"fast": fast, "slow": slow} for fast in SWEEP_FAST for slow in SWEEP_SLOW]
    before = peak_bytes()

    def work() -> None:
        market = market_from_arrays(times, opens, np.maximum(opens, close), np.minimum(opens, close), close)
        averages: dict[int, Array] = {window: average(close, window) for window in (*SWEEP_FAST, *SWEEP_SLOW)}

        def decide(params: Params) -> Targets:
            return np.greater(averages[params["fast"]], averages[params["slow"]]).view(np.int8)

        sweep(market, decide, sets, TERMS)

    seconds = best(work, 5)
    answer(sweep=seconds, **{"sweep memory": peak_bytes() - before})


def on_bar() -> None:
    """A strategy in plain Python."""

    class Cross(Strategy):
        """Long while the fast average is above the slow one."""

        def start(self, market: MarketData) -> None:
            """Compute both averages."""
            close = market.arrays.mark[:, 0]
            self.fast, self.slow = average(close, FAST).tolist(), average(close, SLOW).tolist()
            self.above = False

        def on_bar(self, broker: Broker) -> None:
            """Trade the crossings."""
            above = self.fast[broker.bar] > self.slow[broker.bar]
            if above != self.above:
                broker.target("asset", 1.0 if above else 0.0)
                self.above = above

    opens, close = walk(BARS, 7)
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    market = market_from_arrays(np.arange(BARS) * MINUTE_NS, opens, high, low, close)
    answer(on_bar=best(lambda: run_bars(Cross(), market, TERMS), 3))


def call() -> None:
    """Run a small backtest from frames to a result, once: what a first call of a process costs."""
    opens, close = walk(500, 7)
    times = pd.date_range("2024-01-01", periods=len(close), freq="h", tz="UTC")
    bars = pd.DataFrame({"open_time": times, "asset": "coin", "open": opens, "close": close, "volume_base": 1.0})
    bars = bars.assign(high=np.maximum(opens, close), low=np.minimum(opens, close))
    long = average(close, FAST) > average(close, SLOW)
    signals = bars[["asset"]].assign(
        timestamp=times + pd.Timedelta("1h"),
        direction=np.where(long, "long", "flat"),
        position_size=np.where(long, 1.0, 0.0),
        confidence=1.0,
    )
    begun = time.perf_counter()
    backtest_signals(signals, bars, TERMS)
    answer(call=time.perf_counter() - begun)


if __name__ == "__main__":
    cases = {"single": single, "portfolio": portfolio, "sweep": parameters, "on_bar": on_bar, "call": call}
    cases[sys.argv[1]]()
