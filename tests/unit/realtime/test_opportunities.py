"""Lives of opportunities and signals over time."""

from __future__ import annotations

import pytest

from mts_realtime.analytics.arbitrage import Assessment, Edge
from mts_realtime.analytics.opportunities import Change, OpportunityTracker
from mts_realtime.analytics.signals import Signal, SignalGate, SignalKind, Strength, confidence_of, strength_of

KEY = ("BTCUSDT", "binance", "bybit")
MS = 1_000_000
JUDGED = Assessment(feasible=True, confidence=0.5, reasons=())


def edge(net_bps: float) -> Edge:
    return Edge(
        size_base=1.0,
        notional_usd=100.0,
        buy_price=100.0,
        sell_price=101.0,
        gross_bps=net_bps + 10,
        net_bps=net_bps,
        net_usd=1.0,
    )


def test_life_of_an_opportunity() -> None:
    """Opened at 0 with 3 bps, 5 bps at 100 ms, 2 bps at 300 ms, gone at 900 ms."""
    tracker = OpportunityTracker()
    change, living = tracker.observe(KEY, 0, edge(3.0), JUDGED)
    assert change is Change.OPENED
    assert tracker.observe(KEY, 100 * MS, edge(5.0), JUDGED)[0] is Change.UPDATED
    tracker.observe(KEY, 300 * MS, edge(2.0), JUDGED)
    ended = tracker.expire(KEY, 900 * MS, "edge_gone")
    assert ended is living
    assert (ended.lifetime_ms, ended.updates, ended.peak.net_bps, ended.expired_reason) == (900.0, 3, 5.0, "edge_gone")
    assert (tracker.opened, tracker.expired, tracker.living) == (1, 1, {})


def test_survival_is_the_edge_in_force_at_each_delay() -> None:
    """At 50 ms still the first edge, at 250 ms the one seen at 100 ms; at 1000 ms it is gone."""
    tracker = OpportunityTracker()
    _, living = tracker.observe(KEY, 0, edge(3.0), JUDGED)
    tracker.observe(KEY, 100 * MS, edge(5.0), JUDGED)
    tracker.observe(KEY, 300 * MS, edge(2.0), JUDGED)
    tracker.expire(KEY, 900 * MS, "edge_gone")
    assert living.net_bps_after == {50: 3.0, 250: 5.0}
    assert [living.survived(horizon) for horizon in (50, 250, 1000)] == [True, True, False]


def test_expiry_also_passes_the_delays() -> None:
    """An edge that nobody updated was still in force until it ended."""
    tracker = OpportunityTracker()
    _, living = tracker.observe(KEY, 0, edge(3.0), JUDGED)
    tracker.expire(KEY, 2000 * MS, "edge_gone")
    assert living.net_bps_after == {50: 3.0, 250: 3.0, 1000: 3.0}


def test_a_delay_that_falls_on_an_observation_is_judged_by_it() -> None:
    """On a grid of a second: seen at 0 and 1 s, gone at 2 s; and seen at 0 alone, gone at 1 s."""
    tracker = OpportunityTracker()
    _, living = tracker.observe(KEY, 0, edge(3.0), JUDGED)
    tracker.observe(KEY, 1000 * MS, edge(2.0), JUDGED)
    tracker.expire(KEY, 2000 * MS, "edge_gone")
    assert living.net_bps_after[1000] == 2.0
    _, living = tracker.observe(KEY, 5000 * MS, edge(3.0), JUDGED)
    tracker.expire(KEY, 6000 * MS, "edge_gone")
    assert not living.survived(1000)


def test_expiring_nothing_is_nothing() -> None:
    """There may be no opportunity where a book is lost."""
    assert OpportunityTracker().expire(KEY, 5, "book_lost") is None


def test_directions_live_apart() -> None:
    """Buying here and selling there is another opportunity than the reverse."""
    tracker = OpportunityTracker()
    tracker.observe(KEY, 0, edge(3.0), JUDGED)
    assert tracker.observe(("BTCUSDT", "bybit", "binance"), 0, edge(3.0), JUDGED)[0] is Change.OPENED
    assert len({living.id for living in tracker.living.values()}) == 2


@pytest.mark.parametrize(
    ("value", "strength"),
    [(4.0, Strength.WEAK), (5.9, Strength.WEAK), (6.0, Strength.MODERATE), (-10.0, Strength.STRONG)],
)
def test_strength(value: float, strength: Strength) -> None:
    """Against a threshold of 4: MODERATE from 6, STRONG from 10, sign aside."""
    assert strength_of(value, 4.0) is strength


def test_confidence() -> None:
    """At the threshold one half, at three times the threshold three quarters."""
    assert confidence_of(4.0, 4.0) == 0.5
    assert confidence_of(-12.0, 4.0) == 0.75


def signal(at_ns: int, strength: Strength, exchange: str = "binance") -> Signal:
    return Signal(
        kind=SignalKind.SPREAD_ANOMALY,
        symbol="BTCUSDT",
        exchanges=(exchange,),
        at_ns=at_ns,
        expires_ns=at_ns + 10,
        value=5.0,
        threshold=4.0,
        unit="z",
        strength=strength,
        confidence=0.5,
        detail={},
    )


def test_one_situation_is_one_signal() -> None:
    """The same again within its life is no news; stronger, elsewhere, or after its life it is."""
    gate = SignalGate()
    assert gate.admit(signal(0, Strength.WEAK))
    assert not gate.admit(signal(9, Strength.WEAK))
    assert gate.admit(signal(9, Strength.WEAK, "bybit"))
    assert gate.admit(signal(9, Strength.STRONG))
    assert not gate.admit(signal(18, Strength.MODERATE))
    assert gate.admit(signal(19, Strength.MODERATE))
    assert gate.passed[SignalKind.SPREAD_ANOMALY] == 4
