"""CoinGecko: ranking of coins, sampled prices, coarse candles; keyless, Demo or Pro.

What belongs here: plans, hosts and headers, windows, and the fallback from Pro to the public host. What the answers
mean is in ``coingecko_wire``. Prices are samples at irregular times and the volume beside them is a trailing 24 h
total; bars are made of them elsewhere, under another name.

Fallback: Pro gives way to the public host when it cannot be reached (DNS, connection, timeout, 5xx) and never when
it answers no. The public host gets no Pro key, only the days it serves (the past 365), and its rows say so in
``source_tier``. The circuit breaker tries Pro again on its timer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any, Self

import pandas as pd
from pyrate_limiter import Rate

from mts_dagster.settings import Settings
from mts_dagster.sources.coingecko_wire import (
    NAME,
    Sample,
    judge,
    ohlc_frame,
    points_frame,
    ranking_frame,
    read_chart,
    read_ohlc,
    read_ranking,
)
from mts_dagster.sources.errors import (
    BadRequestError,
    SourceUnavailableError,
    Subject,
    UnauthorisedError,
    UnknownSymbolError,
)
from mts_dagster.sources.frames import epoch_ms
from mts_dagster.sources.hosts import Cost, budget
from mts_dagster.sources.http import Answer, Clock, HttpSession, Value
from mts_dagster.sources.redaction import HeaderKey, NoKey
from mts_dagster.sources.replies import Service

logger = logging.getLogger(__name__)

REQUESTS = "requests"
COST = (Cost(REQUESTS),)
PRO, PUBLIC_FALLBACK = "pro", "public_fallback"
KEY_HEADERS = {"demo": "x-cg-demo-api-key", "pro": "x-cg-pro-api-key"}
REQUESTS_PER_MINUTE = {"keyless": 5, "demo": 30, "pro": 250}
CHUNK = timedelta(days=90)
HOURLY_AT_MOST = timedelta(hours=2)
PUBLIC_HISTORY = timedelta(days=365)
LARGEST_PAGE = 250
OHLC_SPAN = {
    1: timedelta(minutes=30),
    7: timedelta(hours=4),
    14: timedelta(hours=4),
    30: timedelta(hours=4),
    90: timedelta(days=4),
    180: timedelta(days=4),
    365: timedelta(days=4),
}


@dataclass(frozen=True)
class Uncovered:
    """A part ``[start, end)`` of the window asked for that was not covered, and why."""

    start: datetime
    end: datetime
    reason: str


@dataclass(frozen=True)
class PriceHistory:
    """Sampled prices and what is wrong with them.

    Attributes:
        frame: ``schemas.PricePoints``.
        uncovered: parts of the window that no request covered; their rows are missing, not zero.
        coarse: parts whose samples are more than two hours apart although hourly ones were asked for.
        dropped: samples without a price.
    """

    frame: pd.DataFrame
    uncovered: tuple[Uncovered, ...] = ()
    coarse: tuple[tuple[datetime, datetime], ...] = ()
    dropped: int = 0


class CoinGecko:
    """Client of CoinGecko with the plan of the settings.

    Raises:
        UnauthorisedError: the plan needs a key and none is set.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._delay_s = settings.bar_delay_s
        self.plan = settings.coingecko_plan
        key = settings.coingecko_api_key
        if self.plan in KEY_HEADERS and key is None:
            raise UnauthorisedError(
                NAME,
                f"plan {self.plan} needs a key",
                advice="set MTS_COINGECKO_API_KEY (a Demo key is free at https://www.coingecko.com/en/api), "
                "or MTS_COINGECKO_PLAN=keyless",
            )
        auth = HeaderKey(KEY_HEADERS[self.plan], key) if key is not None and self.plan in KEY_HEADERS else NoKey()
        per_minute = settings.coingecko_requests_per_minute or REQUESTS_PER_MINUTE[self.plan]
        is_pro = self.plan == PRO

        def session(root: str, url_setting: str, rate: Rate, key_sender: HeaderKey | NoKey) -> HttpSession:
            service = Service(
                name=NAME,
                root=root,
                url_setting=url_setting,
                budgets={REQUESTS: rate},
                auth=key_sender,
                judge=judge,
            )
            return HttpSession(service, settings, self._clock)

        self._pro = (
            session(settings.coingecko_pro_url, "MTS_COINGECKO_PRO_URL", budget(per_minute, 60), auth)
            if is_pro
            else None
        )
        self._public = session(
            settings.coingecko_url,
            "MTS_COINGECKO_URL",
            budget(REQUESTS_PER_MINUTE["keyless"] if is_pro else per_minute, 60),
            NoKey() if is_pro else auth,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions."""
        for session in (self._pro, self._public):
            if session is not None:
                session.close()

    def ping(self) -> str:
        """Ask the service for a sign of life; returns the tier that answered."""
        return self._ask("/ping", {}, lambda answer: str(answer["gecko_says"]), Subject())[1]

    def markets(self, top_n: int, also: Iterable[str] = ()) -> pd.DataFrame:
        """Rank coins by market capitalisation, as of now, as ``schemas.CoinUniverse``.

        Args:
            top_n: coins that belong to the universe, at most 250.
            also: ids of further coins to include with their rank, not in the universe.

        Raises:
            BadRequestError: ``top_n`` is out of range.
        """
        if not 1 <= top_n <= LARGEST_PAGE:
            raise BadRequestError(NAME, f"cannot rank {top_n} coins", advice=f"use 1 to {LARGEST_PAGE}")
        common: dict[str, Value] = {"vs_currency": "usd", "order": "market_cap_desc", "page": 1}
        ranking, tier = self._ask(
            "/coins/markets", common | {"per_page": top_n}, read_ranking, Subject(f"top {top_n} coins")
        )
        missing = sorted(set(also) - {row["coin"] for row in ranking})
        if missing:
            ids = ",".join(missing)
            tracked, tier = self._ask(
                "/coins/markets", common | {"per_page": LARGEST_PAGE, "ids": ids}, read_ranking, Subject(ids)
            )
            ranking += tracked
        return ranking_frame(ranking, top_n=top_n, now=self._clock.utc(), source_tier=tier)

    def require_coin(self, coin: str) -> None:
        """Make sure that CoinGecko ranks a coin of this id.

        Raises:
            UnknownSymbolError: it does not.
        """
        if coin not in set(self.markets(1, [coin])["coin"]):
            raise UnknownSymbolError(
                NAME, f"there is no coin {coin!r}", advice="use the id from the address of its page, e.g. bitcoin"
            )

    def price_points(self, coin: str, start: datetime, end: datetime) -> PriceHistory:
        """Sampled prices of ``[start, end)``, hourly or finer, in requests of at most 90 days.

        The newest sample is CoinGecko's "now": it carries its own time and is kept when it lies inside the window.

        Args:
            coin: CoinGecko id.
            start: inclusive, aware.
            end: exclusive, aware.
        """
        now = self._clock.utc()
        samples: list[tuple[str, list[Sample]]] = []
        uncovered: list[Uncovered] = []
        coarse: list[tuple[datetime, datetime]] = []
        dropped = 0
        for asked in chunks(start, min(end, now), CHUNK):
            window, tier, (found, without_price) = self._chart(coin, asked, now)
            if window[0] > asked[0]:
                uncovered.append(Uncovered(asked[0], window[0], f"the {tier} service keeps {PUBLIC_HISTORY.days} days"))
            inside = [sample for sample in found if epoch_ms(window[0]) <= sample[0] < epoch_ms(window[1])]
            if is_coarse(inside):
                coarse.append(window)
            samples.append((tier, inside))
            dropped += without_price
        frame = points_frame(samples, coin=coin, delay_s=self._delay_s)
        return PriceHistory(frame, merge_uncovered(uncovered), tuple(coarse), dropped)

    def ohlc(self, coin: str, days: int) -> pd.DataFrame:
        """Closed candles of the past ``days``: 30 min (1), 4 h (7 to 30) or 4 days (90 and more) long; no volume.

        Returns:
            ``coin, open_time, close_time, open, high, low, close, source_tier, available_at``. CoinGecko stamps a
            candle with its close.

        Raises:
            BadRequestError: ``days`` is not one that CoinGecko offers.
        """
        if days not in OHLC_SPAN:
            raise BadRequestError(
                NAME, f"no candles for {days} days", advice=f"use one of {', '.join(map(str, OHLC_SPAN))}"
            )
        rows, tier = self._ask(
            f"/coins/{coin}/ohlc", {"vs_currency": "usd", "days": days}, read_ohlc, Subject(f"{coin} ohlc")
        )
        return ohlc_frame(
            rows, coin=coin, span=OHLC_SPAN[days], now=self._clock.utc(), source_tier=tier, delay_s=self._delay_s
        )

    def _chart(
        self, coin: str, asked: tuple[datetime, datetime], now: datetime
    ) -> tuple[tuple[datetime, datetime], str, tuple[list[Sample], int]]:
        """One request: the window that was covered, who answered, samples, and how many had no price."""
        path, subject = f"/coins/{coin}/market_chart/range", Subject(coin, *asked)
        answer = self._ask_pro(path, range_params(asked), read_chart, subject)
        if answer is not None:
            return asked, PRO, answer
        tier = self._public_tier
        window = (min(max(asked[0], first_public_day(now)), asked[1]), asked[1])
        if window[0] == window[1]:
            return window, tier, ([], 0)
        return (
            window,
            tier,
            self._public.get(path, range_params(window), read=read_chart, costs=COST, subject=subject),
        )

    def _ask(
        self, path: str, params: dict[str, Value], read: Callable[[Any], Answer], subject: Subject
    ) -> tuple[Answer, str]:
        """Ask the plan's host, or its stand-in; says who answered."""
        answer = self._ask_pro(path, params, read, subject)
        if answer is not None:
            return answer, PRO
        return self._public.get(path, params, read=read, costs=COST, subject=subject), self._public_tier

    def _ask_pro(
        self, path: str, params: dict[str, Value], read: Callable[[Any], Answer], subject: Subject
    ) -> Answer | None:
        """Ask the Pro host; None when there is none in this plan, or it cannot be reached."""
        if self._pro is None:
            return None
        try:
            return self._pro.get(path, params, read=read, costs=COST, subject=subject)
        except SourceUnavailableError as failure:
            logger.warning("asking the public host instead: %s", failure)
            return None

    @property
    def _public_tier(self) -> str:
        return PUBLIC_FALLBACK if self.plan == PRO else self.plan


def chunks(start: datetime, end: datetime, size: timedelta) -> list[tuple[datetime, datetime]]:
    """Split ``[start, end)`` into consecutive windows of at most ``size``."""
    count = max(0, -(-(end - start) // size))
    return [(start + size * at, min(end, start + size * (at + 1))) for at in range(count)]


def first_public_day(now: datetime) -> datetime:
    """Start of the oldest UTC day that the public host serves in full: no day comes out half covered."""
    return (now - PUBLIC_HISTORY).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def range_params(window: tuple[datetime, datetime]) -> dict[str, Value]:
    """Query of ``market_chart/range``: Unix seconds, both ends included, so the last second stays out."""
    return {"vs_currency": "usd", "from": int(window[0].timestamp()), "to": -int(-window[1].timestamp() // 1) - 1}


def is_coarse(samples: list[Sample]) -> bool:
    """Whether samples are typically more than two hours apart, as when daily points are served for hourly ones."""
    steps_ms = [later[0] - earlier[0] for earlier, later in pairwise(samples)]
    return bool(steps_ms) and median(steps_ms) > HOURLY_AT_MOST / timedelta(milliseconds=1)


def merge_uncovered(parts: list[Uncovered]) -> tuple[Uncovered, ...]:
    """Join parts that touch and have the same reason."""
    merged: list[Uncovered] = []
    for part in parts:
        if merged and merged[-1].end == part.start and merged[-1].reason == part.reason:
            merged[-1] = Uncovered(merged[-1].start, part.end, part.reason)
        else:
            merged.append(part)
    return tuple(merged)
