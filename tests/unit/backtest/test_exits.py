"""Stop-loss, take-profit, trailing stop and margin call inside a bar, with the numbers worked out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mts_dagster.backtest.layout import EventKind

if TYPE_CHECKING:
    from tests.unit.backtest.playing import Assume, Bar, Play, Steps

FLAT = (100.0, 101.0, 99.0, 100.0)


def buy(**exits: Any) -> Steps:  # noqa: ANN401 - whatever an order may bring
    """Return a script that buys 1 at the close of bar 0, so at the open of bar 1."""
    return {0: lambda b: b.order("BTC", 1.0, **exits)}


def sell(**exits: Any) -> Steps:  # noqa: ANN401 - same
    """Return a script that sells 1 short."""
    return {0: lambda b: b.order("BTC", -1.0, **exits)}


@pytest.mark.parametrize(
    ("steps", "bar", "exit_price"),
    [
        (buy(stop_loss_pct=5.0), (100.0, 102.0, 94.0, 96.0), 95.0),
        (sell(stop_loss_pct=5.0), (100.0, 106.0, 98.0, 104.0), 105.0),
        (buy(take_profit_pct=5.0), (100.0, 106.0, 99.0, 104.0), 105.0),
        (sell(take_profit_pct=5.0), (100.0, 102.0, 94.0, 96.0), 95.0),
    ],
    ids=["long stop", "short stop", "long take-profit", "short take-profit"],
)
def test_an_exit_inside_the_bar_fills_at_its_level(play: Play, steps: Steps, bar: Bar, exit_price: float) -> None:
    """Entered at 100, the exit at 5 % lies inside bar 2."""
    played = play([FLAT, FLAT, bar], steps)
    assert played.fills[-1][::2] == (2, pytest.approx(exit_price))
    assert played.position() == 0.0


@pytest.mark.parametrize(
    ("steps", "bar", "reason"),
    [
        (buy(stop_loss_pct=5.0), (90.0, 92.0, 88.0, 91.0), "stop_loss"),
        (sell(stop_loss_pct=5.0), (111.0, 112.0, 108.0, 110.0), "stop_loss"),
        (buy(take_profit_pct=5.0), (111.0, 112.0, 108.0, 110.0), "take_profit"),
        (sell(take_profit_pct=5.0), (90.0, 92.0, 88.0, 91.0), "take_profit"),
    ],
)
def test_an_exit_that_the_open_has_passed_fills_at_the_open(play: Play, steps: Steps, bar: Bar, reason: str) -> None:
    """A gap through the level of 95 or 105 fills at the open of 90 or 111."""
    played = play([FLAT, FLAT, bar], steps)
    assert played.fills[-1][::2] == (2, bar[0])
    assert played.reasons[-1] == reason


def test_a_gap_gives_nothing_away_when_assumptions_say_so(play: Play, assume: Assume) -> None:
    """With ``gap_price`` limit a take-profit at 105 gets 105 although the bar opens at 111."""
    bars = [FLAT, FLAT, (111.0, 112.0, 108.0, 110.0)]
    played = play(bars, buy(take_profit_pct=5.0), assume(gap_price="limit"))
    assert played.fills[-1] == (2, -1.0, pytest.approx(105.0))


def test_when_both_exits_could_hit_the_stop_does(play: Play) -> None:
    """Bar 2 spans 94 to 106 around exits at 95 and 105: the loss is taken."""
    bars = [FLAT, FLAT, (100.0, 106.0, 94.0, 105.5)]
    played = play(bars, buy(stop_loss_pct=5.0, take_profit_pct=5.0))
    assert played.fills[-1] == (2, -1.0, pytest.approx(95.0))
    assert played.reasons == ["strategy", "stop_loss"]


def test_the_exits_guard_the_bar_of_the_entry_too(play: Play) -> None:
    """Bought at the open of bar 1, whose low of 94 is below the stop at 95."""
    assert play([FLAT, (100.0, 100.0, 94.0, 99.0)], buy(stop_loss_pct=5.0)).fills == [
        (1, 1.0, 100.0),
        (1, -1.0, pytest.approx(95.0)),
    ]


def test_a_position_opened_inside_a_bar_takes_no_profit_in_it(play: Play) -> None:
    """Limit entry at 95; the high of 104 may have been earlier: the take-profit at 99.75 waits."""
    bars = [FLAT, (103.0, 104.0, 94.0, 96.0), (97.0, 100.0, 96.0, 98.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.0, take_profit_pct=5.0)})
    assert played.fills == [(1, 1.0, 95.0), (2, -1.0, pytest.approx(99.75))]


def test_a_position_opened_inside_a_bar_can_be_stopped_in_it(play: Play) -> None:
    """Limit entry at 95 on the way down to 90: the stop at 90.25 lies on that way."""
    bars = [FLAT, (103.0, 104.0, 90.0, 96.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 1.0, limit=95.0, stop_loss_pct=5.0)})
    assert played.fills == [(1, 1.0, 95.0), (1, -1.0, pytest.approx(90.25))]


def test_a_stop_pays_taker_fee_and_slippage_a_take_profit_neither(play: Play, assume: Assume) -> None:
    """Stop: 95 less 10 bps is 94.905, fee 5 bps of it. Take-profit: 105 with 2 bps."""
    terms = assume(taker_fee_bps=5.0, maker_fee_bps=2.0, slippage_bps=10.0)
    stopped = play([FLAT, FLAT, (99.0, 99.0, 90.0, 95.0)], buy(stop_loss_pct=5.0), terms)
    level = 100.1 * 0.95
    assert stopped.fills[-1][2] == pytest.approx(level * 0.999)
    assert stopped.log(EventKind.FILL)[-1]["fee"] == pytest.approx(level * 0.999 * 5e-4)
    taken = play([FLAT, FLAT, (100.0, 110.0, 99.0, 108.0)], buy(take_profit_pct=5.0), terms)
    assert taken.fills[-1][2] == pytest.approx(100.1 * 1.05)
    assert taken.log(EventKind.FILL)[-1]["fee"] == pytest.approx(100.1 * 1.05 * 2e-4)


def test_adding_to_a_position_moves_its_exits_to_the_average_price(play: Play) -> None:
    """1 at 100 and 1 at 110 average 105; the stop of 10 % moves from 90 to 94.5."""
    high = (110.0, 111.0, 109.0, 110.0)
    bars = [FLAT, FLAT, high, (110.0, 110.0, 94.0, 95.0)]
    order = {"stop_loss_pct": 10.0}
    steps = {0: lambda b: b.order("BTC", 1.0, **order), 1: lambda b: b.order("BTC", 1.0, **order)}
    assert play(bars, steps).fills[-1] == (3, -2.0, pytest.approx(94.5))


def test_a_trailing_stop_follows_the_best_price(play: Play) -> None:
    """10 % below the high of 120 in bar 2 is 108; bar 3 falls through it."""
    bars = [FLAT, FLAT, (101.0, 120.0, 101.0, 119.0), (118.0, 118.0, 105.0, 106.0)]
    played = play(bars, buy(trailing_stop_pct=10.0))
    assert played.fills[-1] == (3, -1.0, pytest.approx(108.0))
    assert played.reasons[-1] == "trailing_stop"


def test_a_trailing_stop_is_not_raised_before_the_bar_is_over(play: Play) -> None:
    """High 120, low 95, close 115: whether 108 was hit after the high is unknown."""
    bars = [FLAT, FLAT, (101.0, 120.0, 95.0, 115.0), (115.0, 116.0, 114.0, 115.0)]
    played = play(bars, buy(trailing_stop_pct=10.0))
    assert played.fills == [(1, 1.0, 100.0)]


def test_a_close_beyond_the_raised_trailing_stop_proves_that_it_was_hit(play: Play) -> None:
    """High 120 raises the stop to 108; the close of 104 came after the high, so 108 was passed on the way."""
    bars = [FLAT, FLAT, (101.0, 120.0, 95.0, 104.0)]
    assert play(bars, buy(trailing_stop_pct=10.0)).fills[-1] == (2, -1.0, pytest.approx(108.0))


def test_a_short_trailing_stop_follows_downwards(play: Play) -> None:
    """10 % above the low of 80 is 88."""
    bars = [FLAT, FLAT, (99.0, 99.0, 80.0, 82.0), (83.0, 90.0, 82.0, 89.0)]
    assert play(bars, sell(trailing_stop_pct=10.0)).fills[-1] == (3, 1.0, pytest.approx(88.0))


def test_a_stop_sells_what_the_volume_allows_and_the_rest_at_the_next_open(play: Play, assume: Assume) -> None:
    """A tenth of bar 2's volume of 4 is 0.4 at the stop of 95, the remaining 0.6 goes at the open of 93."""
    bars = [FLAT, FLAT, (100.0, 100.0, 94.0, 94.0, 4.0), (93.0, 94.0, 92.0, 93.0)]
    played = play(bars, buy(stop_loss_pct=5.0), assume(max_volume_share=0.1))
    assert played.fills[1:] == [(2, pytest.approx(-0.4), pytest.approx(95.0)), (3, pytest.approx(-0.6), 93.0)]


def test_a_standing_signal_does_not_re_enter_after_a_stop(play: Play, assume: Assume) -> None:
    """The target stays long through bars 2 and 3, then turns flat and long again: only that re-enters."""
    bars = [FLAT, FLAT, (100.0, 100.0, 94.0, 96.0), FLAT, FLAT, FLAT, FLAT]
    steps = {bar: lambda b: b.target("BTC", 0.5) for bar in (0, 1, 2, 3, 5)}
    steps[4] = lambda b: b.target("BTC", 0.0)
    played = play(bars, steps, assume(stop_loss_pct=5.0))
    assert [(bar, reason) for (bar, _, _), reason in zip(played.fills, played.reasons, strict=True)] == [
        (1, "signal"),
        (2, "stop_loss"),
        (6, "signal"),
    ]


def test_a_reversed_signal_enters_after_a_stop(play: Play, assume: Assume) -> None:
    """Stopped out long, the short target of the same close is taken."""
    bars = [FLAT, FLAT, (100.0, 100.0, 94.0, 95.0), (95.0, 96.0, 94.0, 95.0)]
    steps = {0: lambda b: b.target("BTC", 0.5), 2: lambda b: b.target("BTC", -0.5)}
    played = play(bars, steps, assume(stop_loss_pct=5.0))
    assert [quantity > 0 for _, quantity, _ in played.fills] == [True, False, False]


def test_an_exit_cancels_what_the_signal_had_ordered(play: Play, assume: Assume) -> None:
    """The add decided at the close of bar 1 meets a gap through the stop and is cancelled."""
    bars = [FLAT, FLAT, (90.0, 91.0, 89.0, 90.0), FLAT]
    steps = {0: lambda b: b.target("BTC", 0.2), 1: lambda b: b.target("BTC", 0.4)}
    played = play(bars, steps, assume(stop_loss_pct=5.0))
    assert played.fills == [(1, 2.0, 100.0), (2, -2.0, 90.0)]
    assert played.cancelled == ["position_closed"]


def test_an_order_to_close_goes_before_a_stop_at_the_same_open(play: Play) -> None:
    """Closed by the strategy at the open of bar 2, which is also beyond the stop: one fill, not two."""
    bars = [FLAT, FLAT, (90.0, 91.0, 89.0, 90.0)]
    steps = {**buy(stop_loss_pct=5.0), 1: lambda b: b.order("BTC", -1.0)}
    played = play(bars, steps)
    assert played.reasons == ["strategy", "strategy"]
    assert played.position() == 0.0


def test_a_margin_call_closes_at_the_price_where_margin_is_used_up(play: Play, assume: Assume) -> None:
    """3000 long on 1000: cash -2000; at p with 1 % margin 30p - 2000 = 0.3p, so p = 2000 / 29.7 = 67.34.

    The fee is 50 bps of 30 x 67.34.
    """
    terms = assume(max_leverage=3.0, max_position=3.0, maintenance_margin_pct=1.0, liquidation_fee_bps=50.0)
    bars = [FLAT, FLAT, (100.0, 100.0, 60.0, 80.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 30.0)}, terms)
    price = 2000 / 29.7
    assert played.fills == [(1, 30.0, 100.0), (2, -30.0, pytest.approx(price))]
    assert played.reasons[-1] == "liquidation"
    assert played.cash == pytest.approx(-2000 + 30 * price * (1 - 0.005))
    assert [row["price"] for row in played.log(EventKind.MARGIN_CALL)] == pytest.approx([price])


def test_a_gap_through_the_margin_call_fills_at_the_open_and_can_cost_more_than_everything(
    play: Play, assume: Assume
) -> None:
    """3000 long on 1000 and an open at 60: 1800 - 2000 = -200, and nothing trades any more."""
    terms = assume(max_leverage=3.0, max_position=3.0, maintenance_margin_pct=1.0)
    bars = [FLAT, FLAT, (60.0, 61.0, 59.0, 60.0), (60.0, 61.0, 59.0, 60.0)]
    steps = {0: lambda b: b.order("BTC", 30.0), 2: lambda b: b.order("BTC", 1.0)}
    played = play(bars, steps, terms)
    assert played.cash == pytest.approx(-200.0)
    assert played.rejected == ["halted"]


def test_a_short_is_called_when_the_price_rises(play: Play, assume: Assume) -> None:
    """Short 10 from 100 on 1000: cash 2000; 2000 - 10p = 0.1p at p = 2000 / 10.1."""
    terms = assume(maintenance_margin_pct=1.0)
    bars = [FLAT, FLAT, (150.0, 250.0, 149.0, 240.0)]
    played = play(bars, {0: lambda b: b.order("BTC", -10.0)}, terms)
    assert played.fills[-1] == (2, 10.0, pytest.approx(2000 / 10.1))


def test_a_stop_before_the_margin_call_saves_the_rest(play: Play, assume: Assume) -> None:
    """Long 30 from 100 with a stop at 95: the call at 67.3 is never reached."""
    terms = assume(max_leverage=3.0, max_position=3.0, maintenance_margin_pct=1.0)
    bars = [FLAT, FLAT, (100.0, 100.0, 60.0, 80.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 30.0, stop_loss_pct=5.0)}, terms)
    assert played.fills[-1] == (2, -30.0, pytest.approx(95.0))


def test_a_margin_call_before_the_stop_comes_first(play: Play, assume: Assume) -> None:
    """Long 30 from 100 with a stop at 60: margin is used up at 67.3 on the way there."""
    terms = assume(max_leverage=3.0, max_position=3.0, maintenance_margin_pct=1.0)
    bars = [FLAT, FLAT, (100.0, 100.0, 50.0, 80.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 30.0, stop_loss_pct=40.0)}, terms)
    assert played.reasons[-1] == "liquidation"
    assert played.fills[-1][2] == pytest.approx(2000 / 29.7)


def test_a_margin_call_closes_all_positions_at_one_moment(play: Play, assume: Assume) -> None:
    """Long 15 BTC and 150 ETH at 100 and 10 on 1000: worth 3000 with cash of -2000.

    Margin lasts until the value is 2000 / 0.99 = 2020.2, that is 67.34 % of 3000. Both lows are 40 % down, so
    both prices are at 67.34 % of their opens at that moment.
    """
    terms = assume(max_leverage=3.0, max_position=3.0, maintenance_margin_pct=1.0)
    bars = {
        "BTC": [FLAT, FLAT, (100.0, 100.0, 60.0, 70.0)],
        "ETH": [(10.0, 10.1, 9.9, 10.0), (10.0, 10.1, 9.9, 10.0), (10.0, 10.0, 6.0, 7.0)],
    }
    played = play(bars, {0: lambda b: (b.order("BTC", 15.0), b.order("ETH", 150.0))}, terms)
    left = 2000 / 0.99 / 3000
    assert [price for bar, _, price in played.fills if bar == 2] == pytest.approx([100 * left, 10 * left])


def test_a_paid_position_is_never_called(play: Play, assume: Assume) -> None:
    """All cash in one asset that loses 99 %: equity 10, and still held."""
    bars = [FLAT, FLAT, (100.0, 100.0, 1.0, 1.0)]
    played = play(bars, {0: lambda b: b.order("BTC", 10.0)}, assume(maintenance_margin_pct=50.0))
    assert played.position() == 10.0
    assert played.equity[-1] == 10.0


def test_a_reversal_does_not_sell_again_what_a_stop_has_still_to_sell(play: Play, assume: Assume) -> None:
    """Stopped at 95 with 2 of 5 sold, 3 still to go; short 50 % of 990 at 95 is 5.21 on top of those 3, not of 5."""
    bars = [FLAT, FLAT, (100.0, 100.0, 95.0, 95.0, 20.0), (95.0, 96.0, 94.0, 95.0), FLAT]
    steps = {0: lambda b: b.target("BTC", 0.5), 2: lambda b: b.target("BTC", -0.5)}
    played = play(bars, steps, assume(stop_loss_pct=5.0, max_volume_share=0.1, max_leverage=2.0))
    short = 0.5 * (1000 - 5 * 5) / 95
    assert [q for _, q, _ in played.fills[:4]] == pytest.approx([5.0, -2.0, -3.0, -short])


def test_a_take_profit_that_comes_with_an_open_beyond_it_fills_at_that_open(play: Play) -> None:
    """Short 1 from 120; adding 1 at 90 with 10 % below the average of 105 asks for 94.5, and 90 is better."""
    low = (90.0, 91.0, 89.0, 90.0)
    bars = [(120.0, 121.0, 119.0, 120.0), (120.0, 121.0, 119.0, 120.0), low, low]
    steps = {0: lambda b: b.order("BTC", -1.0), 1: lambda b: b.order("BTC", -1.0, take_profit_pct=10.0)}
    assert play(bars, steps).fills == [(1, -1.0, 120.0), (2, -1.0, 90.0), (2, 2.0, 90.0)]


def test_a_reduce_only_limit_beyond_the_open_of_its_entry_fills_at_that_open(play: Play) -> None:
    """Bought at the open of 100 with a reduce-only sale at 95 or better: 100 is better."""
    steps = {0: lambda b: (b.order("BTC", 1.0), b.order("BTC", -1.0, limit=95.0, reduce_only=True))}
    assert play([FLAT, FLAT], steps).fills == [(1, 1.0, 100.0), (1, -1.0, 100.0)]
