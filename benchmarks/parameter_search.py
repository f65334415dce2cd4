"""A search over the parameters of a strategy that decides in pandas: sets a second, and what sharing among them saves.

The market is invented: seeded random walks of three coins. The search is ``momentum``'s, from parameters to metrics,
by chance among its whole space. A set alone is what a backtest of it would do: all decisions with their reasons, then
the engine. Both in this process, one after the other.

    python -m benchmarks.parameter_search [--sets 2000] [--alone 100]
"""

from __future__ import annotations

import argparse
import resource
import time
from datetime import date, timedelta

import numpy as np
import pandas as pd

from benchmarks.machine import describe
from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.optimise import search
from mts_dagster.backtest.run import backtest_signals, prepare
from mts_dagster.research.rehearsal import Rehearsal
from mts_dagster.research.tuning import WORKERS, space_of
from mts_dagster.strategies import FEATURES, Market, decide
from mts_dagster.strategies.momentum import Momentum, MomentumConfig

COINS = ("bitcoin", "ethereum", "binancecoin")
FIRST = date(2021, 1, 1)
LOOKBACK_DAYS = 120
ASSUMPTIONS = Assumptions()


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sets", type=int, default=2000)
    arguments.add_argument("--alone", type=int, default=100)
    chosen = arguments.parse_args()
    print(describe())
    for days in (400, 1826):
        measure(days, chosen.sets, chosen.alone)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


def measure(days: int, sets: int, alone: int) -> None:
    """A search over ``days`` days of three coins, and some of its sets each for itself."""
    start, end = FIRST + timedelta(days=LOOKBACK_DAYS), FIRST + timedelta(days=LOOKBACK_DAYS + days)
    features = _features(LOOKBACK_DAYS + days)
    bars = _bars(features[features["date"] >= pd.Timestamp(start)])
    strategy = Momentum(MomentumConfig(assets=COINS))
    shown = Market({FEATURES: features}).prepared(strategy.inputs, COINS)
    market = prepare(bars, None, ASSUMPTIONS)
    space = space_of(strategy)
    for budget in (10, sets):  # the first compiles
        rehearsal = Rehearsal(shown, market, start, end, ASSUMPTIONS.fills.decision_delay_s)
        started = time.perf_counter()
        found = search(
            market,
            lambda params, rehearsal=rehearsal: rehearsal.commands(strategy.tuned(params)),  # type: ignore[misc]
            space,
            ASSUMPTIONS,
            method="random",
            budget=budget,
            workers=WORKERS,
        )
        searched_s = time.perf_counter() - started
    started = time.perf_counter()
    for params in found.table[list(space)].head(alone).to_dict(orient="records"):
        backtest_signals(
            decide(strategy.tuned({str(name): value for name, value in params.items()}), shown, start, end),
            bars,
            ASSUMPTIONS,
        )
    alone_s = (time.perf_counter() - started) / alone
    each_s = searched_s / sets
    print(
        f"{days} days x {len(COINS)} coins: {sets} sets in {searched_s:.2f} s, {each_s * 1000:.2f} ms a set, "
        f"{1 / each_s:.0f} a second; a set alone {alone_s * 1000:.0f} ms, {alone_s / each_s:.0f} times as long"
    )


def _features(days: int) -> pd.DataFrame:
    generator = np.random.default_rng(7)
    dates = pd.date_range(FIRST, periods=days, unit="us")
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.03, (days, len(COINS))), axis=0))
    frames = []
    for coin, close in zip(COINS, closes.T, strict=True):
        volatility = pd.Series(np.log(close)).diff().rolling(30).std() * np.sqrt(365) * 100
        frames.append(
            pd.DataFrame({"date": dates, "coin": coin, "close_usd": close, "volatility_30d_ann_pct": volatility})
        )
    frame = pd.concat(frames, ignore_index=True)
    known = frame["date"].dt.tz_localize("UTC") + pd.Timedelta(days=1, minutes=1)
    return frame.assign(available_at=known.astype("datetime64[us, UTC]"))


def _bars(features: pd.DataFrame) -> pd.DataFrame:
    opens = features.groupby("coin")["close_usd"].shift(1).fillna(features["close_usd"])
    return pd.DataFrame(
        {
            "open_time": features["date"].dt.tz_localize("UTC"),
            "asset": features["coin"],
            "open": opens,
            "high": np.maximum(opens, features["close_usd"]),
            "low": np.minimum(opens, features["close_usd"]),
            "close": features["close_usd"],
            "volume_base": 1.0,
        }
    )


if __name__ == "__main__":
    main()
