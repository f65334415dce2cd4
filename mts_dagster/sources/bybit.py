"""Bybit v5 linear futures over REST: candles, funding history, instruments, clock.

What belongs here: Bybit's paging (backwards from ``end``), its limits and its codes. It answers HTTP 200 also to
errors: ``retCode`` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Self

import pandas as pd

from mts_dagster.settings import Settings
from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    Subject,
    UnknownSymbolError,
)
from mts_dagster.sources.frames import epoch_ms, from_epoch_ms
from mts_dagster.sources.hosts import Cost, budget
from mts_dagster.sources.http import Answer, Clock, HttpSession, Value
from mts_dagster.sources.instruments import Instrument
from mts_dagster.sources.klines import (
    Candle,
    ClockOffset,
    FundingRow,
    funding_frame,
    klines_frame,
    measure_offset,
    step_ms,
)
from mts_dagster.sources.replies import Reply, Service, rate_limited

NAME = "bybit"
REQUESTS = "requests"
KLINE_PAGE, FUNDING_PAGE, INSTRUMENT_PAGE = 1000, 200, 1000
INTERVALS = {"1m": "1", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "4h": "240", "1d": "D"}
FORBIDDEN = 403
OVERRUN_BAN = timedelta(minutes=10)
RESET_HEADER = "X-Bapi-Limit-Reset-Timestamp"
OK, TIMEOUT, BAD_PARAMETER, TOO_MANY = 0, 10000, 10001, 10006
REGION, SERVER_ERROR, UNKNOWN_SYMBOL = 10009, 10016, 10029


class Bybit:
    """Client of Bybit's linear perpetuals; market data only, no key."""

    name = NAME

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._delay_s = settings.bar_delay_s
        self._clock = clock or Clock()
        self._http = HttpSession(
            Service(
                name=NAME,
                root=settings.bybit_url,
                url_setting="MTS_BYBIT_URL",
                budgets={REQUESTS: budget(settings.bybit_requests_per_5s, 5)},
                judge=judge,
            ),
            settings,
            self._clock,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session."""
        self._http.close()

    def server_time(self) -> datetime:
        """The venue's clock."""
        return self._get(
            "/v5/market/time", {}, Subject(), lambda result: from_epoch_ms(int(result["timeNano"]) // 1_000_000)
        )

    def clock_offset(self) -> ClockOffset:
        """Compare the venue's clock with ours."""
        return measure_offset(self.server_time, self._clock)

    def perpetuals(self) -> list[Instrument]:
        """Linear perpetuals that trade now."""
        instruments: list[Instrument] = []
        params: dict[str, Value] = {"category": "linear", "limit": INSTRUMENT_PAGE}
        while True:
            page, cursor = self._get("/v5/market/instruments-info", params, Subject("instruments"), read_perpetuals)
            instruments.extend(page)
            if not cursor:
                return instruments
            params["cursor"] = cursor

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        """Closed candles that open in ``[start, end)``, as ``schemas.Klines``; arguments as ``Binance.klines``.

        Bybit answers newest first and does not mark the open candle: it is left out by the venue's clock.
        """
        subject = Subject(f"{symbol} {interval}", start, end)
        step = step_ms(interval, NAME)
        server_ms = epoch_ms(self.server_time())
        start_ms, cursor = epoch_ms(start), min(epoch_ms(end), server_ms) - 1
        candles: list[Candle] = []
        while cursor >= start_ms:
            params: dict[str, Value] = {"category": "linear", "symbol": symbol, "interval": INTERVALS[interval]}
            params |= {"start": start_ms, "end": cursor, "limit": KLINE_PAGE}
            page = self._get("/v5/market/kline", params, subject, read_candles)
            candles.extend(candle for candle in page if candle[0] + step <= server_ms)
            if len(page) < KLINE_PAGE:
                break
            cursor = _backward(cursor, page[-1][0] - 1, subject)
        return klines_frame(
            candles,
            coin=coin,
            venue=NAME,
            symbol=symbol,
            interval=interval,
            delay_s=self._delay_s,
            multiplier=multiplier,
        )

    def funding_rates(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        """Settled funding in ``[start, end)``, see ``klines.funding_frame``; Bybit tells no mark price."""
        subject = Subject(f"{symbol} funding", start, end)
        start_ms, cursor = epoch_ms(start), epoch_ms(end) - 1
        rows: list[FundingRow] = []
        while cursor >= start_ms:
            params: dict[str, Value] = {"category": "linear", "symbol": symbol}
            params |= {"startTime": start_ms, "endTime": cursor, "limit": FUNDING_PAGE}
            page = self._get("/v5/market/funding/history", params, subject, read_funding)
            rows.extend(page)
            if len(page) < FUNDING_PAGE:
                break
            cursor = _backward(cursor, page[-1].settled_at_ms - 1, subject)
        return funding_frame(symbol, rows)

    def _get(
        self, path: str, params: dict[str, Value], subject: Subject, read: Callable[[dict[str, Any]], Answer]
    ) -> Answer:
        return self._http.get(
            path, params, read=lambda answer: read(answer["result"]), costs=(Cost(REQUESTS),), subject=subject
        )


def _backward(cursor: int, following: int, subject: Subject) -> int:
    """Last millisecond of the next, older page, which must lie before this one's."""
    if following >= cursor:
        raise BadContentError(NAME, "a page does not move backwards", advice="ask again", subject=subject)
    return following


def read_candles(result: dict[str, Any]) -> list[Candle]:
    """Rows of ``/v5/market/kline``, newest first."""
    return [(int(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], None) for row in result["list"]]


def read_funding(result: dict[str, Any]) -> list[FundingRow]:
    """Rows of ``/v5/market/funding/history``, newest first."""
    return [FundingRow(int(row["fundingRateTimestamp"]), row["fundingRate"]) for row in result["list"]]


def read_perpetuals(result: dict[str, Any]) -> tuple[list[Instrument], str]:
    """Perpetuals of ``/v5/market/instruments-info`` and the cursor of the next page, empty on the last."""
    rows = result["list"]
    perpetuals = [parse_instrument(row) for row in rows if row["contractType"] == "LinearPerpetual"]
    return perpetuals, str(result.get("nextPageCursor") or "") if rows else ""


def parse_instrument(row: dict[str, Any]) -> Instrument:
    """One row of ``instruments-info``."""
    return Instrument(
        venue=NAME,
        symbol=row["symbol"],
        base=row["baseCoin"],
        quote=row["quoteCoin"],
        tick_size=float(row["priceFilter"]["tickSize"]),
        qty_step=float(row["lotSizeFilter"]["qtyStep"]),
        min_notional=float(row["lotSizeFilter"].get("minNotionalValue") or 0),
        is_trading=row["status"] == "Trading",
    )


def judge(reply: Reply, document: Any, now: datetime) -> SourceError | None:  # noqa: ANN401 - JSON
    """Read Bybit's codes; ``retCode`` counts whatever the HTTP status says."""
    if reply.status == FORBIDDEN:
        return _forbidden(reply, now)
    code = document.get("retCode") if isinstance(document, dict) else None
    if code is None or code == OK:
        return None
    if code == TOO_MANY:
        reset = reply.headers.get(RESET_HEADER, "")
        return rate_limited(NAME, reply, now, otherwise=from_epoch_ms(int(reset)) if reset.isdigit() else None)
    return _code_error(code, f"error {code}: {document.get('retMsg', '')}")


def _code_error(code: int, problem: str) -> SourceError:
    """An error that the code alone explains."""
    if code in (TIMEOUT, SERVER_ERROR):
        return SourceUnavailableError(NAME, problem, advice="repeat later")
    if code == REGION:
        return _refused()
    if code == UNKNOWN_SYMBOL or (code == BAD_PARAMETER and "symbol" in problem.lower()):
        return UnknownSymbolError(NAME, problem, advice="it is not in the list of the venue's perpetuals")
    return BadRequestError(NAME, problem, advice="check symbol, interval and window")


def _forbidden(reply: Reply, now: datetime) -> SourceError:
    """HTTP 403 is either an overrun of the address's limit (ten minutes at least) or a refused country."""
    if b"too frequent" not in reply.body.lower():
        return _refused()
    return RateLimitedError(
        NAME,
        "this address asked too often",
        advice="lower MTS_BYBIT_REQUESTS_PER_5S, and look for other programs on this address",
        retry_at=now + OVERRUN_BAN,
    )


def _refused() -> BlockedByLocationError:
    return BlockedByLocationError(
        NAME,
        "refused for this network or country",
        advice="leave bybit out of MTS_KLINE_VENUES, or set MTS_BYBIT_URL to your region's host",
    )
