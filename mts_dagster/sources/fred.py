"""FRED and ALFRED: macro series with the day on which each value was first known.

What belongs here: fredapi with another transport (ours: timeouts, retries, budget, redaction, proxies of this
session alone), the request of vintages in pieces that FRED accepts, and the pure functions that turn releases into
point-in-time rows.

Point in time: FRED without real-time bounds answers with today's revised values. ALFRED keeps vintages, but most
daily series were archived long after they began: everything older came in with the first vintage of all. Such an
observation has no usable vintage; it gets its day plus the series' usual lag and ``pit_quality='assumed_lag'``.

``available_at`` is ``settings.macro_publication_hour`` in Chicago on the vintage's day: FRED's real-time dates are
US Central days without a time, so the hour is an assumption, late on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from fredapi import Fred as FredApi
from pandas.tseries.holiday import USFederalHolidayCalendar
from pyrate_limiter import Rate

from mts_dagster.schemas import MacroData
from mts_dagster.settings import Settings
from mts_dagster.sources.errors import BadRequestError, SourceError, Subject, UnauthorisedError, UnknownSymbolError
from mts_dagster.sources.frames import conform
from mts_dagster.sources.hosts import Cost
from mts_dagster.sources.http import Clock, HttpSession, Value
from mts_dagster.sources.redaction import QueryKey
from mts_dagster.sources.replies import Reply, Service, rate_limited

NAME = "fred"
REQUESTS = "requests"
CHICAGO = ZoneInfo("America/Chicago")
MISSING = "."
DAYS: Final = "datetime64[us]"
VINTAGES_PER_REQUEST = 1900
"""FRED accepts 2000; a little less leaves room for a vintage that appears between two requests."""
PAGE = 100_000
VINTAGE_PAGE = 10_000
PAUSE_AFTER_LIMIT = timedelta(seconds=20)
BAD_REQUEST, TOO_MANY, SERVER_ERRORS = 400, 429, 500
KEY_ADVICE = (
    "a key is free at https://fredaccount.stlouisfed.org/apikeys, set it as MTS_FRED_API_KEY "
    "(32 lower-case letters and digits)"
)


@dataclass(frozen=True)
class Series:
    """What a series is, for people."""

    title: str
    unit: str


SERIES = {
    "VIXCLS": Series("CBOE Volatility Index (VIX), close", "index points"),
    "DTWEXBGS": Series("Nominal Broad U.S. Dollar Index (Fed, trade weighted), not ICE DXY", "index, Jan 2006 = 100"),
    "DGS10": Series("10-Year Treasury Constant Maturity Rate", "percent a year"),
    "DFF": Series("Effective Federal Funds Rate, daily", "percent a year"),
}
"""Known series; any other id of FRED works too."""


class Fred(FredApi):  # type: ignore[misc]  # fredapi has no types
    """fredapi over our transport: all its methods work, with our errors, and ``observations`` on top.

    Raises:
        UnauthorisedError: no key is set.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        # fredapi's own constructor is not called: it would install a urllib opener for the whole process.
        if settings.fred_api_key is None:
            raise UnauthorisedError(NAME, "no key", advice=KEY_ADVICE)
        self._clock = clock or Clock()
        self._settings = settings
        self.root_url = settings.fred_url.rstrip("/")
        self._http = HttpSession(
            Service(
                name=NAME,
                root=self.root_url,
                url_setting="MTS_FRED_URL",
                budgets={REQUESTS: even_pace(settings.fred_requests_per_second)},
                auth=QueryKey("api_key", settings.fred_api_key),
                judge=judge,
                parse=parse_document,
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

    def observations(self, indicator: str, start: date, end: date) -> pd.DataFrame:
        """Every value that FRED ever gave for the days ``[start, end)``, as ``schemas.MacroData``.

        Args:
            indicator: FRED series id.
            start: first day, inclusive.
            end: exclusive.
        """
        vintages = self.vintage_dates(indicator)
        begin = first_needed(vintages, start)
        releases = self._releases(indicator, start, end, realtime_windows(vintages[begin:], VINTAGES_PER_REQUEST))
        if begin > 0 and not releases.empty and releases["realtime_start"].min() <= pd.Timestamp(vintages[begin]):
            # Known before its own day (a projection): its true first release lies further back.
            releases = self._releases(indicator, start, end, realtime_windows(vintages, VINTAGES_PER_REQUEST))
        lag = self._settings.macro_lag_business_days.get(indicator, self._settings.macro_default_lag_business_days)
        frame = point_in_time(
            releases,
            indicator=indicator,
            first_vintage=vintages[0] if vintages else None,
            lag_business_days=lag,
            publication_hour=self._settings.macro_publication_hour,
        )
        return conform(frame, MacroData, NAME, Subject(indicator))

    def vintage_dates(self, indicator: str) -> list[date]:
        """Days on which FRED changed or added values of a series, ascending; empty where it keeps no vintages."""
        params: dict[str, Value] = {"series_id": indicator}
        try:
            pages = list(self._pages("/series/vintagedates", params, VINTAGE_PAGE, Subject(indicator)))
        except BadRequestError as failure:
            if "ALFRED" in failure.problem:
                return []
            raise
        return sorted({date.fromisoformat(str(child.text)) for page in pages for child in page})

    def _releases(self, indicator: str, start: date, end: date, windows: Sequence[tuple[date, date]]) -> pd.DataFrame:
        """Releases in the real-time windows; without any, those of today by FRED's own calendar."""
        params: dict[str, Value] = {
            "series_id": indicator,
            "observation_start": start.isoformat(),
            "observation_end": (end - timedelta(days=1)).isoformat(),
        }
        bounds: list[dict[str, Value]] = [
            {"realtime_start": first.isoformat(), "realtime_end": last.isoformat()} for first, last in windows
        ]
        parts = []
        for bound in bounds or [{}]:
            pages = self._pages("/series/observations", params | bound, PAGE, Subject(indicator))
            parts.append(pd.concat([parse_observations(page) for page in pages], ignore_index=True))
        return stitch(parts)

    def _pages(self, path: str, params: dict[str, Value], limit: int, subject: Subject) -> Iterator[ET.Element]:
        offset = 0
        while True:
            page = self._get(path, params | {"limit": limit, "offset": offset}, subject)
            yield page
            offset += limit
            if offset >= int(page.get("count", 0)) or len(page) == 0:
                return

    def _get(self, path: str, params: dict[str, Value], subject: Subject) -> ET.Element:
        return self._http.get(path, params, read=read_element, costs=(Cost(REQUESTS),), subject=subject)

    def _Fred__fetch_data(self, url: str) -> ET.Element:  # noqa: N802 - the private method that fredapi calls for every request
        """Take the place of fredapi's fetch, which has no timeout, no retry and puts the key into its errors."""
        query: dict[str, Value] = dict(parse_qsl(urlsplit(url).query))
        path = url.partition("?")[0].removeprefix(self.root_url)
        return self._get(path, query, Subject(str(query.get("series_id", ""))))


def even_pace(per_second: float) -> Rate:
    """One request at a time, evenly, 5 % slower than allowed: jitter must not squeeze three into a second."""
    return Rate(1, round(1050 / per_second), burst=1)


def parse_document(body: bytes) -> ET.Element | dict[str, Any]:
    """Parse an answer: XML, or JSON as some errors come.

    Raises:
        ValueError: neither, or a web page.
    """
    if body.lstrip()[:1] == b"{":
        document: dict[str, Any] = json.loads(body)
        return document
    try:
        root = ET.fromstring(body)  # noqa: S314 - the service is trusted, and expat limits entity expansion itself
    except ET.ParseError:
        root = None
    if root is None or root.tag.lower().endswith("html"):
        raise ValueError("not XML")
    return root


def read_element(document: object) -> ET.Element:
    """Accept XML only."""
    if not isinstance(document, ET.Element):
        raise TypeError("not XML")
    return document


def parse_observations(root: ET.Element) -> pd.DataFrame:
    """Rows of ``series/observations``: ``date, realtime_start, value``; the missing value ``.`` becomes null."""
    rows = [(child.get("date"), child.get("realtime_start"), child.get("value")) for child in root]
    frame = pd.DataFrame(rows, columns=["date", "realtime_start", "value"], dtype="object")
    return pd.DataFrame(
        {
            "date": pd.to_datetime(frame["date"], format="%Y-%m-%d").astype(DAYS),
            "realtime_start": pd.to_datetime(frame["realtime_start"], format="%Y-%m-%d").astype(DAYS),
            "value": frame["value"].where(frame["value"] != MISSING, None).astype("float64"),
        }
    )


def first_needed(vintages: Sequence[date], start: date) -> int:
    """Index of the last vintage before ``start``: nothing about later days was known then, except projections."""
    return max(0, sum(vintage < start for vintage in vintages) - 1)


def realtime_windows(vintages: Sequence[date], cap: int) -> list[tuple[date, date]]:
    """Split the real-time axis into windows of at most ``cap`` vintages, both ends included.

    The axis ends with the newest vintage and not with today: nothing changed since, and asking for a day that has
    not begun in Chicago is an error.
    """
    starts = list(vintages[::cap])
    ends = [later - timedelta(days=1) for later in starts[1:]] + list(vintages[-1:])
    return list(zip(starts, ends, strict=True))


def stitch(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the releases of consecutive real-time windows.

    FRED clips a release to the window asked for: what was already valid when a window began appears to start with
    it. Such a row repeats the last value of the window before, and is dropped.
    """
    numbered = [part.assign(part=position) for position, part in enumerate(parts)]
    rows = pd.concat(numbered, ignore_index=True).sort_values(["date", "realtime_start"], kind="stable")
    before = rows.groupby("date")[["value", "part"]].shift()
    same_value = (rows["value"] == before["value"]) | (rows["value"].isna() & before["value"].isna())
    is_clipped = before["part"].notna() & (before["part"] != rows["part"]) & same_value
    return rows.loc[~is_clipped, ["date", "realtime_start", "value"]].reset_index(drop=True)


def point_in_time(
    releases: pd.DataFrame,
    *,
    indicator: str,
    first_vintage: date | None,
    lag_business_days: int,
    publication_hour: int,
) -> pd.DataFrame:
    """Releases as rows of ``schemas.MacroData``.

    Args:
        releases: ``date, realtime_start, value``, one row for each value that FRED gave, unclipped.
        indicator: FRED series id.
        first_vintage: the oldest vintage of the whole series, or None where FRED keeps none and answers with the
            values of the day of asking.
        lag_business_days: usual days from observation to publication.
        publication_hour: hour in Chicago at which a vintage's values count as published.
    """
    rows = releases.sort_values(["date", "realtime_start"], ignore_index=True)
    is_first = ~rows["date"].duplicated()
    usual = add_business_days(rows["date"], lag_business_days)
    came_with_the_archive = (
        rows["realtime_start"].eq(pd.Timestamp(first_vintage))
        if first_vintage
        else pd.Series(data=True, index=rows.index)
    )
    is_assumed = is_first & came_with_the_archive & (rows["realtime_start"] > usual)
    vintage_date = rows["realtime_start"].mask(is_assumed, usual)
    return pd.DataFrame(
        {
            "indicator": indicator,
            "date": rows["date"],
            "value": rows["value"],
            "vintage_date": vintage_date,
            "pit_quality": np.where(is_assumed, "assumed_lag", "vintage"),
            "available_at": publication_time(vintage_date, publication_hour),
        }
    )


def add_business_days(days: pd.Series, count: int) -> pd.Series:
    """Days plus business days of the US government; a weekend or holiday counts as the business day before it.

    FRED publishes on no federal holiday, so a lag that ignored them would make values known too early.
    """
    if days.empty:
        return days
    margin = timedelta(days=2 * count + 14)
    holidays = USFederalHolidayCalendar().holidays(days.min() - margin, days.max() + margin)
    shifted = np.busday_offset(
        days.to_numpy().astype("datetime64[D]"),
        count,
        roll="backward" if count else "forward",  # known on the day itself, but never before it
        holidays=holidays.to_numpy().astype("datetime64[D]"),
    )
    return pd.Series(shifted.astype(DAYS), index=days.index)


def publication_time(days: pd.Series, hour: int) -> pd.Series:
    """The hour of US Central days as UTC; an hour that a clock change skips or repeats counts as the later one."""
    local = days + timedelta(hours=hour)
    is_daylight_time = np.zeros(len(local), dtype=bool)  # of a repeated hour, take the second: standard time
    aware = local.dt.tz_localize(CHICAGO, ambiguous=is_daylight_time, nonexistent="shift_forward")
    return aware.dt.tz_convert("UTC").dt.as_unit("us")


def judge(reply: Reply, document: Any, now: datetime) -> SourceError | None:  # noqa: ANN401 - XML or JSON
    """Read FRED's error texts; its code repeats the HTTP status."""
    if reply.is_success or reply.status >= SERVER_ERRORS:
        return None
    if reply.status == TOO_MANY:
        return rate_limited(NAME, reply, now, otherwise=now + PAUSE_AFTER_LIMIT)
    message = error_text(document)
    if reply.status == BAD_REQUEST and "api_key" in message:
        return UnauthorisedError(NAME, "the key is not accepted", advice=KEY_ADVICE)
    if "ALFRED" not in message and "series does not exist" in message:
        return UnknownSymbolError(NAME, "unknown series", advice="search its id at https://fred.stlouisfed.org")
    return BadRequestError(NAME, message, advice="check series and dates") if message else None


def error_text(document: Any) -> str:  # noqa: ANN401 - XML or JSON
    """The message of an error body: an attribute in XML, a member in JSON."""
    if isinstance(document, ET.Element):
        return str(document.get("message", "")) if document.tag == "error" else ""
    return str(document.get("error_message", "")) if isinstance(document, dict) else ""
