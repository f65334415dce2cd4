"""Bybit v5 linear futures over REST: candles, funding history, instruments, clock.

What belongs here: Bybit's paging (backwards from ``end``), its limits and its codes. It answers HTTP 200 also to
errors: ``retCode`` decides.
"""

from __future__ import annotations

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
from mts_dagster.sources.http import Clock, HttpSession, Reply, Service, Value, rate_limited
from mts_dagster.sources.instruments import Instrument
from mts_dagster.sources.klines import Candle, ClockOffset, FundingRow, funding_frame, klines_frame, step_ms

NAME = "bybit"
REQUESTS = "requests"
KLINE_PAGE, FUNDING_PAGE, INSTRUMENT_PAGE = 1000, 200, 1000
INTERVALS = {"1m": "1", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "4h": "240", "1d": "D"}
OVERRUN_BAN = timedelta(minutes=10)
RESET_HEADER = "X-Bapi-Limit-Reset-Timestamp"
OK = 0


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
        return from_epoch_ms(int(self._result("/v5/market/time", {}, Subject())["timeNano"]) // 1_000_000)

    def clock_offset(self) -> ClockOffset:
        """Compare the venue's clock with ours."""
        before = self._clock.now()
        server = self.server_time().timestamp()
        after = self._clock.now()
        return ClockOffset((server - (before + after) / 2) * 1000, (after - before) / 2 * 1000)

    def perpetuals(self) -> list[Instrument]:
        """Linear perpetuals that trade now."""
        rows: list[dict[str, Any]] = []
        params: dict[str, Value] = {"category": "linear", "limit": INSTRUMENT_PAGE}
        while True:
            result = self._result("/v5/market/instruments-info", params, Subject("instruments"))
            rows.extend(result["list"])
            cursor = result.get("nextPageCursor")
            if not cursor or not result["list"]:
                break
            params["cursor"] = cursor
        return [parse_instrument(row) for row in rows if row["contractType"] == "LinearPerpetual"]

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        """Closed candles that open in ``[start, end)``, as ``schemas.Klines``; see ``Binance.klines``.

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
            page = self._result("/v5/market/kline", params, subject)["list"]
            opens = [int(row[0]) for row in page]
            candles.extend(
                (open_ms, row[1], row[2], row[3], row[4], row[5], row[6], None)
                for open_ms, row in zip(opens, page, strict=True)
                if open_ms + step <= server_ms
            )
            cursor = _next_cursor(cursor, opens, KLINE_PAGE, start_ms, subject)
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
            page = self._result("/v5/market/funding/history", params, subject)["list"]
            rows.extend(FundingRow(int(row["fundingRateTimestamp"]), row["fundingRate"]) for row in page)
            settled = [int(row["fundingRateTimestamp"]) for row in page]
            cursor = _next_cursor(cursor, settled, FUNDING_PAGE, start_ms, subject)
        return funding_frame(symbol, rows)

    def _result(self, path: str, params: dict[str, Value], subject: Subject) -> dict[str, Any]:
        answer = self._http.get(path, params, expect=dict, costs=(Cost(REQUESTS),), subject=subject)
        result: dict[str, Any] = answer["result"]
        return result


def _next_cursor(cursor: int, times_ms: list[int], limit: int, start_ms: int, subject: Subject) -> int:
    """Last millisecond of the next, older page; before ``start_ms`` when there is none."""
    if len(times_ms) < limit:
        return start_ms - 1
    following = min(times_ms) - 1
    if following >= cursor:
        raise BadContentError(NAME, "a page does not move backwards", advice="ask again", subject=subject)
    return following


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
    if reply.status == 403:  # noqa: PLR2004 - Bybit's answer to overruns and to refused countries
        if b"too frequent" in reply.body.lower():
            return RateLimitedError(
                NAME,
                "this address asked too often",
                advice="lower MTS_BYBIT_REQUESTS_PER_5S, and look for other programs on this address",
                retry_at=now + OVERRUN_BAN,
            )
        return _refused()
    code = document.get("retCode") if isinstance(document, dict) else None
    if code in (None, OK):
        return None
    problem = f"error {code}: {document.get('retMsg', '')}"
    match code:
        case 10006:
            reset = reply.headers.get(RESET_HEADER, "")
            return rate_limited(NAME, reply, now, otherwise=from_epoch_ms(int(reset)) if reset.isdigit() else None)
        case 10000 | 10016:
            return SourceUnavailableError(NAME, problem, advice="repeat later")
        case 10009:
            return _refused()
        case 10029:
            return UnknownSymbolError(NAME, "unknown symbol", advice="see Bybit.perpetuals() for what exists")
        case 10001 if "symbol" in problem.lower():
            return UnknownSymbolError(NAME, problem, advice="see Bybit.perpetuals() for what exists")
    return BadRequestError(NAME, problem, advice="check symbol, interval and window")


def _refused() -> BlockedByLocationError:
    return BlockedByLocationError(
        NAME,
        "refused for this network or country",
        advice="leave bybit out of MTS_KLINE_VENUES, or set MTS_BYBIT_URL to your region's host",
    )
