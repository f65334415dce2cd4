"""What the venues have in common: intervals, closed candles, funding rows, the clock.

What belongs here: the shape in which Binance and Bybit hand over candles and funding, and the fetching of several
windows at once. A venue's paging, limits and error codes are in its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import pandas as pd

from mts_dagster.schemas import Klines
from mts_dagster.sources.errors import BadRequestError, Subject
from mts_dagster.sources.frames import conform, utc_times
from mts_dagster.sources.http import Clock
from mts_dagster.sources.instruments import Instrument

STEP_MS = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
}
MINUTE_MS = 60_000
REGULAR = "Regular"

Candle = tuple[int, str, str, str, str, str, str, int | None]
"""Open time ms, open, high, low, close, base volume, quote volume, trades; numbers as the venue's text."""


class Venue(Protocol):
    """An exchange whose candles can be asked for over REST."""

    name: str

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        """Closed candles that open in ``[start, end)``, as ``schemas.Klines``."""
        ...

    def perpetuals(self) -> list[Instrument]:
        """Perpetual futures of the venue."""
        ...

    def funding_rates(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        """Settled funding in ``[start, end)``, see ``funding_frame``."""
        ...

    def server_time(self) -> datetime:
        """The venue's clock."""
        ...

    def clock_offset(self) -> ClockOffset:
        """How far the venue's clock is ahead of ours."""
        ...

    def close(self) -> None:
        """Close the session."""
        ...


@dataclass(frozen=True)
class ClockOffset:
    """How far the venue's clock is ahead of ours, and how well that is known (half a round trip)."""

    offset_ms: float
    uncertainty_ms: float


def measure_offset(server_time: Callable[[], datetime], clock: Clock) -> ClockOffset:
    """Compare a venue's clock with ours; the answer belongs to the middle of the round trip."""
    before = clock.now()
    server = server_time().timestamp()
    after = clock.now()
    return ClockOffset((server - (before + after) / 2) * 1000, (after - before) / 2 * 1000)


@dataclass(frozen=True)
class FundingRow:
    """A settlement as the venue tells it; ``settled_at_ms`` may be some ms after the full minute."""

    settled_at_ms: int
    funding_rate: str
    mark_price: str | None = None
    rate_type: str = REGULAR


def step_ms(interval: str, service: str) -> int:
    """Length of a candle in milliseconds.

    Raises:
        BadRequestError: the interval is not one of ours.
    """
    if interval not in STEP_MS:
        raise BadRequestError(service, f"unknown interval {interval!r}", advice=f"use one of {', '.join(STEP_MS)}")
    return STEP_MS[interval]


def klines_frame(
    candles: Sequence[Candle],
    *,
    coin: str,
    venue: str,
    symbol: str,
    interval: str,
    delay_s: float,
    multiplier: float = 1.0,
) -> pd.DataFrame:
    """Candles as ``schemas.Klines``, sorted by open time, one row for each.

    Args:
        candles: rows of a venue, any order.
        coin: CoinGecko id.
        venue: exchange.
        symbol: the venue's instrument.
        interval: one of ``STEP_MS``.
        delay_s: how long after its close a candle counts as known.
        multiplier: coins in one unit of the instrument; prices are divided by it, base volume multiplied.
    """
    rows = sorted({candle[0]: candle for candle in candles}.values())
    numbers: list[Any] = [pd.Series([row[at] for row in rows], dtype="object").astype("float64") for at in range(1, 7)]
    open_time = utc_times([row[0] for row in rows])
    close_time = open_time + timedelta(milliseconds=step_ms(interval, venue))
    frame = pd.DataFrame(
        {
            "coin": coin,
            "venue": venue,
            "symbol": symbol,
            "interval": interval,
            "open_time": open_time,
            "close_time": close_time,
            "open": numbers[0] / multiplier,
            "high": numbers[1] / multiplier,
            "low": numbers[2] / multiplier,
            "close": numbers[3] / multiplier,
            "volume_base": numbers[4] * multiplier,
            "volume_quote_usd": numbers[5],
            "trades": pd.Series([row[7] for row in rows], dtype="Int64"),
            "available_at": close_time + timedelta(seconds=delay_s),
        }
    )
    return conform(frame, Klines, venue, Subject(symbol))


def funding_frame(symbol: str, rows: Sequence[FundingRow]) -> pd.DataFrame:
    """Settled funding: ``symbol, settled_at_ms, settled_at, funding_rate, mark_price, rate_type``, ascending.

    ``settled_at`` is floored to the minute and is the key; ``settled_at_ms`` is the venue's raw time. ``Special``
    rows (dividend adjustments) must not be averaged into the regular carry.
    """
    ordered = sorted({row.settled_at_ms: row for row in rows}.values(), key=lambda row: row.settled_at_ms)
    raw_ms = [row.settled_at_ms for row in ordered]
    marks = pd.Series([row.mark_price or None for row in ordered], dtype="object")
    return pd.DataFrame(
        {
            "symbol": pd.Series([symbol] * len(ordered), dtype="str"),
            "settled_at_ms": pd.Series(raw_ms, dtype="int64"),
            "settled_at": utc_times([moment - moment % MINUTE_MS for moment in raw_ms]),
            "funding_rate": pd.Series([row.funding_rate for row in ordered], dtype="object").astype("float64"),
            "mark_price": marks.astype("float64"),
            "rate_type": pd.Series([row.rate_type for row in ordered], dtype="str"),
        }
    )
