"""What must hold for any market, any signals and any assumptions, tried on generated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mts_dagster.backtest.layout import EventKind, Reason
from mts_dagster.backtest.market import MarketData, market_from_arrays, read_only
from mts_dagster.backtest.python_strategy import Broker, Strategy, run_bars
from mts_dagster.backtest.reconcile import reconcile
from mts_dagster.backtest.run import trades_of
from mts_dagster.backtest.signals import commands_from_targets
from mts_dagster.backtest.simulation import Simulation, simulate, terms_of

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from tests.unit.backtest.playing import Assume

HOUR_NS = 3_600_000_000_000
BARS = 60
NAMES = ("a", "b", "c")
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def market_of(seed: int, assets: int = 3) -> MarketData:
    """Return a wild market: 3 % a bar, gaps at the open, missing bars, funding every eighth hour."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (BARS, assets)), axis=0))
    opens = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, close.shape))
    high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.01, close.shape)))
    low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.01, close.shape)))
    volume = rng.uniform(0, 200, close.shape)
    market = market_from_arrays(
        np.arange(BARS) * HOUR_NS, opens, high, low, close, volume=volume, assets=NAMES[:assets]
    )
    gone = rng.random(close.shape) < 0.05
    gone[0] = False
    holes = [read_only(np.where(gone, np.nan, values)) for values in (opens, high, low)]
    mark = close.copy()
    for t in range(1, BARS):
        mark[t] = np.where(gone[t], mark[t - 1], mark[t])
    funding = np.zeros(BARS // 8 * assets, market.funding.dtype)
    funding["bar"] = np.repeat(np.arange(BARS // 8) * 8, assets)
    funding["asset"] = np.tile(np.arange(assets), BARS // 8)
    funding["phase"] = np.repeat(rng.integers(0, 2, BARS // 8), assets)
    funding["rate"] = rng.normal(0, 1e-3, len(funding))
    arrays = market.arrays._replace(open=holes[0], high=holes[1], low=holes[2], mark=read_only(mark))
    return MarketData(arrays, market.assets, market.interval_ns, read_only(funding))


def targets_of(seed: int, assets: int = 3) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return targets that change in about a fifth of the bars."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((BARS, assets))
    for t in range(1, BARS):
        change = rng.random(assets) < 0.2
        targets[t] = np.where(change, rng.choice([-0.6, 0.0, 0.4, 0.9], assets), targets[t - 1])
    return targets


@pytest.fixture(scope="module")
def rough(assume: Assume) -> list[Assumptions]:
    """Return assumptions that switch on every rule, mild and harsh."""
    costs = {"taker_fee_bps": 5.5, "maker_fee_bps": 2.0, "slippage_bps": 3.0, "initial_capital_usd": 10_000.0}
    steps = {"lot_size": 0.001, "tick_size": 0.01, "min_notional_usd": 5.0}
    exits = {"stop_loss_pct": 4.0, "take_profit_pct": 6.0, "trailing_stop_pct": 5.0}
    return [
        assume(**costs),
        assume(**costs, **steps, **exits, max_volume_share=0.1, impact=0.1, max_trades_per_day=20),
        assume(**costs, **exits, max_leverage=3.0, maintenance_margin_pct=5.0, liquidation_fee_bps=50.0),
        assume(**costs, **steps, **exits, limit_fill="through", gap_price="limit", rebalance_threshold=0.3),
    ]


class Replay(Strategy):
    """Hands targets over bar by bar, and looks at everything a strategy may look at."""

    def __init__(self, targets: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self.targets = targets
        self.seen: list[tuple[float, float]] = []

    def on_bar(self, broker: Broker) -> None:
        self.seen.append((broker.equity, broker.cash))
        before = self.targets[broker.bar - 1] if broker.bar else np.zeros(len(broker.assets))
        for name, now, then in zip(broker.assets, self.targets[broker.bar], before, strict=True):
            if now != then:
                broker.target(name, float(now))


def books_close(simulation: Simulation) -> None:
    """Check start + fills + fees + funding = end."""
    last = simulation.market.arrays.mark[-1]
    equity = float(simulation.equity[-1])
    reconcile(simulation.capital, simulation.events, simulation.cash, equity, last).require()


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_the_books_close(rough: list[Assumptions], seed: int, which: int) -> None:
    """Cash and equity are what fills, fees and funding make of the capital, to 1e-6."""
    books_close(simulate(market_of(seed), commands_from_targets(targets_of(seed)), rough[which]))


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_signals_and_a_python_strategy_fill_identically(rough: list[Assumptions], seed: int, which: int) -> None:
    """The same targets give the same log, bit by bit, from arrays and from ``on_bar``."""
    market, targets = market_of(seed), targets_of(seed)
    compiled = simulate(market, commands_from_targets(targets), rough[which])
    strategy = Replay(targets)
    python = run_bars(strategy, market, rough[which])
    assert compiled.events.tobytes() == python.events.tobytes()
    assert np.array_equal(compiled.equity, python.equity)
    assert [equity for equity, _ in strategy.seen] == compiled.equity.tolist()


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_marking_quiet_bars_at_once_changes_nothing(rough: list[Assumptions], seed: int, which: int) -> None:
    """One call over all bars equals one call for each bar."""
    market, commands = market_of(seed), commands_from_targets(targets_of(seed))
    whole = simulate(market, commands, rough[which])
    terms = terms_of(rough[which], market.assets, market.interval_ns)
    single = Simulation(market, terms, rough[which].initial_capital_usd, commands)
    for t in range(market.bars):
        single.run(t + 1)
    assert whole.events.tobytes() == single.events.tobytes()
    assert np.array_equal(whole.equity, single.equity)


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3), cut=st.integers(5, BARS - 1))
def test_the_engine_does_not_look_ahead(rough: list[Assumptions], seed: int, which: int, cut: int) -> None:
    """Bars after a cut cannot change what happened before it."""
    market, targets = market_of(seed), targets_of(seed)
    full = simulate(market, commands_from_targets(targets), rough[which])
    short = simulate(market.part(0, cut), commands_from_targets(targets[:cut]), rough[which])
    assert np.array_equal(full.equity[:cut], short.equity)


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_no_fill_before_its_signal(rough: list[Assumptions], seed: int, which: int) -> None:
    """Every fill of an order comes in a later bar than the decision, and later in the log."""
    events = simulate(market_of(seed), commands_from_targets(targets_of(seed)), rough[which]).events
    decided = {int(row["order"]): i for i, row in enumerate(events) if row["kind"] == EventKind.SIGNAL}
    for i, row in enumerate(events):
        if row["kind"] == EventKind.FILL and row["order"] >= 0:
            at = decided[int(row["order"])]
            assert at < i
            assert events[at]["bar"] < row["bar"]


@QUICK
@given(seed=SEEDS, which=st.sampled_from([0, 2, 3]), order=st.permutations(range(3)))
def test_the_order_of_assets_does_not_matter(rough: list[Assumptions], seed: int, which: int, order: list[int]) -> None:
    """Permuting columns leaves equity as it was (a daily limit ranks by column, so 1 is left out)."""
    market, targets = market_of(seed), targets_of(seed)
    straight = simulate(market, commands_from_targets(targets), rough[which])
    prices = {
        name: read_only(np.ascontiguousarray(getattr(market.arrays, name)[:, order]))
        for name in ("open", "high", "low", "mark", "volume")
    }
    arrays = market.arrays._replace(**prices)
    funding = market.funding.copy()
    funding["asset"] = np.argsort(order)[funding["asset"]]
    mixed = MarketData(arrays, tuple(market.assets[i] for i in order), market.interval_ns, read_only(funding))
    permuted = simulate(mixed, commands_from_targets(targets[:, order]), rough[which])
    assert permuted.equity == pytest.approx(straight.equity, rel=1e-9)


@QUICK
@given(seed=SEEDS)
def test_without_signals_equity_is_flat(rough: list[Assumptions], seed: int) -> None:
    """No decision, no change of a single cent."""
    simulation = simulate(market_of(seed), commands_from_targets(np.zeros((BARS, 3))), rough[1])
    assert np.array_equal(simulation.equity, np.full(BARS, 10_000.0))
    assert len(simulation.events) == 0


@QUICK
@given(seed=SEEDS)
def test_opening_never_exceeds_the_leverage(rough: list[Assumptions], seed: int) -> None:
    """After every fill that opens, positions at the open are at most leverage times equity."""
    market = market_of(seed, assets=1)
    terms = rough[0]
    events = simulate(market, commands_from_targets(targets_of(seed, assets=1)), terms).events
    held = 0.0
    for row in events[events["kind"] == EventKind.FILL]:
        opens = held * row["quantity"] >= 0
        held += row["quantity"]
        price = market.arrays.open[row["bar"], 0]
        equity = row["balance"] + held * price
        if opens:
            assert abs(held) * price <= equity * (1 + 1e-6)


class Gambler(Strategy):
    """Orders of every kind at random, the same for the same seed, and cancels some of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.placed: list[int] = []

    def on_bar(self, broker: Broker) -> None:
        rng = np.random.default_rng([self.seed, broker.bar])
        for name in broker.assets:
            if rng.random() < 0.3:
                self.placed.append(self.gamble(broker, name, rng))
            if self.placed and rng.random() < 0.1:
                broker.cancel(int(rng.choice(self.placed)))

    def gamble(self, broker: Broker, name: str, rng: np.random.Generator) -> int:
        price = broker.close(name) * float(rng.uniform(0.95, 1.05))
        quantity = float(rng.normal()) * broker.equity / broker.close(name) / 3
        exits = {key: float(rng.uniform(1, 8)) if rng.random() < 0.4 else None for key in EXITS}
        kind = rng.integers(4)
        if kind == 0:
            return broker.target(name, float(rng.choice([-0.5, 0.0, 0.5])))
        return broker.order(
            name,
            quantity,
            limit=price if kind == 1 else None,
            stop=price if kind == 2 else None,
            stop_loss_pct=exits["stop_loss_pct"],
            take_profit_pct=exits["take_profit_pct"],
            trailing_stop_pct=exits["trailing_stop_pct"],
            reduce_only=bool(rng.random() < 0.2),
        )


EXITS = ("stop_loss_pct", "take_profit_pct", "trailing_stop_pct")


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_the_books_close_whatever_is_ordered(rough: list[Assumptions], seed: int, which: int) -> None:
    """Limits, stops, exits, cancels, reversals and margin calls: cash and equity still add up."""
    simulation = run_bars(Gambler(seed), market_of(seed), rough[which])
    books_close(simulation)
    assert np.isfinite(simulation.equity).all()


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3), cut=st.integers(5, BARS - 1))
def test_no_order_looks_ahead(rough: list[Assumptions], seed: int, which: int, cut: int) -> None:
    """Bars after a cut change nothing before it, whatever is waiting."""
    market = market_of(seed)
    full = run_bars(Gambler(seed), market, rough[which])
    short = run_bars(Gambler(seed), market.part(0, cut), rough[which])
    assert np.array_equal(full.equity[:cut], short.equity)


@QUICK
@given(seed=SEEDS)
def test_without_slippage_every_fill_is_a_price_of_its_bar(assume: Assume, seed: int) -> None:
    """No fill outside of low and high, none in a bar that is not there (margin calls are at marks there)."""
    market = market_of(seed)
    events = run_bars(Gambler(seed), market, assume(max_leverage=3.0)).events
    for row in events[(events["kind"] == EventKind.FILL) & (events["reason"] != Reason.LIQUIDATION)]:
        low, high = (getattr(market.arrays, name)[row["bar"], row["asset"]] for name in ("low", "high"))
        assert low * (1 - 1e-12) <= row["price"] <= high * (1 + 1e-12)


@QUICK
@given(seed=SEEDS)
def test_fills_never_take_more_than_their_share_of_the_volume(assume: Assume, seed: int) -> None:
    """The sum of an asset's fills in a bar is at most a tenth of its volume."""
    market = market_of(seed)
    events = run_bars(Gambler(seed), market, assume(max_volume_share=0.1, max_leverage=3.0)).events
    fills = events[(events["kind"] == EventKind.FILL) & (events["reason"] != Reason.LIQUIDATION)]
    taken = np.zeros(market.arrays.volume.shape)
    np.add.at(taken, (fills["bar"], fills["asset"]), np.abs(fills["quantity"]))
    assert (taken <= 0.1 * market.arrays.volume * (1 + 1e-9)).all()


@QUICK
@given(seed=SEEDS, kind=st.sampled_from(["spot", "perpetual"]))
def test_no_fill_crosses_zero_and_spot_is_never_short(assume: Assume, seed: int, kind: str) -> None:
    """A position goes from one side to the other through exactly zero; on spot it never goes below."""
    events = run_bars(Gambler(seed), market_of(seed), assume(kind=kind, lot_size=0.01)).events
    held = dict.fromkeys(range(3), 0.0)
    for row in events[events["kind"] == EventKind.FILL]:
        before = held[row["asset"]]
        after = round(before + row["quantity"], 6)
        assert before * after >= 0
        assert kind == "perpetual" or after >= 0
        held[row["asset"]] = after


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_trades_add_up_to_the_result(rough: list[Assumptions], seed: int, which: int) -> None:
    """The results of all trades, closed and open, are what equity gained."""
    simulation = run_bars(Gambler(seed), market_of(seed), rough[which])
    gained = simulation.equity[-1] - simulation.capital
    assert trades_of(simulation)["pnl"].sum() == pytest.approx(gained, abs=1e-6)


@QUICK
@given(seed=SEEDS, which=st.integers(0, 3))
def test_decisions_known_beforehand_give_the_same_log(rough: list[Assumptions], seed: int, which: int) -> None:
    """What a strategy decided bar by bar, handed over as a whole, trades identically."""
    market = market_of(seed)
    by_bar = run_bars(Gambler(seed), market, rough[which])
    at_once = simulate(market, read_only(by_bar.decisions), rough[which])
    assert by_bar.events.tobytes() == at_once.events.tobytes()
    assert np.array_equal(by_bar.equity, at_once.equity)
