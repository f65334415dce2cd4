"""Orders become fills: when, at which price and cost, in which quantity, with the numbers worked out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mts_dagster.backtest.layout import EventKind
from mts_dagster.backtest.python_strategy import WaitingOrder
from mts_dagster.errors import UsageError
from tests.unit.backtest.playing import HOUR, START

if TYPE_CHECKING:
    from mts_dagster.backtest.python_strategy import Broker
    from tests.unit.backtest.playing import Assume, Bar, Play, Step, Steps


FLAT = (100.0, 101.0, 99.0, 100.0)


def test_a_decision_on_a_close_fills_at_the_next_open(play: Play) -> None:
    """Decided at the close of bar 0 at 100, filled at the open of bar 1 at 103."""
    played = play([FLAT, (103.0, 104.0, 102.0, 103.5), FLAT], {0: lambda b: b.order("BTC", 2.0)})
    assert played.fills == [(1, 2.0, 103.0)]
    assert played.cash == 1000.0 - 2 * 103.0
    assert played.equity == [1000.0, 1000.0 + 2 * 0.5, 1000.0 - 2 * 3.0]


def test_a_decision_on_the_last_close_never_fills(play: Play) -> None:
    """There is no next open, so the order waits at the end."""
    played = play([FLAT, FLAT], {1: lambda b: b.order("BTC", 1.0)})
    assert played.fills == []
    assert len(played.simulation.waiting) == 1


def test_a_market_order_pays_the_taker_fee_on_both_sides(play: Play, assume: Assume) -> None:
    """5 bps of 2 x 100 is 0.1 to buy, 5 bps of 2 x 110 is 0.11 to sell."""
    bars = [FLAT, FLAT, (110.0, 111.0, 109.0, 110.0)]
    steps = {0: lambda b: b.order("BTC", 2.0), 1: lambda b: b.order("BTC", -2.0)}
    played = play(bars, steps, assume(taker_fee_bps=5.0, maker_fee_bps=1.0))
    assert [row["fee"] for row in played.log(EventKind.FILL)] == pytest.approx([0.1, 0.11])
    assert played.cash == pytest.approx(1000.0 + 20.0 - 0.21)


def test_a_waiting_limit_order_pays_the_maker_fee(play: Play, assume: Assume) -> None:
    """A buy limit at 95 is reached by the low of bar 2: 2 bps of 95 is 0.019."""
    bars = [FLAT, FLAT, (100.0, 100.0, 94.0, 98.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.0)}, assume(taker_fee_bps=5.0, maker_fee_bps=2.0))
    assert played.fills == [(2, 1.0, 95.0)]
    assert played.log(EventKind.FILL)[0]["fee"] == pytest.approx(0.019)


def test_a_limit_order_that_the_next_open_has_passed_takes(play: Play, assume: Assume) -> None:
    """A buy limit at 105 meets the open at 100 on arrival: filled there, taker fee 5 bps of 100."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", 1.0, limit=105.0)}, assume(taker_fee_bps=5.0))
    assert played.fills == [(1, 1.0, 100.0)]
    assert played.log(EventKind.FILL)[0]["fee"] == pytest.approx(0.05)


def test_slippage_never_pushes_a_limit_order_beyond_its_limit(play: Play, assume: Assume) -> None:
    """100 with 100 bps slippage would be 101, the limit holds it at 100.5."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", 1.0, limit=100.5)}, assume(slippage_bps=100.0))
    assert played.fills == [(1, 1.0, 100.5)]


@pytest.mark.parametrize(("low", "filled"), [(95.0, False), (94.9, True)])
def test_through_needs_a_trade_beyond_the_limit(play: Play, assume: Assume, low: float, filled: bool) -> None:
    """With ``through`` a bar that only touches 95 leaves the order waiting."""
    bars = [FLAT, (100.0, 100.0, low, 98.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.0)}, assume(limit_fill="through"))
    assert bool(played.fills) is filled


def test_touch_fills_a_limit_at_the_extreme(play: Play) -> None:
    """With ``touch`` a low of exactly 95 fills a buy limit at 95."""
    assert play([FLAT, (100.0, 100.0, 95.0, 98.0)], {0: lambda b: b.order("BTC", 1.0, limit=95.0)}).fills == [
        (1, 1.0, 95.0)
    ]


@pytest.mark.parametrize(("gap_price", "price"), [("open", 90.0), ("limit", 95.0)])
def test_a_waiting_limit_order_in_a_gap(play: Play, assume: Assume, gap_price: str, price: float) -> None:
    """Bar 2 opens at 90 below a buy limit at 95 that waited through bar 1."""
    bars = [FLAT, FLAT, (90.0, 92.0, 89.0, 91.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.0)}, assume(gap_price=gap_price))
    assert played.fills == [(2, 1.0, price)]


def test_a_sell_limit_fills_above(play: Play) -> None:
    """Long 1 from 100, sell limit at 108 inside bar 2 with high 109."""
    bars = [FLAT, FLAT, (101.0, 109.0, 100.0, 107.0)]
    steps = {0: lambda b: b.order("BTC", 1.0), 1: lambda b: b.order("BTC", -1.0, limit=108.0)}
    assert play(bars, steps).fills == [(1, 1.0, 100.0), (2, -1.0, 108.0)]


def test_a_stop_order_triggers_inside_the_bar_and_slips(play: Play, assume: Assume) -> None:
    """A buy stop at 105 is reached by the high; 10 bps slippage make 105.105."""
    bars = [FLAT, (100.0, 107.0, 99.0, 106.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, stop=105.0)}, assume(slippage_bps=10.0))
    assert played.fills == [(1, 1.0, pytest.approx(105.105))]


def test_a_stop_order_in_a_gap_fills_at_the_open(play: Play) -> None:
    """A buy stop at 105 with an open of 110 pays 110."""
    bars = [FLAT, (110.0, 112.0, 109.0, 111.0)]
    assert play(bars, {0: lambda b: b.order("BTC", 1.0, stop=105.0)}).fills == [(1, 1.0, 110.0)]


def test_a_stop_that_the_open_has_passed_never_fills_at_its_trigger(play: Play, assume: Assume) -> None:
    """Two orders for 51 ask for all of the volume of 100, buying power leaves each 3: the stop at 105 is triggered.

    The bar opens at 110, so the stop became a market order there and gets the next open of 111.
    """
    bars = [FLAT, (110.0, 112.0, 109.0, 111.0, 1000.0), (111.0, 112.0, 110.0, 111.0)]
    steps = {0: lambda b: (b.order("BTC", 51.0), b.order("BTC", 51.0), b.order("BTC", 3.0, stop=105.0))}
    terms = assume(max_volume_share=0.1, max_position=125.0, lot_size=3.0)
    assert play(bars, steps, terms).fills == [(1, 3.0, 110.0), (1, 3.0, 110.0), (2, 3.0, 111.0)]


def test_a_stop_that_is_reached_without_volume_is_a_market_order(play: Play, assume: Assume) -> None:
    """Bar 1 reaches the trigger of 105 but trades nothing; bar 2 is below it and fills the order at its open."""
    bars = [FLAT, (100.0, 106.0, 99.0, 100.0, 0.0), FLAT]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, stop=105.0)}, assume(max_volume_share=0.1))
    assert played.fills == [(2, 1.0, 100.0)]


def test_a_sell_stop_order_opens_a_short(play: Play) -> None:
    """A sell stop at 95 from flat is reached by the low of 94."""
    bars = [FLAT, (100.0, 100.0, 94.0, 96.0)]
    played = play(bars, {0: lambda b: b.order("BTC", -1.0, stop=95.0)})
    assert played.fills == [(1, -1.0, 95.0)]
    assert played.equity[-1] == 1000.0 - 1.0


@pytest.mark.parametrize(("quantity", "price"), [(1.0, 100.2), (-1.0, 99.8)])
def test_slippage_is_against_the_order(play: Play, assume: Assume, quantity: float, price: float) -> None:
    """20 bps of 100 is 0.2, paid by the buyer, given up by the seller."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", quantity)}, assume(slippage_bps=20.0))
    assert played.fills == [(1, quantity, pytest.approx(price))]
    assert played.log(EventKind.FILL)[0]["slippage"] == pytest.approx(0.2)


def test_impact_grows_with_the_square_of_the_share(play: Play, assume: Assume) -> None:
    """2 of a volume of 10 is a share of 0.2; 0.1 x 0.04 = 0.4 % on 100."""
    bars = [FLAT, (*FLAT, 10.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 2.0)}, assume(impact=0.1, max_volume_share=1.0))
    assert played.fills == [(1, 2.0, pytest.approx(100.4))]


def test_an_order_cut_to_the_buying_power_has_the_impact_of_what_fills(play: Play, assume: Assume) -> None:
    """20 of a volume of 100 would cost 100.4 each; 1000 allows 1000 / 2008 of it, near a tenth of the volume."""
    bars = [FLAT, (*FLAT, 100.0)]
    terms = assume(impact=0.1, max_volume_share=1.0, max_position=125.0)
    played = play(bars, {0: lambda b: b.order("BTC", 20.0)}, terms)
    part = 20.0 * 1000.0 / 2008.0
    assert played.fills == [(1, pytest.approx(part), pytest.approx(100.0 * (1.0 + 0.1 * (part / 100.0) ** 2)))]
    assert played.cancelled == ["buying_power"]


def test_an_order_larger_than_its_share_of_the_volume_fills_over_several_bars(play: Play, assume: Assume) -> None:
    """A tenth of volumes 10, 20, 50 is 1, 2, 5: an order for 4 takes 1, 2 and the remaining 1."""
    bars = [(*FLAT, 10.0), (*FLAT, 10.0), (*FLAT, 20.0), (*FLAT, 50.0), FLAT]
    played = play(bars, {0: lambda b: b.order("BTC", 4.0)}, assume(max_volume_share=0.1))
    assert played.fills == [(1, 1.0, 100.0), (2, 2.0, 100.0), (3, 1.0, 100.0)]


def test_orders_of_one_asset_share_the_volume_of_a_bar(play: Play, assume: Assume) -> None:
    """Two orders for 1 with 1.5 to take: the first fills, the second gets a half, then the rest."""
    bars = [FLAT, (*FLAT, 15.0), (*FLAT, 15.0)]
    steps = {0: lambda b: (b.order("BTC", 1.0), b.order("BTC", 1.0))}
    played = play(bars, steps, assume(max_volume_share=0.1))
    assert [(bar, quantity) for bar, quantity, _ in played.fills] == [(1, 1.0), (1, 0.5), (2, 0.5)]


def test_quantities_round_down_to_the_lot(play: Play, assume: Assume) -> None:
    """2.57 in lots of 0.1 is 2.5; three such buys leave no float residue."""
    steps = {
        0: lambda b: b.order("BTC", 2.57),
        1: lambda b: b.order("BTC", 0.3),
        2: lambda b: b.order("BTC", -2.8),
    }
    played = play([FLAT, FLAT, FLAT, FLAT], steps, assume(lot_size=0.1))
    assert [q for _, q, _ in played.fills] == pytest.approx([2.5, 0.3, -2.8])
    assert played.position() == 0.0


def test_less_than_a_lot_is_rejected(play: Play, assume: Assume) -> None:
    """0.05 in lots of 0.1 is nothing."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", 0.05)}, assume(lot_size=0.1))
    assert (played.fills, played.rejected) == ([], ["below_lot"])


@pytest.mark.parametrize(("quantity", "price"), [(1.0, 100.5), (-1.0, 99.5)])
def test_prices_round_against_the_order_to_the_tick(play: Play, assume: Assume, quantity: float, price: float) -> None:
    """100 with 10 bps is 100.1 or 99.9; in ticks of 0.5 that is 100.5 to buy and 99.5 to sell."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", quantity)}, assume(slippage_bps=10.0, tick_size=0.5))
    assert played.fills == [(1, quantity, price)]


def test_limit_prices_round_away_from_the_market(play: Play, assume: Assume) -> None:
    """A buy limit at 95.3 in ticks of 0.5 becomes 95.0, so a low of 95.2 does not fill it."""
    bars = [FLAT, (100.0, 100.0, 95.2, 97.0)]
    assert play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.3)}, assume(tick_size=0.5)).fills == []


def test_a_price_on_the_tick_stays_there(play: Play, assume: Assume) -> None:
    """100.1 is a multiple of 0.1 although the floats disagree."""
    bars = [FLAT, (100.1, 101.0, 99.0, 100.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0)}, assume(tick_size=0.1))
    assert played.fills[0][2] == pytest.approx(100.1, abs=1e-12)


def test_an_order_below_the_minimum_notional_is_rejected(play: Play, assume: Assume) -> None:
    """0.09 x 100 = 9 is less than 10."""
    played = play([FLAT, FLAT], {0: lambda b: b.order("BTC", 0.09)}, assume(min_notional_usd=10.0))
    assert (played.fills, played.rejected) == ([], ["min_notional"])


def test_closing_everything_is_exempt_from_the_minimum_notional(play: Play, assume: Assume) -> None:
    """0.1 bought for 10 is worth 5 later and can still be sold whole, but not half."""
    low = (50.0, 51.0, 49.0, 50.0)
    steps = {
        0: lambda b: b.order("BTC", 0.1),
        1: lambda b: b.order("BTC", -0.05),
        2: lambda b: b.order("BTC", -0.1),
    }
    played = play([FLAT, (100.0, 100.0, 50.0, 50.0), low, low], steps, assume(min_notional_usd=10.0))
    assert played.rejected == ["min_notional"]
    assert [q for _, q, _ in played.fills] == [0.1, -0.1]


def test_a_cancelled_order_does_not_fill(play: Play) -> None:
    """Bar 2 reaches the limit, but the order was cancelled at the close of bar 1."""
    ids: list[int] = []
    steps = {0: lambda b: ids.append(b.order("BTC", 1.0, limit=95.0)), 1: lambda b: b.cancel(ids[0])}
    played = play([FLAT, FLAT, (100.0, 100.0, 90.0, 95.0)], steps)
    assert (played.fills, played.cancelled) == ([], ["strategy"])


def test_a_reversing_order_closes_with_one_fill_and_opens_with_another(play: Play) -> None:
    """Long 1, sell 3: one fill of -1 closes, one of -2 opens the short."""
    steps = {0: lambda b: b.order("BTC", 1.0), 1: lambda b: b.order("BTC", -3.0)}
    played = play([FLAT, FLAT, FLAT], steps)
    assert played.fills == [(1, 1.0, 100.0), (2, -1.0, 100.0), (2, -2.0, 100.0)]


def test_a_stop_that_reverses_inside_a_bar_opens_at_the_next_open(play: Play) -> None:
    """Long 1 with a sell stop for 2 at 95: 1 is sold at 95, the short opens at the next open of 93."""
    bars = [FLAT, FLAT, (100.0, 100.0, 94.0, 94.0), (93.0, 94.0, 92.0, 93.0)]
    steps = {0: lambda b: b.order("BTC", 1.0), 1: lambda b: b.order("BTC", -2.0, stop=95.0)}
    assert play(bars, steps).fills == [(1, 1.0, 100.0), (2, -1.0, 95.0), (3, -1.0, 93.0)]


def test_reduce_only_never_opens(play: Play) -> None:
    """Long 1, reduce-only sale of 3: only 1 is sold, the rest is cancelled with the position."""
    steps = {0: lambda b: b.order("BTC", 1.0), 1: lambda b: b.order("BTC", -3.0, reduce_only=True)}
    played = play([FLAT, FLAT, FLAT, FLAT], steps)
    assert [q for _, q, _ in played.fills] == [1.0, -1.0]
    assert played.cancelled == ["position_closed"]


@pytest.mark.parametrize(
    "turn",
    [
        {2: lambda b: b.order("BTC", -2.0), 3: lambda b: b.order("BTC", 2.0)},
        {2: lambda b: (b.order("BTC", -1.0), b.order("BTC", 1.0))},
    ],
    ids=["reversed and back", "closed and reopened at one open"],
)
def test_reduce_only_does_not_outlive_its_position(play: Play, turn: Steps) -> None:
    """Long 1 with a reduce-only stop at 90; a later long of 1 is not stopped by the fall to 85."""
    protect = {
        0: lambda b: b.order("BTC", 1.0),
        1: lambda b: b.order("BTC", -1.0, stop=90.0, reduce_only=True),
    }
    played = play([FLAT] * 5 + [(100.0, 101.0, 85.0, 90.0)], {**protect, **turn})
    assert played.position() == 1.0
    assert played.cancelled == ["position_closed"]


def test_reduce_only_guards_the_position_that_a_reversal_opens(play: Play) -> None:
    """Long 1, sell 2 and with it a reduce-only buy stop at 105: it is for the short, and closes that."""
    steps = {
        0: lambda b: b.order("BTC", 1.0),
        1: lambda b: (b.order("BTC", -2.0), b.order("BTC", 1.0, stop=105.0, reduce_only=True)),
    }
    played = play([FLAT] * 3 + [(100.0, 106.0, 99.0, 104.0)], steps)
    assert played.fills[-1] == (3, 1.0, 105.0)
    assert (played.position(), played.cancelled) == (0.0, [])


def test_a_close_without_a_reversal_cancels_reduce_only_of_both_directions(play: Play) -> None:
    """Long 1, sell 2 cut to 1 by reduce-only: what was to guard the short goes with the long."""
    steps = {
        0: lambda b: b.order("BTC", 1.0),
        1: lambda b: (
            b.order("BTC", -2.0, reduce_only=True),
            b.order("BTC", 1.0, stop=105.0, reduce_only=True),
        ),
    }
    assert play([FLAT] * 3, steps).cancelled == ["position_closed"] * 2


def test_what_is_left_of_a_stop_after_a_reopening_still_exits(play: Play, assume: Assume) -> None:
    """Closed and reopened at one open, then stopped where the volume ends: the rest is sold at the next open."""
    bars = [FLAT, FLAT, (100.0, 101.0, 90.0, 91.0, 25.0), FLAT]
    steps = {
        0: lambda b: b.order("BTC", 1.0),
        1: lambda b: (b.order("BTC", -1.0), b.order("BTC", 1.0, stop_loss_pct=5.0)),
    }
    played = play(bars, steps, assume(max_volume_share=0.1))
    assert played.fills[1:] == [(2, -1.0, 100.0), (2, 1.0, 100.0), (2, -0.5, 95.0), (3, -0.5, 100.0)]


def test_a_bar_that_is_not_there_fills_nothing(play: Play) -> None:
    """ETH has no bar 1; its order waits for the open of bar 2."""
    eth: list[Bar | None] = [(10.0, 11.0, 9.0, 10.0), None, (12.0, 13.0, 11.0, 12.0)]
    bars: dict[str, list[Bar | None]] = {"BTC": [FLAT, FLAT, FLAT], "ETH": eth}
    assert play(bars, {0: lambda b: b.order("ETH", 1.0)}).fills == [(2, 1.0, 12.0)]


def test_a_position_keeps_its_last_mark_over_a_missing_bar(play: Play) -> None:
    """ETH bought at 10 and closed at 11 counts 11 through the bar that is not there."""
    eth = [(10.0, 11.0, 9.0, 10.0), (10.0, 11.0, 9.0, 11.0), None, (12.0, 13.0, 11.0, 12.0)]
    played = play({"BTC": [FLAT] * 4, "ETH": eth}, {0: lambda b: b.order("ETH", 1.0)})
    assert played.equity == [1000.0, 1001.0, 1001.0, 1002.0]


def test_both_stop_entries_of_a_straddle_fill_against_each_other(play: Play) -> None:
    """A bar that reaches a buy stop and a sell stop fills both: bought at 105, sold at 95."""
    bars = [FLAT, (100.0, 106.0, 94.0, 100.0)]
    steps = {0: lambda b: (b.order("BTC", 1.0, stop=105.0), b.order("BTC", -1.0, stop=95.0))}
    played = play(bars, steps)
    assert played.fills == [(1, 1.0, 105.0), (1, -1.0, 95.0)]
    assert played.cash == 990.0


def test_both_limits_of_a_grid_do_not_earn_the_spread_inside_one_bar(play: Play) -> None:
    """Buy limit 95 and sell limit 105 in one bar: which came first is unknown, so only the entry fills."""
    bars = [FLAT, (100.0, 106.0, 94.0, 100.0), FLAT]
    steps = {0: lambda b: (b.order("BTC", 1.0, limit=95.0), b.order("BTC", -1.0, limit=105.0))}
    assert play(bars, steps).fills == [(1, 1.0, 95.0)]


def test_assumptions_maker(assume: Assume) -> None:
    """The maker of these tests starts from no costs at all."""
    free = assume()
    assert free.venue("BTC").taker_fee_bps == 0.0
    assert free.fills.slippage_bps == 0.0


def test_tables_grow_with_what_is_ordered(play: Play) -> None:
    """A thousand limit orders in one bar, all waiting, then all cancelled: more than any table begins with."""
    ids: list[int] = []
    steps = {
        0: lambda b: ids.extend(b.order("BTC", 0.001, limit=50.0) for _ in range(1000)),
        2: lambda b: [b.cancel(number) for number in ids],
    }
    played = play([FLAT] * 4, steps)
    assert ids == list(range(1000))
    assert len(played.log(EventKind.ORDER)) == 1000
    assert played.cancelled == ["strategy"] * 1000
    assert len(played.simulation.waiting) == 0


def test_what_a_strategy_sees_ends_with_the_bar_that_has_closed(play: Play) -> None:
    """At the close of bar 1: two closes, the position of bar 1, equity and time of that close."""
    seen: dict[str, object] = {}

    def look(broker: Broker) -> None:
        seen.update(
            closes=broker.history("BTC", "mark", 10).tolist(),
            last=broker.close("BTC"),
            held=broker.position("BTC"),
            equity=broker.equity,
            cash=broker.cash,
            time=broker.time,
            waiting=broker.waiting("BTC"),
        )

    bars = [FLAT, (100.0, 103.0, 99.0, 102.0), (102.0, 110.0, 102.0, 110.0)]
    steps = {0: lambda b: (b.order("BTC", 1.0), b.order("BTC", 1.0, limit=50.0)), 1: look}
    play(bars, steps)
    assert seen["closes"] == [100.0, 102.0]
    assert (seen["last"], seen["held"], seen["equity"], seen["cash"]) == (102.0, 1.0, 1002.0, 900.0)
    assert seen["time"] == (START + 2 * HOUR).to_pydatetime()
    assert seen["waiting"] == [WaitingOrder(1, "BTC", "limit", 1.0, 50.0)]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda b: b.order("BTC", float("nan")), "makes no sense"),
        (lambda b: b.order("BTC", 1.0, limit=-5.0), "makes no sense"),
        (lambda b: b.order("BTC", 1.0, limit=90.0, stop=110.0), "limit and a stop"),
        (lambda b: b.order("DOGE", 1.0), "no asset 'DOGE'"),
        (lambda b: b.target("BTC", float("inf")), "fraction of equity is needed"),
        (
            lambda b: b.order("BTC", 1.0, stop_loss_pct=-5.0),
            r"'BTC' at 2024.*stop_loss_pct: .*greater than 0, got -5\.0",
        ),
        (lambda b: b.order("BTC", 1.0, stop_loss_pct=float("nan")), "stop_loss_pct: .*finite number, got nan"),
        (lambda b: b.order("BTC", 1.0, stop_loss_pct=150.0), r"stop_loss_pct: .*less than 100, got 150\.0"),
        (lambda b: b.order("BTC", 1.0, stop_loss_pct=0.0), r"stop_loss_pct: .*greater than 0, got 0\.0"),
        (lambda b: b.order("BTC", 1.0, take_profit_pct=-1.0), r"take_profit_pct: .*greater than 0, got -1\.0"),
        (lambda b: b.order("BTC", 1.0, take_profit_pct=float("inf")), "take_profit_pct: .*finite number, got inf"),
        (lambda b: b.order("BTC", 1.0, trailing_stop_pct=-1.0), r"trailing_stop_pct: .*greater than 0, got -1\.0"),
        (lambda b: b.order("BTC", 1.0, trailing_stop_pct=100.0), r"trailing_stop_pct: .*less than 100, got 100\.0"),
    ],
)
def test_an_order_that_makes_no_sense_is_an_error(play: Play, mistake: Step, words: str) -> None:
    """A strategy's mistake is told where it is made, not traded."""
    with pytest.raises(UsageError, match=words):
        play([FLAT, FLAT], {0: mistake})
