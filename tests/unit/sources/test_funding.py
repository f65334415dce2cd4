"""Settled funding in the contract's shape: intervals come from the settlements, whatever window is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mts_dagster.lake.slices import Slice
from mts_dagster.schemas import FundingRates
from mts_dagster.sources.errors import BlockedByLocationError, SourceError, UnknownSymbolError
from mts_dagster.sources.frames import epoch_ms
from mts_dagster.sources.funding import FundingWindow, fetch_funding
from mts_dagster.sources.history import funding
from mts_dagster.sources.instruments import Instrument
from mts_dagster.sources.klines import ClockOffset, FundingRow, funding_frame

START = datetime(2024, 7, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Exchange:
    """A venue that holds settlements of each symbol and lists these symbols."""

    def __init__(
        self, settled: dict[str, list[FundingRow]], name: str = "binance", refusal: SourceError | None = None
    ) -> None:
        self.name = name
        self.refusal = refusal
        self._settled = settled

    def perpetuals(self) -> list[Instrument]:
        return [
            Instrument(self.name, symbol, symbol.removesuffix("USDT"), "USDT", 0.1, 0.1, 5.0, is_trading=True)
            for symbol in self._settled
        ]

    def funding_rates(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        if self.refusal is not None:
            raise self.refusal
        if symbol not in self._settled:
            raise UnknownSymbolError(self.name, "unknown symbol")
        rows = [row for row in self._settled[symbol] if epoch_ms(start) <= row.settled_at_ms < epoch_ms(end)]
        return funding_frame(symbol, rows)

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        raise NotImplementedError

    def server_time(self) -> datetime:
        return START + 400 * DAY

    def clock_offset(self) -> ClockOffset:
        return ClockOffset(0, 0)

    def close(self) -> None:
        """Nothing is open."""


def settled(hours: float, rate: str = "0.0001", *, late_ms: int = 0, **more: str) -> FundingRow:
    return FundingRow(epoch_ms(START + hours * HOUR) + late_ms, rate, **more)


def rates(
    exchange: Exchange, start: datetime = START, end: datetime = START + 30 * DAY, coin: str = "bitcoin"
) -> pd.DataFrame:
    (outcome,) = fetch_funding(
        [FundingWindow(coin, exchange.name, start, end)], {exchange.name: exchange}, delay_s=60
    ).values()
    assert not isinstance(outcome, SourceError)
    return outcome


def test_a_settlement_in_the_contract() -> None:
    """The key is the full minute, the stamp is kept; the interval reaches back before the window."""
    exchange = Exchange({"BTCUSDT": [settled(-8), settled(0, "-0.00002", late_ms=7, mark_price="65000.5")]})
    (row,) = rates(exchange).to_dict("records")
    assert row == {
        "coin": "bitcoin",
        "venue": "binance",
        "symbol": "BTCUSDT",
        "settled_at": START,
        "stamped_at": START + timedelta(milliseconds=7),
        "funding_rate": -0.00002,
        "mark_price": 65000.5,
        "interval_hours": 8.0,
        "kind": "regular",
        "available_at": START + timedelta(seconds=60),
    }


def test_intervals_follow_the_settlements() -> None:
    """From every 8 hours to every hour and back to every 4: each rate is for the time since the one before."""
    hours = [-8, 0, 8, 9, 10, 11, 12, 16, 20]
    exchange = Exchange({"BTCUSDT": [settled(at, late_ms=at % 3) for at in hours]})
    assert rates(exchange)["interval_hours"].tolist() == [8, 8, 1, 1, 1, 1, 4, 4]


def test_the_first_settlement_of_an_instrument_has_no_interval() -> None:
    """Nothing tells what it was for; the distance to the next one is the next one's interval."""
    found = rates(Exchange({"BTCUSDT": [settled(8), settled(12)]}))
    assert found["interval_hours"].fillna(-1).tolist() == [-1, 4]


def test_a_pause_is_no_interval() -> None:
    """An instrument that stood still for 25 hours did not settle for 25 hours."""
    found = rates(Exchange({"BTCUSDT": [settled(0), settled(24), settled(49), settled(57)]}))
    assert found["interval_hours"].fillna(-1).tolist() == [-1, 24, -1, 8]


def test_special_rows_stand_apart() -> None:
    """They have no interval and do not cut that of the regular one after them, even in the same minute."""
    rows = [settled(-8), settled(0), settled(5.5, "-0.0025", rate_type="Special"), settled(8)]
    rows.append(settled(8, "-0.001", late_ms=3, rate_type="Special"))
    found = rates(Exchange({"BTCUSDT": rows}))
    assert found["kind"].tolist() == ["regular", "special", "regular", "special"]
    assert found["interval_hours"].fillna(-1).tolist() == [8, -1, 8, -1]


def test_marks_are_prices_of_the_coin() -> None:
    """1000SHIB is a thousand coins: the price is divided, the rate is a rate."""
    exchange = Exchange({"1000SHIBUSDT": [settled(-8), settled(0, "0.0003", mark_price="0.02")]})
    (row,) = rates(exchange, coin="shiba-inu").to_dict("records")
    assert (row["mark_price"], row["funding_rate"]) == (pytest.approx(0.00002), 0.0003)


def test_a_coin_without_a_perpetual_has_no_rows() -> None:
    """An empty frame in the contract's types, and no error."""
    found = rates(Exchange({"BTCUSDT": [settled(0)]}), coin="tether")
    pd.testing.assert_frame_equal(found, FundingRates.empty())


@given(
    steps=st.lists(st.sampled_from([1, 2, 4, 8, 24, 30]), min_size=1, max_size=40),
    cuts=st.sets(st.integers(1, 9), max_size=4),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_parts_of_a_window_add_up_to_the_window(steps: list[int], cuts: set[int]) -> None:
    """A day materialised alone has the rows that it has in a range."""
    exchange = Exchange({"BTCUSDT": [settled(at, late_ms=at % 20) for at in np.cumsum(steps).tolist()]})
    edges = [START, *(START + cut * DAY for cut in sorted(cuts)), START + 10 * DAY]
    parts = [rates(exchange, first, last) for first, last in pairwise(edges)]
    whole = rates(exchange, START, edges[-1])
    filled = [part for part in parts if not part.empty]
    assert len(whole) == sum(len(part) for part in filled)
    if filled:
        pd.testing.assert_frame_equal(pd.concat(filled, ignore_index=True), whole)


# Several venues

DAYS = [Slice(START, START + DAY, ("bitcoin", "tether"))]
EVERY_8_HOURS = [settled(hours) for hours in range(-24, 48, 8)]
BLOCKED = BlockedByLocationError("bybit", "refused for this network or country")


def test_every_venue_is_asked() -> None:
    """Unlike candles, which are the same wherever they come from."""
    venues = [Exchange({"BTCUSDT": EVERY_8_HOURS}, name) for name in ("binance", "bybit")]
    found = funding(venues, DAYS, FundingRates.empty(), {}, delay_s=60)
    assert found.frame.groupby("venue").size().to_dict() == {"binance": 3, "bybit": 3}
    assert found.problems == ()


def test_what_is_stored_of_a_venue_that_refuses_stays() -> None:
    """An outage must not empty a stored day, and it is told; rows outside the window are not brought in."""
    binance = Exchange({"BTCUSDT": EVERY_8_HOURS})
    bybit = Exchange({"BTCUSDT": EVERY_8_HOURS}, "bybit")
    stored = rates(bybit, START - DAY, START + 2 * DAY)
    bybit.refusal = BLOCKED
    found = funding([binance, bybit], DAYS, stored, {}, delay_s=60)
    kept = found.frame[found.frame["venue"] == "bybit"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, rates(Exchange({"BTCUSDT": EVERY_8_HOURS}, "bybit"), START, START + DAY))
    assert len(found.problems) == 1
    assert "refused for this network" in found.problems[0]


def test_no_answer_at_all_is_an_error() -> None:
    """Nothing may be replaced by nothing."""
    bybit = Exchange({"BTCUSDT": EVERY_8_HOURS}, "bybit", BLOCKED)
    with pytest.raises(BlockedByLocationError):
        funding([bybit], [Slice(START, START + DAY, ("bitcoin",))], FundingRates.empty(), {}, delay_s=60)
