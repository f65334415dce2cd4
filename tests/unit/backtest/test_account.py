"""One cash account: shorts, buying power, limits and funding. Every number is worked out beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mts_dagster.backtest.layout import EventKind

if TYPE_CHECKING:
    from tests.unit.backtest.playing import Assume, Play

FLAT = (100.0, 101.0, 99.0, 100.0)
ETH = (10.0, 10.1, 9.9, 10.0)


def test_a_short_earns_when_the_price_falls(play: Play) -> None:
    """Sold 5 at 100, marked at 90: 500 received, 450 owed."""
    played = play([FLAT, (100.0, 100.0, 90.0, 90.0)], {0: lambda b: b.order("BTC", -5.0)})
    assert played.cash == 1500.0
    assert played.equity[-1] == 1050.0


def test_a_target_is_sized_at_the_close_that_decides_it(play: Play) -> None:
    """Half of 1000 at the close of 100 is 5 units, whatever the next open."""
    played = play([FLAT, (80.0, 81.0, 79.0, 80.0)], {0: lambda b: b.target("BTC", 0.5)})
    assert played.fills == [(1, 5.0, 80.0)]


def test_a_target_trades_the_difference_only(play: Play) -> None:
    """From 5 units at 100 to a quarter of the equity of 1000: sells 2.5."""
    steps = {0: lambda b: b.target("BTC", 0.5), 1: lambda b: b.target("BTC", 0.25)}
    assert play([FLAT, FLAT, FLAT], steps).fills == [(1, 5.0, 100.0), (2, -2.5, 100.0)]


def test_repeating_a_target_trades_nothing(play: Play) -> None:
    """The price moves, the target does not: no rebalancing."""
    high = (120.0, 121.0, 119.0, 120.0)
    steps = {bar: lambda b: b.target("BTC", 0.5) for bar in range(3)}
    assert len(play([FLAT, FLAT, high, high], steps).fills) == 1


@pytest.mark.parametrize(("threshold", "fills"), [(0.05, 1), (0.02, 2)])
def test_a_small_change_of_size_waits_for_the_threshold(
    play: Play, assume: Assume, threshold: float, fills: int
) -> None:
    """From 0.50 to 0.53 is less than 0.05 of equity and more than 0.02."""
    steps = {0: lambda b: b.target("BTC", 0.5), 1: lambda b: b.target("BTC", 0.53)}
    assert len(play([FLAT, FLAT, FLAT], steps, assume(rebalance_threshold=threshold)).fills) == fills


def test_a_newer_target_replaces_what_the_older_one_still_waits_for(play: Play, assume: Assume) -> None:
    """A tenth of a volume of 20 fills 2 of 5; flat at the close of bar 1 cancels 3 and sells 2."""
    bars = [FLAT, (*FLAT, 20.0), (*FLAT, 20.0), FLAT]
    steps = {0: lambda b: b.target("BTC", 0.5), 1: lambda b: b.target("BTC", 0.0)}
    played = play(bars, steps, assume(max_volume_share=0.1))
    assert played.fills == [(1, 2.0, 100.0), (2, -2.0, 100.0)]
    assert played.cancelled == ["replaced"]


def test_the_whole_account_buys_as_much_as_it_can_pay_with_the_fee(play: Play, assume: Assume) -> None:
    """1000 buys 1000 / (100 x 1.01) with a fee of 1 %, and no cash is left."""
    played = play([FLAT, FLAT], {0: lambda b: b.target("BTC", 1.0)}, assume(taker_fee_bps=100.0))
    assert played.fills[0][1] == pytest.approx(1000 / 101)
    assert played.cash == pytest.approx(0.0, abs=1e-8)
    assert played.cash >= 0.0
    assert played.cancelled == ["buying_power"]


def test_orders_that_exceed_the_buying_power_together_are_scaled_alike(play: Play) -> None:
    """80 % each of 1000 needs 1600: both get 1000 / 1600 of what they asked."""
    steps = {0: lambda b: (b.target("BTC", 0.8), b.target("ETH", 0.8))}
    played = play({"BTC": [FLAT, FLAT], "ETH": [ETH, ETH]}, steps)
    assert [q for _, q, _ in played.fills] == pytest.approx([5.0, 50.0])


def test_selling_one_asset_pays_for_another_at_the_same_open(play: Play) -> None:
    """All in BTC, then all in ETH: the sale at the open of bar 2 comes first."""
    steps = {
        0: lambda b: b.target("BTC", 1.0),
        1: lambda b: (b.target("ETH", 1.0), b.target("BTC", 0.0)),
    }
    played = play({"BTC": [FLAT] * 3, "ETH": [ETH] * 3}, steps)
    assert [(bar, quantity) for bar, quantity, _ in played.fills] == [
        (1, pytest.approx(10.0)),
        (2, pytest.approx(-10.0)),
        (2, pytest.approx(100.0)),
    ]


def test_leverage_lets_positions_exceed_equity(play: Play, assume: Assume) -> None:
    """At leverage 2 a position of 1500 on 1000 is fine, 2500 is cut to 2000."""
    bars = {"BTC": [FLAT, FLAT]}
    terms = assume(max_leverage=2.0, max_position=5.0)
    assert play(bars, {0: lambda b: b.target("BTC", 1.5)}, terms).position() == pytest.approx(15.0)
    assert play(bars, {0: lambda b: b.target("BTC", 2.5)}, terms).position() == pytest.approx(20.0)


def test_short_positions_use_buying_power_too(play: Play) -> None:
    """Short 60 % and long 60 % are 120 % of gross exposure: scaled to 50 % each."""
    steps = {0: lambda b: (b.target("BTC", -0.6), b.target("ETH", 0.6))}
    played = play({"BTC": [FLAT, FLAT], "ETH": [ETH, ETH]}, steps)
    assert [q for _, q, _ in played.fills] == pytest.approx([-5.0, 50.0])


def test_a_target_beyond_the_position_limit_is_cut(play: Play, assume: Assume) -> None:
    """A limit of 10 % of 1000 holds 1 unit at 100."""
    played = play([FLAT, FLAT], {0: lambda b: b.target("BTC", 0.5)}, assume(max_position=0.1))
    assert played.fills == [(1, 1.0, 100.0)]
    assert played.rejected == ["position_limit"]


def test_an_order_beyond_the_position_limit_is_cut_counting_what_waits(play: Play, assume: Assume) -> None:
    """Limit 3 units: a waiting limit order for 2 leaves room for 1 of the next 2."""
    steps = {0: lambda b: (b.order("BTC", 2.0, limit=50.0), b.order("BTC", 2.0))}
    played = play([FLAT, FLAT], steps, assume(max_position=0.3))
    assert played.fills == [(1, 1.0, 100.0)]
    assert played.rejected == ["position_limit"]


def test_the_daily_trade_limit_rejects_what_opens_and_lets_close(play: Play, assume: Assume) -> None:
    """One trade a day: the add at 01:00 is rejected, the sale at 02:00 passes, the next day may buy again."""
    steps = {
        0: lambda b: b.order("BTC", 1.0),
        1: lambda b: b.order("BTC", 1.0),
        2: lambda b: b.order("BTC", -1.0),
        23: lambda b: b.order("BTC", 1.0),
    }
    played = play([FLAT] * 26, steps, assume(max_trades_per_day=1))
    assert [(bar, q) for bar, q, _ in played.fills] == [(1, 1.0), (3, -1.0), (24, 1.0)]
    assert played.rejected == ["trade_limit"]


def test_a_reversal_at_the_daily_limit_closes_only(play: Play, assume: Assume) -> None:
    """From long to short with no trade left: the position is closed, the short is not opened."""
    steps = {0: lambda b: b.target("BTC", 0.5), 1: lambda b: b.target("BTC", -0.5)}
    played = play([FLAT] * 3, steps, assume(max_trades_per_day=1))
    assert [q for _, q, _ in played.fills] == [5.0, -5.0]


def test_a_rejected_signal_is_tried_again_while_it_stands(play: Play, assume: Assume) -> None:
    """Rejected by the daily limit at 02:00, the same target is taken at 00:00 of the next day."""
    steps = {
        0: lambda b: b.target("ETH", 0.1),
        1: lambda b: b.target("BTC", 0.1),
        23: lambda b: b.target("BTC", 0.1),
    }
    played = play({"BTC": [FLAT] * 25, "ETH": [ETH] * 25}, steps, assume(max_trades_per_day=1))
    assert [bar for bar, _, _ in played.fills] == [1, 24]


def test_spot_cannot_be_sold_short(play: Play, assume: Assume) -> None:
    """A short target on spot is rejected; a sale is cut to what is held."""
    steps = {
        0: lambda b: b.target("BTC", -0.5),
        1: lambda b: b.order("BTC", 1.0),
        2: lambda b: b.order("BTC", -3.0),
    }
    played = play([FLAT] * 4, steps, assume(kind="spot"))
    assert [q for _, q, _ in played.fills] == [1.0, -1.0]
    assert played.rejected == ["short_not_allowed"]


@pytest.mark.parametrize(("side", "rate", "cash"), [(1.0, 1e-3, -0.1), (-1.0, 1e-3, 0.1), (1.0, -1e-3, 0.1)])
def test_a_positive_rate_makes_long_pay_and_short_receive(play: Play, side: float, rate: float, cash: float) -> None:
    """0.1 % of 1 x 100, settled at the open of bar 2."""
    played = play([FLAT] * 3, {0: lambda b: b.order("BTC", side)}, funding=[(2, "BTC", rate)])
    assert [row["cash"] for row in played.log(EventKind.FUNDING)] == pytest.approx([cash])
    assert played.equity[-1] == pytest.approx(1000.0 + cash)


def test_funding_at_an_open_is_owed_by_who_held_before_it(play: Play) -> None:
    """Bought at the open of bar 1, sold at the open of bar 2: pays at 02:00, not at 01:00."""
    steps = {0: lambda b: b.order("BTC", 1.0), 1: lambda b: b.order("BTC", -1.0)}
    played = play([FLAT] * 4, steps, funding=[(1, "BTC", 1e-3), (2, "BTC", 1e-3), (3, "BTC", 1e-3)])
    assert [row["bar"] for row in played.log(EventKind.FUNDING)] == [2]


def test_funding_inside_a_bar_is_owed_by_who_holds_after_the_open(play: Play) -> None:
    """Settled at 01:30, half an hour after the purchase at 01:00, at the open price of the bar."""
    bars = [FLAT, (102.0, 103.0, 101.0, 102.0), FLAT]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0)}, funding=[(1.5, "BTC", 1e-3)])
    assert [row["cash"] for row in played.log(EventKind.FUNDING)] == pytest.approx([-0.102])


def test_settlements_stamped_milliseconds_late_belong_to_the_hour(play: Play) -> None:
    """Venues stamp 02:00:00.007; the position bought at 02:00 did not hold at 02:00:00."""
    late = 2 + 7e-3 / 3600
    played = play([FLAT] * 4, {1: lambda b: b.order("BTC", 1.0)}, funding=[(late, "BTC", 1e-3)])
    assert played.log(EventKind.FUNDING) == []


def test_funding_over_a_missing_bar_uses_the_last_mark(play: Play) -> None:
    """ETH closed at 11 before the bar that is not there."""
    eth = [ETH, (10.0, 11.0, 10.0, 11.0), None, ETH]
    played = play({"BTC": [FLAT] * 4, "ETH": eth}, {0: lambda b: b.order("ETH", 1.0)}, funding=[(2, "ETH", 1e-3)])
    assert [row["cash"] for row in played.log(EventKind.FUNDING)] == pytest.approx([-0.011])
