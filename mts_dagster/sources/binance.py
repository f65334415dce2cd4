"""Binance USD-M futures over REST: candles, funding history, instruments, clock.

What belongs here: Binance's paging (ascending from ``startTime``), weights, ban messages and codes. Weights are
those of its connector's sources; the budget is also read from every answer, because the address may be shared with
programs that are not ours.
"""

from __future__ import annotations

import re
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
from mts_dagster.sources.http import Clock, HttpSession
from mts_dagster.sources.instruments import Instrument
from mts_dagster.sources.klines import (
    REGULAR,
    Candle,
    ClockOffset,
    FundingRow,
    funding_frame,
    klines_frame,
    measure_offset,
    step_ms,
)
from mts_dagster.sources.replies import Reply, Service, rate_limited, retry_after

NAME = "binance"
WEIGHT, FUNDING = "weight", "funding"
PAGE = 1000
USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"
FULL_SHARE = 0.9
BANNED, RATE_LIMITED, FORBIDDEN, UNAVAILABLE_HERE, SERVER_ERRORS = 418, 429, 403, 451, 500
SHORTEST_BAN = timedelta(minutes=2)
BANNED_UNTIL = re.compile(r"banned until (\d{13})")
UNKNOWN_SYMBOL, TOO_MANY = -1121, -1003
OUTCOME_UNKNOWN = (-1000, -1001, -1006, -1007, -1008)


class Binance:
    """Client of Binance USD-M futures; market data only, no key."""

    name = NAME

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._delay_s = settings.bar_delay_s
        self._clock = clock or Clock()
        limit = settings.binance_weight_per_minute
        self._http = HttpSession(
            Service(
                name=NAME,
                root=settings.binance_url,
                url_setting="MTS_BINANCE_URL",
                budgets={WEIGHT: budget(limit, 60), FUNDING: budget(500, 300)},
                judge=judge,
                pace=lambda reply, now: pause_when_full(reply, now, limit),
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
        return self._http.get(
            "/fapi/v1/time", read=lambda answer: from_epoch_ms(int(answer["serverTime"])), costs=(Cost(WEIGHT),)
        )

    def clock_offset(self) -> ClockOffset:
        """Compare the venue's clock with ours."""
        return measure_offset(self.server_time, self._clock)

    def perpetuals(self) -> list[Instrument]:
        """Perpetual futures on crypto coins (``TRADIFI_PERPETUAL`` and dated futures are left out)."""
        return self._http.get("/fapi/v1/exchangeInfo", read=read_perpetuals, costs=(Cost(WEIGHT),))

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        """Closed candles that open in ``[start, end)``, as ``schemas.Klines``.

        Closed by the venue's clock, asked before the candles: a candle that closes meanwhile stays out.

        Args:
            coin: CoinGecko id, written into the rows.
            symbol: e.g. ``BTCUSDT``.
            interval: one of ``klines.STEP_MS``.
            start: inclusive, aware.
            end: exclusive, aware.
            multiplier: coins in one unit of the instrument.
        """
        subject = Subject(f"{symbol} {interval}", start, end)
        step = step_ms(interval, NAME)
        server_ms = epoch_ms(self.server_time())
        cursor, end_ms = epoch_ms(start), min(epoch_ms(end), server_ms)
        candles: list[Candle] = []
        while cursor < end_ms:
            limit = min(PAGE, -(-(end_ms - cursor) // step))
            page = self._http.get(
                "/fapi/v1/klines",
                {
                    "symbol": symbol,
                    "interval": interval,
                    "startTime": cursor,
                    "endTime": end_ms - 1,
                    "limit": limit,
                },
                read=read_candles,
                costs=(Cost(WEIGHT, kline_weight(limit)),),
                subject=subject,
            )
            candles.extend(candle for candle in page if candle[0] + step <= server_ms)
            if len(page) < limit:
                break
            cursor = _forward(cursor, page[-1][0] + step, subject)
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
        """Settled funding in ``[start, end)``, see ``klines.funding_frame``."""
        subject = Subject(f"{symbol} funding", start, end)
        cursor, end_ms = epoch_ms(start), epoch_ms(end)
        rows: list[FundingRow] = []
        while cursor < end_ms:
            page = self._http.get(
                "/fapi/v1/fundingRate",
                {"symbol": symbol, "startTime": cursor, "endTime": end_ms - 1, "limit": PAGE},
                read=read_funding,
                costs=(Cost(WEIGHT), Cost(FUNDING)),
                subject=subject,
            )
            rows.extend(page)
            if len(page) < PAGE:
                break
            cursor = _forward(cursor, page[-1].settled_at_ms + 1, subject)
        return funding_frame(symbol, rows)


def _forward(cursor: int, following: int, subject: Subject) -> int:
    """The next page's start, which must lie after this one's."""
    if following <= cursor:
        raise BadContentError(NAME, "a page does not move forward", advice="ask again", subject=subject)
    return following


def kline_weight(limit: int) -> int:
    """Request weight of ``/fapi/v1/klines`` for a page size."""
    return next((weight for below, weight in ((100, 1), (500, 2), (1001, 5)) if limit < below), 10)


def read_candles(rows: list[list[Any]]) -> list[Candle]:
    """Rows of ``/fapi/v1/klines``; column 6, the close time, is open time plus step minus 1 ms."""
    return [(int(row[0]), row[1], row[2], row[3], row[4], row[5], row[7], int(row[8])) for row in rows]


def read_funding(rows: list[dict[str, Any]]) -> list[FundingRow]:
    """Rows of ``/fapi/v1/fundingRate``."""
    return [
        FundingRow(int(row["fundingTime"]), row["fundingRate"], row.get("markPrice"), row.get("rateType") or REGULAR)
        for row in rows
    ]


def read_perpetuals(answer: dict[str, Any]) -> list[Instrument]:
    """Perpetuals of ``/fapi/v1/exchangeInfo``, chosen by their type and not by their name."""
    return [parse_instrument(row) for row in answer["symbols"] if row["contractType"] == "PERPETUAL"]


def parse_instrument(row: dict[str, Any]) -> Instrument:
    """One row of ``exchangeInfo``; steps come from the filters, not from the precisions."""
    filters = {entry["filterType"]: entry for entry in row["filters"]}
    return Instrument(
        venue=NAME,
        symbol=row["symbol"],
        base=row["baseAsset"],
        quote=row["quoteAsset"],
        tick_size=float(filters["PRICE_FILTER"]["tickSize"]),
        qty_step=float(filters["LOT_SIZE"]["stepSize"]),
        min_notional=float(filters.get("MIN_NOTIONAL", {}).get("notional", 0)),
        is_trading=row["status"] == "TRADING",
    )


def pause_when_full(reply: Reply, now: datetime, limit: int) -> datetime | None:
    """Until when to pause after an answer: the next minute, once most of this minute's weight is used."""
    used = reply.headers.get(USED_WEIGHT, "")
    return next_minute(now) if used.isdigit() and int(used) >= FULL_SHARE * limit else None


def next_minute(now: datetime) -> datetime:
    """Start of the next fixed minute window, and a second for the difference of the clocks."""
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1, seconds=1)


def judge(reply: Reply, document: Any, now: datetime) -> SourceError | None:  # noqa: ANN401 - JSON
    """Read Binance's codes: bans and limits, location, unknown symbols, outcomes unknown."""
    if reply.is_success:
        return None
    body = document if isinstance(document, dict) else {}
    code, message = body.get("code"), str(body.get("msg", ""))
    if reply.status in (BANNED, RATE_LIMITED) or code == TOO_MANY:
        return _limit_error(reply, message, now)
    if reply.status in (FORBIDDEN, UNAVAILABLE_HERE):
        return BlockedByLocationError(
            NAME,
            "refused for this network or country",
            advice="leave binance out of MTS_KLINE_VENUES, or set MTS_BINANCE_URL to a host you may use",
        )
    return _code_error(code, message) if code is not None and reply.status < SERVER_ERRORS else None


def _code_error(code: int, message: str) -> SourceError:
    """An error that only the code in the body explains."""
    if code in OUTCOME_UNKNOWN:
        return SourceUnavailableError(NAME, f"error {code}: {message}", advice="repeat later")
    if code == UNKNOWN_SYMBOL:
        return UnknownSymbolError(NAME, "unknown symbol", advice="it is not in the list of the venue's perpetuals")
    return BadRequestError(NAME, f"error {code}: {message}", advice="check symbol, interval and window")


def _limit_error(reply: Reply, message: str, now: datetime) -> RateLimitedError:
    """A limit (until the next minute) or a ban (minutes to days); the time may be in a header or in the text."""
    named = BANNED_UNTIL.search(message)
    until = from_epoch_ms(int(named[1])) if named else None
    if reply.status != BANNED:
        return rate_limited(NAME, reply, now, otherwise=until or next_minute(now))
    return RateLimitedError(
        NAME,
        "this address is banned for asking too often",
        advice="lower MTS_BINANCE_WEIGHT_PER_MINUTE, and look for other programs on this address",
        retry_at=retry_after(reply, now) or until or now + SHORTEST_BAN,
    )
