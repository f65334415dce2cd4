"""What an exchange's perpetuals look like to the wire modules, whether seeded or recorded.

What belongs here: the small value types between data and wire, and the protocols that both data modes
implement. Numbers are text already, so that a recording is served digit for digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from mts_simulator.intervals import Interval
    from mts_simulator.wire import JsonObject


class Candle(NamedTuple):
    """One candle as text; ``close_ms`` is the last millisecond of it."""

    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_ms: int
    quote_volume: str
    trades: int
    taker_volume: str
    taker_quote_volume: str


class Settlement(NamedTuple):
    """One settled funding: when (raw, some ms past the hour), the rate, the mark price, ``Regular`` or ``Special``."""

    time_ms: int
    rate: str
    mark_price: str
    rate_type: str = "Regular"


class Mark(NamedTuple):
    """Mark and index price and the running funding estimate; ``rate`` is empty where there is none."""

    mark_price: str
    index_price: str
    settle_price: str
    rate: str
    next_funding_ms: int
    funding_hours: int


class Ladder(NamedTuple):
    """One side-by-side picture of a book: [price, size] texts, best first."""

    bids: list[list[str]]
    asks: list[list[str]]
    update_id: int
    sequence: int
    time_ms: int


@dataclass(frozen=True)
class Window:
    """Which candles or settlements are asked for.

    Attributes:
        start_ms: First open time wanted, inclusive; open-ended when None.
        end_ms: Last open time wanted, inclusive; open-ended when None.
        limit: The most rows.
        newest: With more rows than ``limit``: keep the newest instead of the oldest.
    """

    start_ms: int | None
    end_ms: int | None
    limit: int
    newest: bool


class PerpetualData(Protocol):
    """The data behind one exchange's perpetuals."""

    def symbols(self) -> list[str]:
        """Symbols with market data."""

    def instruments(self) -> list[JsonObject]:
        """Rows of the exchange's instrument list, in its own spelling."""

    def candles(self, symbol: str, interval: Interval, window: Window, now_ms: int) -> list[Candle]:
        """Candles in ascending order, the still open one included."""

    def settlements(self, symbol: str, window: Window, now_ms: int) -> list[Settlement]:
        """Settled funding in ascending order, nothing later than ``now_ms``."""

    def mark(self, symbol: str, now_ms: int) -> Mark | None:
        """Mark price and funding estimate; None where nothing is known."""

    def ladder(self, symbol: str, levels: int, now_ms: int) -> Ladder:
        """The book, at most ``levels`` a side; empty where nothing is known."""


class BinanceData(PerpetualData, Protocol):
    """What Binance publishes besides."""

    def funding_info(self) -> list[JsonObject]:
        """Rows of ``/fapi/v1/fundingInfo``: only symbols whose interval, cap or floor was adjusted."""


class BybitData(PerpetualData, Protocol):
    """What Bybit publishes besides."""

    def ticker(self, symbol: str, now_ms: int) -> JsonObject | None:
        """A row of ``/v5/market/tickers``; None where nothing is known."""
