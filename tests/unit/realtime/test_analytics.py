"""The analytics functions on numbers computed by hand, on one book and on many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_realtime.analytics.anomalies import RollingScore, rolling_score, trend_per_minute, volume_flow
from mts_realtime.analytics.arbitrage import Edge, Limits, assess, walk
from mts_realtime.analytics.funding import (
    FundingQuote,
    annualised_pct,
    compare,
    interval_hours,
    settlement_minute_ms,
    settlements_within,
)
from mts_realtime.analytics.microstructure import (
    depth_within_bps_usd,
    imbalance,
    imbalance_of_totals,
    liquidity_score,
    micro_price,
    mid,
    price_impact_bps,
    spread_bps,
    spread_usd,
    stack_levels,
)

BIDS = ([100.0, 99.0, 98.0], [1.0, 2.0, 3.0])
ASKS = ([102.0, 103.0, 104.0], [3.0, 2.0, 1.0])


def test_top_of_book_measures() -> None:
    """Bid 100 x 1, ask 102 x 3: mid 101, spread 2 = 198.02 bps, micro price (100*3 + 102*1) / 4 = 100.5."""
    assert mid(100.0, 102.0) == 101.0
    assert spread_usd(100.0, 102.0) == 2.0
    assert spread_bps(100.0, 102.0) == pytest.approx(198.0198)
    assert micro_price(100.0, 1.0, 102.0, 3.0) == 100.5


def test_top_of_book_measures_take_arrays() -> None:
    """The same functions over many books."""
    bid, ask = np.array([100.0, 99.0]), np.array([102.0, 101.0])
    assert mid(bid, ask).tolist() == [101.0, 100.0]
    assert spread_bps(bid, ask) == pytest.approx([198.0198, 200.0])


def test_imbalance() -> None:
    """Bids 6, asks 6: 0. Bids 6, asks 2: (6 - 2) / 8 = 0.5. Nothing: NaN."""
    assert float(imbalance(BIDS[1], ASKS[1])) == 0.0
    assert float(imbalance(BIDS[1], [2.0])) == 0.5
    assert math.isnan(float(imbalance([], [])))
    assert imbalance_of_totals(6.0, 2.0) == 0.5


def test_depth_within() -> None:
    """Mid 101: bid 100 is 99.01 bps away, 99 is 198.02; within 150 bps only 100 x 1 counts."""
    assert float(depth_within_bps_usd(*BIDS, 101.0, 150.0)) == 100.0
    assert float(depth_within_bps_usd(*BIDS, 101.0, 200.0)) == 100.0 + 198.0
    assert float(depth_within_bps_usd(*BIDS, 101.0, 1.0)) == 0.0


def test_price_impact() -> None:
    """Buying 409 USD: 3 at 102 (306) and 1 at 103 (103): average 102.25 against mid 101 = 123.76 bps."""
    assert float(price_impact_bps(*ASKS, 101.0, 409.0)) == pytest.approx((102.25 / 101.0 - 1.0) * 10_000)
    assert float(price_impact_bps(*ASKS, 101.0, 306.0)) == pytest.approx((102.0 / 101.0 - 1.0) * 10_000)


def test_price_impact_beyond_the_book_is_unknown() -> None:
    """The asks hold 306 + 206 + 104 = 616 USD."""
    assert not math.isnan(float(price_impact_bps(*ASKS, 101.0, 616.0)))
    assert math.isnan(float(price_impact_bps(*ASKS, 101.0, 617.0)))


def test_ladders_of_many_books() -> None:
    """Rows of unequal length are padded with NaN and give what each book gives alone."""
    prices = stack_levels([BIDS[0], [50.0]], 3)
    sizes = stack_levels([BIDS[1], [4.0]], 3)
    mids = np.array([101.0, 50.1])
    assert depth_within_bps_usd(prices, sizes, mids, 200.0).tolist() == [298.0, 200.0]
    together = price_impact_bps(prices, sizes, mids, 150.0)
    assert together[0] == pytest.approx(float(price_impact_bps(*BIDS, 101.0, 150.0)))
    assert together[1] == pytest.approx((1.0 - 50.0 / 50.1) * 10_000)
    assert imbalance(sizes, sizes).tolist() == [0.0, 0.0]


def test_liquidity_score() -> None:
    """100,000 USD on the thinner side and 1 bps spread: 100 * 0.5 * 0.5 = 25; nothing there: 0."""
    assert float(liquidity_score(1.0, 100_000.0, 900_000.0)) == 25.0
    assert float(liquidity_score(0.0, 0.0, 900_000.0)) == 0.0


def test_score_compares_with_the_past_only() -> None:
    """Past 1, 2, 3: mean 2, deviation 1. The value 5 scores 3; then it belongs to the past."""
    score = RollingScore(window=3, min_samples=3)
    assert [math.isnan(score.push(value)) for value in (1.0, 2.0, 3.0)] == [True, True, True]
    assert score.push(5.0) == pytest.approx(3.0)
    assert score.values == (2.0, 3.0, 5.0)


def test_constant_series_has_no_score() -> None:
    """Without deviation nothing is unusual by any number."""
    scores = rolling_score([7.0] * 20, window=5)
    assert np.isnan(scores).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=60), st.integers(3, 10))
def test_streaming_and_batch_scores_agree_with_numpy(values: list[float], window: int) -> None:
    """Each score equals the textbook formula over the values before it."""
    scores = rolling_score(values, window, min_samples=3)
    for number, value in enumerate(values):
        past = np.array(values[max(0, number - window) : number])
        if len(past) >= 3 and past.std(ddof=1) > 1e-3 * max(1.0, abs(past.mean())):
            assert scores[number] == pytest.approx((value - past.mean()) / past.std(ddof=1), rel=1e-4, abs=1e-4)


def test_volume_flow_is_the_increase_of_the_trailing_total() -> None:
    """100, 130, 120, 125: +30, nothing (more left than came), +5."""
    flow = volume_flow([100.0, 130.0, 120.0, 125.0])
    assert math.isnan(flow[0])
    assert flow[1:].tolist() == [30.0, 0.0, 5.0]


def test_trend() -> None:
    """A spread growing by 0.5 every second grows by 30 a minute."""
    assert trend_per_minute([0.0, 1.0, 2.0, 3.0], [1.0, 1.5, 2.0, 2.5]) == pytest.approx(30.0)
    assert math.isnan(trend_per_minute([1.0, 1.0], [1.0, 2.0]))
    assert math.isnan(trend_per_minute([], []))


def test_walk_takes_both_books_for_one_size() -> None:
    """No fees: buy 1 at 100 and 1 at 101, sell 2 at 102; the next unit would pay nothing at 102.

    Paid 201, received 204: gross 3 / 201 = 149.25 bps.
    """
    edge = walk([100.0, 101.0, 102.0], [1.0, 1.0, 9.0], [102.0, 90.0], [5.0, 9.0], buy_fee_bps=0.0, sell_fee_bps=0.0)
    assert edge is not None
    assert (edge.size_base, edge.notional_usd, edge.net_usd) == (2.0, 201.0, 3.0)
    assert (edge.buy_price, edge.sell_price) == (100.5, 102.0)
    assert edge.gross_bps == edge.net_bps == pytest.approx(149.2537)


def test_walk_pays_both_fees() -> None:
    """Buy 1 at 100 (fee 10 bps = 0.1), sell at 101 (fee 20 bps = 0.202): 1 - 0.302 = 0.698 USD, 69.8 bps."""
    edge = walk([100.0], [1.0], [101.0], [1.0], buy_fee_bps=10.0, sell_fee_bps=20.0)
    assert edge is not None
    assert edge.net_usd == pytest.approx(0.698)
    assert edge.net_bps == pytest.approx(69.8)
    assert edge.gross_bps == pytest.approx(100.0)


def test_walk_refuses_what_fees_eat() -> None:
    """10 bps of difference do not pay two fees of 5.5 bps."""
    assert walk([100.0], [1.0], [100.1], [1.0], buy_fee_bps=5.5, sell_fee_bps=5.5) is None


def test_walk_stops_where_a_unit_no_longer_pays_enough() -> None:
    """At least 50 bps a unit: the second ask, 30 bps below the bid, is left alone."""
    edge = walk([100.0, 100.7], [1.0, 1.0], [101.0], [2.0], buy_fee_bps=0.0, sell_fee_bps=0.0, min_net_bps=50.0)
    assert edge is not None
    assert edge.size_base == 1.0


def test_walk_is_bounded_by_notional() -> None:
    """150 USD buy 1 at 100 and 50/101 at 101."""
    edge = walk([100.0, 101.0], [1.0, 5.0], [103.0], [9.0], buy_fee_bps=0.0, sell_fee_bps=0.0, max_notional_usd=150.0)
    assert edge is not None
    assert edge.notional_usd == pytest.approx(150.0)
    assert edge.size_base == pytest.approx(1.0 + 50.0 / 101.0)


@pytest.mark.parametrize(("asks", "bids"), [(([], []), ([1.0], [1.0])), (([1.0], [1.0]), ([], []))])
def test_walk_of_an_empty_side(asks: tuple[list[float], list[float]], bids: tuple[list[float], list[float]]) -> None:
    """Nothing to trade with is no opportunity."""
    assert walk(*asks, *bids, buy_fee_bps=0.0, sell_fee_bps=0.0) is None


@given(
    st.lists(st.tuples(st.floats(90, 110), st.floats(0.01, 10)), min_size=1, max_size=6),
    st.lists(st.tuples(st.floats(90, 110), st.floats(0.01, 10)), min_size=1, max_size=6),
    st.floats(0, 20),
)
def test_walk_never_loses(asks: list[tuple[float, float]], bids: list[tuple[float, float]], fee_bps: float) -> None:
    """Whatever the books, a result is a profit, and no more than either side holds."""
    asks, bids = sorted(asks), sorted(bids, reverse=True)
    edge = walk(
        [price for price, _ in asks],
        [size for _, size in asks],
        [price for price, _ in bids],
        [size for _, size in bids],
        buy_fee_bps=fee_bps,
        sell_fee_bps=fee_bps,
    )
    if edge is not None:
        assert edge.net_usd > 0.0
        limit = min(sum(size for _, size in asks), sum(size for _, size in bids))
        assert edge.size_base <= limit * (1 + 1e-9)


EDGE = Edge(
    size_base=1.0, notional_usd=100.0, buy_price=100.0, sell_price=100.2, gross_bps=20.0, net_bps=2.0, net_usd=0.02
)
LIMITS = Limits(min_net_bps=1.0, max_notional_usd=1e6, max_age_ms=1000.0, max_skew_ms=500.0)


def test_confidence_is_fresh_aligned_and_wide() -> None:
    """Age 500 of 1000 (0.5), skew 100 of 500 (0.8), 2 bps against 2 (0.5): 0.2."""
    judged = assess(
        EDGE, LIMITS, buy_age_ms=500.0, sell_age_ms=3.0, skew_ms=-100.0, min_size_base=0.1, min_notional_usd=5.0
    )
    assert judged.feasible
    assert judged.confidence == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"buy_age_ms": 1001.0}, "book_too_old"),
        ({"sell_age_ms": 1001.0}, "book_too_old"),
        ({"skew_ms": 501.0}, "clock_skew"),
        ({"min_size_base": 1.5}, "below_smallest_order"),
        ({"min_notional_usd": 101.0}, "below_smallest_order"),
    ],
)
def test_what_makes_an_edge_infeasible(changed: dict[str, float], reason: str) -> None:
    """Each limit alone is enough, and is named."""
    facts = {"buy_age_ms": 0.0, "sell_age_ms": 0.0, "skew_ms": 0.0, "min_size_base": 0.1, "min_notional_usd": 5.0}
    judged = assess(EDGE, LIMITS, **{**facts, **changed})
    assert not judged.feasible
    assert judged.reasons == (reason,)


def test_interval_comes_from_settlements() -> None:
    """8 h, 8 h, then the symbol switches to 1 h; stamps a few ms late do not matter."""
    hour = 3_600_000
    times = [0, 8 * hour + 7, 16 * hour + 14, 17 * hour + 2]
    assert interval_hours(times).tolist() == [8.0, 8.0, 8.0, 1.0]
    assert np.isnan(interval_hours([5])).all()
    assert settlement_minute_ms(1768262400007) == 1768262400000


def test_annual_rates() -> None:
    """0.01 % every 8 h is 10.95 % a year, every hour 87.6 %."""
    assert annualised_pct(0.0001, 8.0) == pytest.approx(10.95)
    assert annualised_pct(np.array([0.0001]), np.array([1.0])) == pytest.approx([87.6])


def quote(exchange: str, rate: float, hours: float, wait: float, fee: float) -> FundingQuote:
    return FundingQuote(exchange=exchange, rate=rate, interval_hours=hours, hours_to_settlement=wait, taker_fee_bps=fee)


@pytest.mark.parametrize(("holding", "count"), [(1.9, 0), (2.0, 1), (9.9, 1), (10.0, 2), (26.0, 4)])
def test_settlements_lived_through(holding: float, count: int) -> None:
    """Settlement in 2 h, then every 8 h."""
    assert settlements_within(quote("a", 0.0, 8.0, 2.0, 0.0), holding) == count


def test_funding_pair() -> None:
    """Short at 0.02 % every 4 h, long at 0.01 % every 8 h, 24 h, fees 5 and 5.5 bps.

    Annual: 43.8 % and 10.95 %, differential 32.85 %. Six settlements against three: 12 - 3 = 9 bps gross. Fees of
    opening and closing both legs: 21 bps. 32.85 % a year is 0.375 bps an hour: 56 h to break even.
    """
    spread = compare(quote("binance", 0.0001, 8.0, 8.0, 5.0), quote("bybit", 0.0002, 4.0, 4.0, 5.5), 24.0)
    assert (spread.long_exchange, spread.short_exchange) == ("binance", "bybit")
    assert spread.differential_pct == pytest.approx(32.85)
    assert (spread.settlements_long, spread.settlements_short) == (3, 6)
    assert spread.gross_bps == pytest.approx(9.0)
    assert spread.fees_bps == 21.0
    assert spread.net_bps == pytest.approx(-12.0)
    assert spread.break_even_hours == pytest.approx(56.0)


def test_equal_rates_never_break_even() -> None:
    """Without a differential fees are never earned."""
    spread = compare(quote("a", 0.0001, 8.0, 1.0, 5.0), quote("b", 0.0001, 8.0, 1.0, 5.0), 24.0)
    assert spread.break_even_hours == math.inf
