"""Is each source reachable with these settings? One cheap request each, for ``mts doctor``.

What belongs here: the probe and its outcome. It asks once, without retries, and respects bans: asking during a ban
prolongs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mts_dagster.errors import MtsError
from mts_dagster.settings import Settings
from mts_dagster.sources.binance import Binance
from mts_dagster.sources.bybit import Bybit
from mts_dagster.sources.coingecko import PRO, PUBLIC_FALLBACK, CoinGecko
from mts_dagster.sources.fetch import in_parallel
from mts_dagster.sources.fred import Fred
from mts_dagster.sources.http import Clock
from mts_dagster.sources.klines import ClockOffset
from mts_dagster.sources.redaction import host_of

PROBE_TIMEOUT_S = 10.0
TOLERATED_OFFSET_MS = 250.0
PROBE_SERIES = "DFF"


@dataclass(frozen=True)
class Reachability:
    """What a probe of one source found.

    Attributes:
        source: name of the service.
        host: host asked.
        is_ok: whether it answered as it should.
        detail: one line: what is wrong and what to do, or what is worth knowing.
        latency_ms: time of the request without waiting for budget; None without an answer.
        plan: plan in the settings, where the service has plans.
        has_key: whether a key is set; None where none is used.
        clock_offset_ms: how far the service's clock is ahead of ours, where it tells its time.
    """

    source: str
    host: str
    is_ok: bool = False
    detail: str = ""
    latency_ms: float | None = None
    plan: str | None = None
    has_key: bool | None = None
    clock_offset_ms: float | None = None


def reachability(settings: Settings) -> list[Reachability]:
    """Probe all sources side by side."""
    brief = settings.model_copy(
        update={"http_retries": 0, "http_timeout_s": min(settings.http_timeout_s, PROBE_TIMEOUT_S)}
    )
    probes: dict[str, Callable[[], Reachability]] = {
        "coingecko": lambda: _coingecko(brief),
        "fred": lambda: _fred(brief),
        "binance": lambda: _venue(brief, Binance, brief.binance_url),
        "bybit": lambda: _venue(brief, Bybit, brief.bybit_url),
    }
    outcomes = in_parallel(probes, workers=len(probes))
    return [outcome for outcome in outcomes.values() if isinstance(outcome, Reachability)]


class _Stopwatch:
    """Times a request, without the waiting for its budget."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._waited_s = 0.0
        self.clock = Clock(sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self._waited_s += seconds
        time.sleep(seconds)

    def milliseconds(self) -> float:
        return (time.perf_counter() - self._begin - self._waited_s) * 1000


def _coingecko(settings: Settings) -> Reachability:
    is_pro = settings.coingecko_plan == PRO
    host = host_of(settings.coingecko_pro_url if is_pro else settings.coingecko_url)
    found = Reachability(
        "coingecko", host, plan=settings.coingecko_plan, has_key=settings.coingecko_api_key is not None
    )
    watch = _Stopwatch()
    try:
        with CoinGecko(settings, watch.clock) as client:
            tier = client.ping()
    except MtsError as failure:
        return replace(found, detail=str(failure))
    if tier == PUBLIC_FALLBACK:
        return replace(found, detail="the Pro host cannot be reached; the public host answers in its place")
    return replace(found, is_ok=True, latency_ms=watch.milliseconds())


def _fred(settings: Settings) -> Reachability:
    found = Reachability("fred", host_of(settings.fred_url), has_key=settings.fred_api_key is not None)
    watch = _Stopwatch()
    try:
        with Fred(settings, watch.clock) as client:
            client.get_series_info(PROBE_SERIES)
    except MtsError as failure:
        return replace(found, detail=str(failure))
    return replace(found, is_ok=True, latency_ms=watch.milliseconds())


def _venue(settings: Settings, client: type[Binance | Bybit], url: str) -> Reachability:
    watch = _Stopwatch()
    found = Reachability(client.name, host_of(url))
    try:
        with client(settings, watch.clock) as venue:
            offset = venue.clock_offset()
    except MtsError as failure:
        return replace(found, detail=str(failure))
    return replace(
        found,
        is_ok=True,
        latency_ms=watch.milliseconds(),
        clock_offset_ms=offset.offset_ms,
        detail=_clock_advice(offset),
    )


def _clock_advice(offset: ClockOffset) -> str:
    """A line about a clock that is off by more than can be blamed on the round trip."""
    if abs(offset.offset_ms) - offset.uncertainty_ms <= TOLERATED_OFFSET_MS:
        return ""
    ahead = "behind" if offset.offset_ms > 0 else "ahead of"
    return f"this machine's clock is {abs(offset.offset_ms):.0f} ms {ahead} the venue's; synchronise it"
