"""The seeded market: the same bar whatever is asked, candles that fit, prices that belong together."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS
from mts_simulator.coins import COINS_BY_ID
from mts_simulator.intervals import INTERVALS
from mts_simulator.market import FIRST_MS, Market
from mts_simulator.perpetuals import Candle, Window
from mts_simulator.seeded import SeededPerpetuals

if TYPE_CHECKING:
    from mts_simulator.coins import Coin

from .conftest import NOW_MS, SEED

BITCOIN = COINS_BY_ID["bitcoin"]
YEARS_MS = 9 * 365 * DAY_MS


def candles(
    data: SeededPerpetuals,
    interval: str,
    start: int,
    end: int,
    *,
    now_ms: int = NOW_MS,
    symbol: str = "BTCUSDT",
) -> list[Candle]:
    return data.candles(symbol, INTERVALS[interval], Window(start, end, 10_000, newest=False), now_ms)


@pytest.fixture(scope="module")
def binance(market: Market) -> SeededPerpetuals:
    return SeededPerpetuals(market, "binance", SEED)


@settings(max_examples=40, deadline=None)
@given(
    interval=st.sampled_from(["1m", "15m", "1h", "4h", "1d", "1w", "1M"]),
    start=st.integers(FIRST_MS, FIRST_MS + YEARS_MS),
    before=st.integers(0, 40),
    after=st.integers(0, 40),
)
def test_a_candle_does_not_depend_on_the_window(
    binance: SeededPerpetuals, interval: str, start: int, before: int, after: int
) -> None:
    """A candle asked for alone equals the same candle in the middle of a wider window."""
    kind = INTERVALS[interval]
    opened = min(kind.ceil(start), kind.floor(NOW_MS))
    alone = candles(binance, interval, opened, opened)
    wide = candles(binance, interval, kind.shift(opened, -before), kind.shift(opened, after))
    assert alone == [row for row in wide if row.open_ms == opened]


def test_two_markets_of_one_seed_are_equal(binance: SeededPerpetuals) -> None:
    """The seed alone decides, not the process or the order of requests."""
    again = SeededPerpetuals(Market(SEED), "binance", SEED)
    window = NOW_MS - 40 * DAY_MS, NOW_MS
    assert candles(again, "1h", *window) == candles(binance, "1h", *window)


def test_another_seed_is_another_market(binance: SeededPerpetuals) -> None:
    """Different seeds show different prices."""
    other = SeededPerpetuals(Market(SEED + 1), "binance", SEED + 1)
    day = NOW_MS - 3 * DAY_MS, NOW_MS - 2 * DAY_MS
    assert {row.close for row in candles(other, "1h", *day)}.isdisjoint(
        row.close for row in candles(binance, "1h", *day)
    )


@pytest.mark.parametrize(("fine", "coarse"), [("1m", "1h"), ("5m", "15m"), ("1h", "1d"), ("1d", "1M")])
def test_longer_candles_are_made_of_shorter_ones(binance: SeededPerpetuals, fine: str, coarse: str) -> None:
    """Open, extremes and close of a candle are those of the shorter candles inside it."""
    kind = INTERVALS[coarse]
    opened = kind.shift(kind.floor(NOW_MS), -1)
    (whole,) = candles(binance, coarse, opened, opened)
    parts = candles(binance, fine, opened, whole.close_ms)
    assert whole.open == parts[0].open
    assert whole.close == parts[-1].close
    assert float(whole.high) == max(float(part.high) for part in parts)
    assert float(whole.low) == min(float(part.low) for part in parts)
    assert float(whole.quote_volume) == pytest.approx(sum(float(part.quote_volume) for part in parts), rel=1e-9)


def test_candles_are_contiguous_and_well_formed(binance: SeededPerpetuals) -> None:
    """Each candle opens at the last close; no body leaves its wick; all prices are positive."""
    rows = candles(binance, "1h", NOW_MS - 300 * DAY_MS, NOW_MS)
    assert all(later.open_ms - row.open_ms == HOUR_MS for row, later in pairwise(rows))
    assert all(later.open == row.close for row, later in pairwise(rows))
    for row in rows:
        low, body, high = float(row.low), (float(row.open), float(row.close)), float(row.high)
        assert 0 < low <= min(body) <= max(body) <= high


def test_the_newest_candle_is_open_and_only_grows(binance: SeededPerpetuals) -> None:
    """While a candle is open its range and volume grow, and in the end it is the closed candle."""
    opened = INTERVALS["1h"].floor(NOW_MS)
    moments = [opened, opened + 1, opened + 90_500, opened + 17 * MINUTE_MS, opened + 59 * MINUTE_MS + 59_999]
    states = [candles(binance, "1h", opened, opened, now_ms=ms)[0] for ms in [*moments, opened + 2 * HOUR_MS]]
    for earlier, later in pairwise(states):
        assert float(earlier.high) <= float(later.high)
        assert float(earlier.low) >= float(later.low)
        assert float(earlier.volume) <= float(later.volume)
        assert earlier.open == later.open
    assert states[0].close == states[0].open


def test_no_candle_opens_in_the_future(binance: SeededPerpetuals) -> None:
    """The last candle contains now, whatever end is asked for."""
    rows = candles(binance, "5m", NOW_MS - HOUR_MS, NOW_MS + DAY_MS)
    assert rows[-1].open_ms <= NOW_MS <= rows[-1].close_ms


def test_no_candle_opens_before_the_first_day(binance: SeededPerpetuals) -> None:
    """Data begin with 2017."""
    assert candles(binance, "1d", 0, FIRST_MS + DAY_MS)[0].open_ms == FIRST_MS
    assert candles(binance, "1d", 0, FIRST_MS - 1) == []


@pytest.mark.parametrize("coin", [COINS_BY_ID[name] for name in ("bitcoin", "solana", "harmony")])
def test_venues_stay_within_a_few_basis_points(market: Market, coin: Coin) -> None:
    """Both perpetuals trade within 6 bps of each other and of the price over all venues."""
    times = np.arange(NOW_MS - 30 * DAY_MS, NOW_MS, 7 * MINUTE_MS, dtype=np.int64)
    price = market.price(coin, times)
    binance, bybit = (market.venue_price(coin, venue, times) for venue in ("binance", "bybit"))
    assert np.abs(binance / price - 1).max() < 6e-4
    assert np.abs(binance / bybit - 1).max() < 6e-4
    assert (np.abs(binance / bybit - 1) > 1e-5).any()


def test_trailing_volume_at_midnight_is_the_volume_of_the_day(market: Market) -> None:
    """The trailing 24 h total, taken at midnight, is exactly the day's volume."""
    day = (NOW_MS - FIRST_MS) // DAY_MS - 3
    midnight = np.array([FIRST_MS + (day + 1) * DAY_MS])
    expected = market.world.volume_usd(BITCOIN)[day]
    assert market.trailing_volume_usd(BITCOIN, midnight)[0] == pytest.approx(expected, rel=1e-9)


def test_a_stable_coin_stays_at_its_peg(market: Market) -> None:
    """Tether never leaves 1 by more than 1 %."""
    times = np.arange(FIRST_MS, NOW_MS, DAY_MS, dtype=np.int64)
    assert np.abs(market.price(COINS_BY_ID["tether"], times) - 1).max() < 0.01
