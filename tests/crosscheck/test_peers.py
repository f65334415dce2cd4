"""Two public engines on the same bars: final equity agrees, and what differs is explained in numbers.

The peers live in an environment of their own, which ``python -m benchmarks.backtest_speed`` makes; without it these
tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.backtest_peers import engines_python
from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Venue
from mts_dagster.backtest.layout import EventKind, FloatArray
from mts_dagster.backtest.market import MarketData, market_from_arrays
from mts_dagster.backtest.signals import commands_from_targets
from mts_dagster.backtest.simulation import Simulation, simulate

CAPITAL = 100_000.0
FEE_BPS = 10.0
FEE = FEE_BPS / 10_000
Theirs = dict[str, dict[str, Any]]
DAY_NS = 86_400_000_000_000

TERMS = Assumptions(
    initial_capital_usd=CAPITAL,
    venues={"peer": Venue(maker_fee_bps=FEE_BPS, taker_fee_bps=FEE_BPS, kind="perpetual")},
    default_instrument=InstrumentRules(venue="peer"),
    fills=Fills(slippage_bps=0.0),
)


@pytest.fixture(scope="module")
def peers() -> Path:
    """Return the interpreter of the peers' environment."""
    python = engines_python()
    command = [str(python), "-c", "import backtesting, vectorbt"]
    there = python.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not there:
        pytest.skip(f"no vectorbt and backtesting.py at {python}: python -m benchmarks.backtest_speed installs them")
    return python


@pytest.fixture(scope="module")
def bitcoin(shared_data: Path) -> MarketData:
    """Return 2,870 days of BTC on Binance spot; the last, still open one is cut."""
    days = pd.read_csv(shared_data / "ohlcv" / "binance_spot_BTCUSDT_1d_2017-2025.csv").iloc[:-1]
    columns = [days[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")]
    return market_from_arrays(np.arange(len(days)) * DAY_NS, *columns)


@pytest.fixture(scope="module")
def three(shared_data: Path) -> MarketData:
    """Return 799 days of BTC, ETH and BNB on Binance USD-M."""
    frames = [
        pd.read_csv(shared_data / "ohlcv" / f"binance_usdm_{name}USDT_1d_2024-2026.csv").iloc[:-1]
        for name in ("BNB", "BTC", "ETH")
    ]
    columns = [
        np.column_stack([frame[name].to_numpy(np.float64) for frame in frames])
        for name in ("open", "high", "low", "close")
    ]
    return market_from_arrays(np.arange(len(frames[0])) * DAY_NS, *columns, assets=("BNB", "BTC", "ETH"))


def crossed(market: MarketData) -> FloatArray:
    """Return 1 while the 20-day average of closes is above the 50-day one, else 0."""
    close = pd.DataFrame(market.arrays.mark)
    above = close.rolling(20).mean() > close.rolling(50).mean()
    return above.to_numpy(np.float64)


def question(folder: Path, name: str, market: MarketData, targets: FloatArray) -> Path:
    """Write bars and targets for the peers."""
    arrays = market.arrays
    path = folder / f"{name}.npz"
    np.savez(
        path,
        open=arrays.open,
        high=arrays.high,
        low=arrays.low,
        close=arrays.mark,
        targets=targets,
        fee_rate=FEE,
        capital=CAPITAL,
    )
    return path


def ours(market: MarketData, targets: FloatArray) -> Simulation:
    """Trade targets with our engine."""
    return simulate(market, commands_from_targets(targets), TERMS)


def trades_of(simulation: Simulation) -> list[tuple[float, float, float]]:
    """Return (sizing close, entry open, exit open) of each closed round trip of a single asset."""
    fills = simulation.events[simulation.events["kind"] == EventKind.FILL]
    mark = simulation.market.arrays.mark[:, 0]
    entries, exits = fills[fills["quantity"] > 0], fills[fills["quantity"] < 0]
    return [
        (float(mark[entry["bar"] - 1]), float(entry["price"]), float(leave["price"]))
        for entry, leave in zip(entries, exits, strict=False)
    ]


def long_short(market: MarketData) -> FloatArray:
    """Return 30 % long above the slow average, 30 % short below it, nothing before both are known."""
    targets = 0.6 * crossed(market) - 0.3
    targets[:50] = 0.0
    return targets


@pytest.fixture(scope="module")
def theirs(peers: Path, bitcoin: MarketData, three: MarketData, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """Return the peers' answers to all questions of this module, from one process."""
    folder = tmp_path_factory.mktemp("peers")
    questions = {
        "all in": question(folder, "all_in", bitcoin, crossed(bitcoin)),
        "most in": question(folder, "most_in", bitcoin, 0.95 * crossed(bitcoin)),
        "three": question(folder, "three", three, long_short(three)),
    }
    script = str(Path(__file__).with_name("peers.py"))
    command = [str(peers), script, *map(str, questions.values())]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=170)
    return dict(zip(questions, json.loads(shown.stdout.splitlines()[-1]), strict=True))


def test_vectorbt_agrees_bar_by_bar_when_it_sizes_at_the_same_close(theirs: Theirs, bitcoin: MarketData) -> None:
    """SMA 20/50 on BTC, all in: 2,870 equities equal to 1e-9, no difference left to explain."""
    equity = ours(bitcoin, crossed(bitcoin)).equity
    assert equity.tolist() == pytest.approx(theirs["all in"]["targets"], rel=1e-9)


def test_vectorbt_agrees_on_a_portfolio_with_shorts_and_one_cash_account(theirs: Theirs, three: MarketData) -> None:
    """Long and short 30 % each in three assets: equal to 1e-9 on every day."""
    assert ours(three, long_short(three)).equity.tolist() == pytest.approx(theirs["three"]["targets"], rel=1e-9)


def test_vectorbt_with_everything_in_differs_by_the_sizing_alone(theirs: Theirs, bitcoin: MarketData) -> None:
    """It sizes at the fill, we at the close before it: where the open is lower some cash stays behind.

    Both final equities follow from the prices of the same round trips, to 1e-9: theirs multiplies by
    exit / entry x (1 - fee) / (1 + fee); ours buys E / close at most and keeps the rest. The gap between close and next
    open on this history is small, so the two end within 0.5 % of each other.
    """
    targets = crossed(bitcoin)
    simulation = ours(bitcoin, targets)
    all_in = at_close = CAPITAL
    for close, entry, leave in trades_of(simulation):
        all_in *= leave / entry * (1 - FEE) / (1 + FEE)
        units = min(at_close / close, at_close / (entry * (1 + FEE)))
        at_close += units * (leave * (1 - FEE) - entry * (1 + FEE))
    assert targets[-1, 0] == 1.0  # the last position is still open: take its mark
    last = simulation.events[simulation.events["kind"] == EventKind.FILL][-1]
    mark, sized_at = float(bitcoin.arrays.mark[-1, 0]), float(bitcoin.arrays.mark[last["bar"] - 1, 0])
    all_in *= mark / last["price"] / (1 + FEE)
    units = min(at_close / sized_at, at_close / (last["price"] * (1 + FEE)))
    at_close += units * (mark - last["price"] * (1 + FEE))
    assert theirs["all in"]["signals"] == pytest.approx(all_in, rel=1e-9)
    assert simulation.equity[-1] == pytest.approx(at_close, rel=1e-9)
    assert simulation.equity[-1] == pytest.approx(theirs["all in"]["signals"], rel=5e-3)


def test_backtesting_py_agrees_up_to_its_whole_units(theirs: Theirs, bitcoin: MarketData) -> None:
    """95 % in, since it refuses orders that the fee makes too large; its units are a millionth of a bitcoin.

    Each of its trades may hold up to one unit less than ours. The bound adds the largest move of one unit for every
    trade, compounded by no more than the growth of the whole run.
    """
    found = theirs["most in"]["strategy"]
    simulation = ours(bitcoin, 0.95 * crossed(bitcoin))
    assert found["trades"] >= 20
    unit = float(bitcoin.arrays.mark.max()) / 1_000_000
    growth = float(simulation.equity.max() / simulation.equity.min())
    assert abs(simulation.equity[-1] - found["final"]) <= found["trades"] * unit * growth
    assert simulation.equity[-1] == pytest.approx(found["final"], rel=1e-5)
