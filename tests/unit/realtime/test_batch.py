"""The analytics over samples: vectorised forms equal the single ones, and find what a plain walk finds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_realtime.analytics.anomalies import RollingScore, flow_score, rolling_trend, trend_per_minute
from mts_realtime.analytics.arbitrage import Limits, paying_ratio, walk
from mts_realtime.analytics.batch import Books, Span, pad_levels, spread_opportunities, structure_of

S = 1_000_000_000
FEES = {"binance": 5.0, "bybit": 5.5}
LIMITS = Limits(min_net_bps=0.0, max_notional_usd=10_000.0, max_age_ms=1500.0, max_skew_ms=1000.0)
END = Span(3600 * S, 3600 * S)

prices = st.integers(990, 1010).map(lambda cents: cents / 10)
tops = st.one_of(st.none(), st.tuples(prices, st.integers(1, 9)))
Side = list[tuple[float, float]]


def books(exchange: str, samples: dict[int, tuple[Side, Side]], age_ms: float = 100.0) -> Books:
    """Books of one level or more a side, by second."""
    seconds = np.array(sorted(samples), dtype=np.int64)

    def levels(side: int, part: int) -> np.ndarray:
        rows = [[level[part] for level in samples[second][side]] for second in sorted(samples)]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
        return pad_levels(offsets, np.array([value for row in rows for value in row], dtype=np.float64))

    return Books(
        exchange=exchange,
        timestamp_ns=seconds * S,
        received_ns=seconds * S - round(age_ms * 1e6),
        exchange_time_ms=np.asarray(seconds * 1000.0 - age_ms, dtype=np.float64),
        bid_prices=levels(0, 0),
        bid_sizes=levels(0, 1),
        ask_prices=levels(1, 0),
        ask_sizes=levels(1, 1),
    )


def test_ladders_are_padded() -> None:
    """Three of unequal length, the first values of the column being another slice's."""
    padded = pad_levels(np.array([1, 3, 3, 4]), np.array([9.0, 1.0, 2.0, 3.0]))
    assert np.array_equal(padded, [[1.0, 2.0], [math.nan] * 2, [3.0, math.nan]], equal_nan=True)


def test_no_ladders_are_no_rows() -> None:
    """An hour without books."""
    assert pad_levels(np.array([0]), np.array([])).shape == (0, 1)


@given(values=st.lists(st.floats(-100, 100), max_size=30), window=st.integers(2, 8))
def test_rolling_trend_is_the_trend_of_each_past(values: list[float], window: int) -> None:
    """The same slope as of the values alone, for each position."""
    trends = rolling_trend(values, window, 2.0)
    for last in range(len(values)):
        past = values[max(0, last + 1 - window) : last + 1]
        expected = trend_per_minute(np.arange(len(past)) * 2.0, past)
        assert trends[last] == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(turnovers=st.lists(st.floats(0, 1e9), max_size=30))
def test_flow_scores_are_those_of_the_live_side(turnovers: list[float]) -> None:
    """The detector scores each increase against the ones before it; the first sample has none."""
    live = RollingScore(8)
    expected = [math.nan] * min(1, len(turnovers))
    for before, now in pairwise(turnovers):
        expected.append(live.push(max(now - before, 0.0)))
    assert flow_score(turnovers, 8) == pytest.approx(np.array(expected), nan_ok=True)


@given(spreads=st.lists(st.floats(0.1, 50), min_size=1, max_size=40))
def test_spread_scores_are_those_of_the_live_side(spreads: list[float]) -> None:
    """One value after the other through the live score gives the batch's column."""
    samples = {
        second: ([(100 - spread / 200, 1.0)], [(100 + spread / 200, 1.0)]) for second, spread in enumerate(spreads)
    }
    found = structure_of(books("bybit", samples), 8, 1.0)["spread_zscore"]
    live = RollingScore(8)
    expected = [
        live.push((ask[0][0] - bid[0][0]) / ((ask[0][0] + bid[0][0]) / 2) * 1e4) for bid, ask in samples.values()
    ]
    assert found == pytest.approx(np.array(expected), nan_ok=True)


@given(buy=st.lists(tops, max_size=12), sell=st.lists(tops, max_size=12))
def test_opportunities_are_the_stretches_in_which_a_walk_pays(
    buy: list[tuple[float, int] | None], sell: list[tuple[float, int] | None]
) -> None:
    """Seconds with an edge by ``walk`` alone, no pre-filter: the lives cover exactly those, without a break inside."""
    asks = {second: ([(1.0, 1.0)], [top]) for second, top in enumerate(buy) if top}
    bids = {second: ([top], [(1000.0, 1.0)]) for second, top in enumerate(sell) if top}
    paying = {
        second
        for second in asks.keys() & bids.keys()
        if walk(
            [asks[second][1][0][0]],
            [asks[second][1][0][1]],
            [bids[second][0][0][0]],
            [bids[second][0][0][1]],
            buy_fee_bps=5.0,
            sell_fee_bps=5.5,
        )
    }
    markets = [books("binance", asks), books("bybit", bids)]  # type: ignore[arg-type]
    lives = spread_opportunities("BTCUSDT", markets, FEES, LIMITS, END, S)
    covered: list[int] = []
    for life in lives:
        seconds = list(range(life.opened_ns // S, (life.expired_ns or 0) // S))
        assert len(seconds) == life.updates
        assert life.opened_ns // S - 1 not in covered
        covered += seconds
    assert sorted(covered) == sorted(paying)


@given(
    bid=st.floats(99, 101),
    ask=st.floats(99, 101),
    fees=st.tuples(st.floats(0, 10), st.floats(0, 10)),
    least=st.floats(0, 5),
)
def test_the_pre_filter_never_hides_an_edge(bid: float, ask: float, fees: tuple[float, float], least: float) -> None:
    """Whatever a walk takes is above the ratio, but for the last digit."""
    edge = walk([ask], [1.0], [bid], [1.0], buy_fee_bps=fees[0], sell_fee_bps=fees[1], min_net_bps=least)
    if edge is not None:
        assert bid > ask * paying_ratio(*fees, least) * (1 - 1e-12)


def test_three_exchanges_are_six_directions() -> None:
    """The cheapest is bought and each dearer one sold into."""
    sides = {"binance": (98.0, 99.0), "bybit": (100.0, 101.0), "third": (103.0, 104.0)}
    markets = [books(name, {1: ([(bid, 1.0)], [(ask, 1.0)])}) for name, (bid, ask) in sides.items()]
    lives = spread_opportunities("BTCUSDT", markets, {**FEES, "third": 1.0}, LIMITS, END, S)
    assert [(life.buy_exchange, life.sell_exchange) for life in lives] == [
        ("binance", "bybit"),
        ("binance", "third"),
        ("bybit", "third"),
    ]


def test_clocks_too_far_apart_are_not_compared() -> None:
    """The exchange times differ by 1.2 s, more than the limit: the live side would not act on it either."""
    cheap = books("binance", {1: ([(98.0, 1.0)], [(99.0, 1.0)])}, age_ms=0.0)
    dear = books("bybit", {1: ([(101.0, 1.0)], [(102.0, 1.0)])}, age_ms=1200.0)
    assert spread_opportunities("BTCUSDT", [cheap, dear], FEES, LIMITS, END, S) == []
