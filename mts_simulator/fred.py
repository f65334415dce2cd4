"""FRED: ``/series...`` requests in, XML (the default) or JSON out.

What belongs here: real-time periods, vintages, output types, paging, limits and error bodies as the service
has them. The data comes from a ``MacroData``, seeded or recorded.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import date
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from mts_simulator.clock import MINUTE_MS, central_date, date_of, day_number, from_ms
from mts_simulator.wire import Call, JsonObject, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_simulator.macro import MacroData, Releases
    from mts_simulator.noise import Ints

_FIRST_REALTIME = date(1776, 7, 4)
_LAST_REALTIME = date(9999, 12, 31)
_MAX_VINTAGES = 2000
_XML_HEAD = '<?xml version="1.0" encoding="utf-8" ?>'
_MAX_OBSERVATIONS = 100_000
_MAX_VINTAGE_DATES = 10_000
_CALLS_A_MINUTE = 120
_KEY = re.compile(r"[0-9a-z]{32}")
_KEY_HELP = "Read https://fred.stlouisfed.org/docs/api/api_key.html for more information."
_OUTPUT_TYPES = (1, 2, 3, 4)
_BY_PERIOD, _ALL_BY_VINTAGE, _CHANGED_BY_VINTAGE, _FIRST_ONLY = _OUTPUT_TYPES


class FredError(Exception):
    """An error answer; ``str(error)`` is FRED's message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Fred:
    """The service.

    Args:
        data: What it serves.
        enforce_limits: Answer 429 after 120 calls in a minute.
    """

    name = "fred"
    mount = "/fred"

    def __init__(self, data: MacroData, *, enforce_limits: bool = False) -> None:
        self._data = data
        self._enforce = enforce_limits
        self._recent: deque[int] = deque()
        self._endpoints: dict[str, Callable[[Call], tuple[str, JsonObject]]] = {
            "/series": self._series,
            "/series/observations": self._observations,
            "/series/vintagedates": self._vintage_dates,
        }

    def answer(self, call: Call) -> Reply:
        """The reply to one request."""
        as_json = call.query.get("file_type", "xml") == "json"
        endpoint = self._endpoints.get(call.path)
        if endpoint is None:
            return Reply("<html><body><h1>Not Found</h1></body></html>", 404, "text/html")
        try:
            self._check_rate(call.now_ms)
            _check_key(call)
            _check_file_type(call)
            element, body = endpoint(call)
        except FredError as error:
            return _failure(error, as_json=as_json)
        return json_reply(body) if as_json else Reply(_xml(element, body), content_type="text/xml")

    def _check_rate(self, now_ms: int) -> None:
        if not self._enforce:
            return
        while self._recent and self._recent[0] <= now_ms - MINUTE_MS:
            self._recent.popleft()
        if len(self._recent) >= _CALLS_A_MINUTE:
            raise FredError("Too Many Requests.  Exceeded Rate Limit", 429)
        self._recent.append(now_ms)

    def _series(self, call: Call) -> tuple[str, JsonObject]:
        series_id = self._series_id(call)
        start, end = _realtime(call, None)
        series = self._data.series()[series_id]
        known = self._data.releases(series_id, call.now_ms)
        updated = int(known.released_ms.max()) if len(known.day) else call.now_ms
        row = {
            "id": series_id,
            "realtime_start": start.isoformat(),
            "realtime_end": end.isoformat(),
            "title": series.title,
            "observation_start": date_of(int(known.day[0])).isoformat() if len(known.day) else "",
            "observation_end": date_of(int(known.day[-1])).isoformat() if len(known.day) else "",
            "frequency": series.frequency,
            "frequency_short": "D",
            "units": series.units,
            "units_short": series.units,
            "seasonal_adjustment": "Not Seasonally Adjusted",
            "seasonal_adjustment_short": "NSA",
            "last_updated": from_ms(updated).strftime("%Y-%m-%d %H:%M:%S+00"),
            "popularity": 50,
            "notes": "",
        }
        head = {"realtime_start": start.isoformat(), "realtime_end": end.isoformat()}
        return "seriess", {**head, "seriess": [row]}

    def _vintage_dates(self, call: Call) -> tuple[str, JsonObject]:
        series_id = self._series_id(call)
        start, end = _realtime(call, (_FIRST_REALTIME, _LAST_REALTIME))
        known = self._data.releases(series_id, call.now_ms)
        days = np.unique(known.vintage)
        days = days[(days >= day_number(start)) & (days <= day_number(end))]
        order, offset, limit = _paging(call, _MAX_VINTAGE_DATES)
        days = days[::-1] if order == "desc" else days
        body = {
            "realtime_start": start.isoformat(),
            "realtime_end": end.isoformat(),
            "order_by": "vintage_date",
            "sort_order": order,
            "count": len(days),
            "offset": offset,
            "limit": limit,
            "vintage_dates": [date_of(int(day)).isoformat() for day in days[offset : offset + limit]],
        }
        return "vintage_dates", body

    def _observations(self, call: Call) -> tuple[str, JsonObject]:
        series_id = self._series_id(call)
        for name, only in (("units", "lin"), ("frequency", ""), ("aggregation_method", "avg")):
            if call.query.get(name, only) != only:
                raise FredError(f"Bad Request.  Bad value for variable {name}: the simulator does not transform.")
        output = _whole(call, "output_type", 1)
        if output not in _OUTPUT_TYPES:
            raise FredError("Bad Request.  Bad value for variable output_type.")
        known = self._data.releases(series_id, call.now_ms)
        vintages = _vintages_asked(call)
        # A list of vintages is the period from its first to its last; types 2 and 3 show a column for each.
        start, end = (vintages[0], vintages[-1]) if vintages else _realtime(call, None)
        rows = _in_period(known, start, end)
        first, last = _observation_bounds(call)
        rows = [row for row in rows if first <= row[0] <= last]
        shown = [day_number(vintage) for vintage in vintages] or _vintages_in(known, start, end)
        found = _shaped(rows, output, series_id, shown)
        order, offset, limit = _paging(call, _MAX_OBSERVATIONS)
        found = found[::-1] if order == "desc" else found
        body = {
            "realtime_start": start.isoformat(),
            "realtime_end": end.isoformat(),
            "observation_start": date_of(first).isoformat(),
            "observation_end": date_of(last).isoformat(),
            "units": "lin",
            "output_type": output,
            "file_type": call.query.get("file_type", "xml"),
            "order_by": "observation_date",
            "sort_order": order,
            "count": len(found),
            "offset": offset,
            "limit": limit,
            "observations": found[offset : offset + limit],
        }
        return "observations", body

    def _series_id(self, call: Call) -> str:
        series_id = call.query.get("series_id", "")
        if not series_id:
            raise FredError("Bad Request.  Variable series_id is not set.")
        if series_id.upper() not in self._data.series():
            raise FredError("Bad Request.  The series does not exist.")
        return series_id.upper()


_Row = tuple[int, int, int, str]
"""Observation day, first and last real-time day, value."""


def _ends(known: Releases) -> Ints:
    """The last real-time day of each row: the day before the next vintage of the same observation."""
    ends = np.full(len(known.day), day_number(_LAST_REALTIME), dtype=np.int64)
    if len(ends):
        superseded = np.flatnonzero(known.day[1:] == known.day[:-1])
        ends[superseded] = known.vintage[superseded + 1] - 1
    return ends


def _vintages_in(known: Releases, start: date, end: date) -> list[int]:
    """Vintage days in the real-time period."""
    days = np.unique(known.vintage)
    return [int(day) for day in days if day_number(start) <= day <= day_number(end)]


def _in_period(known: Releases, start: date, end: date) -> list[_Row]:
    """Rows that were valid in the real-time period, their bounds clipped to it."""
    count = len(_vintages_in(known, start, end))
    if count > _MAX_VINTAGES:
        raise FredError(
            f"Bad Request.  There are {count} vintage dates in the specified real-time period: "
            f"{start} to {end}.  This exceeds the maximum number of vintage dates allowed ({_MAX_VINTAGES})."
        )
    low, high = day_number(start), day_number(end)
    ends = _ends(known)
    kept = np.flatnonzero((known.vintage <= high) & (ends >= low))
    return [
        (int(known.day[i]), max(int(known.vintage[i]), low), min(int(ends[i]), high), known.value[i])
        for i in kept.tolist()
    ]


def _shaped(rows: list[_Row], output: int, series_id: str, vintages: list[int]) -> list[dict[str, str]]:
    """Rows in the shape of the output type."""
    if output == _BY_PERIOD:
        return [_row(*row) for row in rows]
    if output == _FIRST_ONLY:
        first: dict[int, _Row] = {}
        for row in rows:
            first.setdefault(row[0], row)
        return [_row(*row) for row in first.values()]
    shaped: dict[int, dict[str, str]] = {}
    for day, start, end, value in rows:
        columns = shaped.setdefault(day, {"date": date_of(day).isoformat()})
        shown = [vintage for vintage in vintages if start <= vintage <= end]
        for vintage in shown if output == _ALL_BY_VINTAGE else shown[:1]:
            columns[f"{series_id}_{date_of(vintage):%Y%m%d}"] = value
    return list(shaped.values())


def _row(day: int, start: int, end: int, value: str) -> dict[str, str]:
    return {
        "realtime_start": date_of(start).isoformat(),
        "realtime_end": date_of(end).isoformat(),
        "date": date_of(day).isoformat(),
        "value": value,
    }


def _check_key(call: Call) -> None:
    key = call.query.get("api_key", "")
    if not key:
        raise FredError(f"Bad Request.  Variable api_key is not set.  {_KEY_HELP}")
    if not _KEY.fullmatch(key):
        raise FredError(
            "Bad Request.  The value for variable api_key is not a 32 character alpha-numeric lower-case "
            f"string.  {_KEY_HELP}"
        )


def _check_file_type(call: Call) -> None:
    if call.query.get("file_type", "xml") not in ("xml", "json"):
        raise FredError("Bad Request.  Bad value for variable file_type: the simulator has xml and json.")


def _realtime(call: Call, default: tuple[date, date] | None) -> tuple[date, date]:
    """The real-time period asked for; today (US Central) by default, and never later than it."""
    today = central_date(call.now_ms)
    start = _date(call, "realtime_start", default[0] if default else today)
    end = _date(call, "realtime_end", default[1] if default else today)
    for name, value in (("realtime_start", start), ("realtime_end", end)):
        if value > today and value != _LAST_REALTIME:
            raise FredError(
                f"Bad Request.  Variable {name} can not be after today's date ({today}), except 9999-12-31."
            )
    if start > end:
        raise FredError("Bad Request.  Variable realtime_start can not be after realtime_end.")
    return start, end


def _vintages_asked(call: Call) -> list[date]:
    text = call.query.get("vintage_dates", "")
    if not text:
        return []
    try:
        dates = sorted({date.fromisoformat(part) for part in text.split(",")})
    except ValueError:
        raise FredError("Bad Request.  Variable vintage_dates is not a list of YYYY-MM-DD dates.") from None
    if len(dates) > _MAX_VINTAGES:
        raise FredError(f"Bad Request.  This exceeds the maximum number of vintage dates allowed ({_MAX_VINTAGES}).")
    if dates[-1] > central_date(call.now_ms):
        raise FredError("Bad Request.  Variable vintage_dates can not be after today's date.")
    return dates


def _observation_bounds(call: Call) -> tuple[int, int]:
    first = _date(call, "observation_start", _FIRST_REALTIME)
    last = _date(call, "observation_end", _LAST_REALTIME)
    if first > last:
        raise FredError("Bad Request.  Variable observation_start can not be after observation_end.")
    return day_number(first), day_number(last)


def _date(call: Call, name: str, default: date) -> date:
    text = call.query.get(name, "")
    if not text:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FredError(
            f"Bad Request.  Variable {name} is not a YYYY-MM-DD formatted date (e.g. 2000-02-24)."
        ) from None


def _paging(call: Call, most: int) -> tuple[str, int, int]:
    order = call.query.get("sort_order", "asc")
    if order not in ("asc", "desc"):
        raise FredError("Bad Request.  Variable sort_order is not one of the values: 'asc', 'desc'.")
    limit = _whole(call, "limit", most)
    if not 1 <= limit <= most:
        raise FredError(f"Bad Request.  Variable limit is not between 1 and {most}.")
    return order, _whole(call, "offset", 0), limit


def _whole(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise FredError(f"Bad Request.  Variable {name} is not an integer.")
    return int(text)


def _failure(error: FredError, *, as_json: bool) -> Reply:
    if as_json:
        return json_reply({"error_code": error.status, "error_message": str(error)}, error.status)
    message = quoteattr(str(error))
    return Reply(f'{_XML_HEAD}\n<error code="{error.status}" message={message} />\n', error.status, "text/xml")


def _xml(element: str, body: JsonObject) -> str:
    """The XML form: scalars are attributes of the root, rows its children."""
    rows = next(value for value in body.values() if isinstance(value, list))
    head = _attributes({name: value for name, value in body.items() if not isinstance(value, list)})
    child = element[:-1]
    lines = [
        f"  <{child}>{escape(row)}</{child}>" if isinstance(row, str) else f"  <{child} {_attributes(row)}/>"
        for row in rows
    ]
    return "\n".join(['<?xml version="1.0" encoding="utf-8" ?>', f"<{element} {head}>", *lines, f"</{element}>\n"])


def _attributes(values: JsonObject) -> str:
    return " ".join(f"{name}={quoteattr(str(value))}" for name, value in values.items())
