"""FRED: publication, vintages, real-time periods, shapes, errors, and the ``fredapi`` library."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import fredapi
import numpy as np
import pytest

from mts_simulator.clock import date_of, day_number, to_ms
from mts_simulator.fred import Fred
from mts_simulator.macro import Releases, SeededMacro, Series

from .conftest import KEY, NOW, NOW_MS, JsonValue, ask, ask_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mts_simulator import Simulator
    from mts_simulator.market import Market

OBSERVATIONS = "/series/observations"
TODAY = NOW.date().isoformat()
FOREVER = "9999-12-31"


class ThreeVintages:
    """One series, three observations; the first was revised on 2024-01-10, the third is of today."""

    def series(self) -> Mapping[str, Series]:
        return {"TEST": Series("TEST", "A test", "Percent")}

    def releases(self, series_id: str, now_ms: int) -> Releases:  # noqa: ARG002  the protocol's
        days = ["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-03"]
        vintages = ["2024-01-05", "2024-01-10", "2024-01-08", "2026-06-16"]
        return Releases(
            day=np.array([day_number(date.fromisoformat(day)) for day in days]),
            vintage=np.array([day_number(date.fromisoformat(day)) for day in vintages]),
            released_ms=np.zeros(4, dtype=np.int64),
            value=["1.0", "1.5", ".", "3.0"],
        )


@pytest.fixture(scope="module")
def fred(market: Market) -> Fred:
    return Fred(SeededMacro(market.world))


@pytest.fixture
def small() -> Fred:
    return Fred(ThreeVintages())


def observations(fred: Fred, series_id: str, *, now_ms: int = NOW_MS, **query: JsonValue) -> list[dict[str, str]]:
    body = ask_json(fred, OBSERVATIONS, now_ms=now_ms, series_id=series_id, api_key=KEY, file_type="json", **query)
    rows: list[dict[str, str]] = body["observations"]
    return rows


def spans(rows: list[dict[str, str]]) -> list[tuple[str, str, str, str]]:
    return [(row["date"], row["realtime_start"], row["realtime_end"], row["value"]) for row in rows]


def error_of(fred: Fred, path: str = OBSERVATIONS, **query: JsonValue) -> str:
    reply = ask(fred, path, file_type="json", **query)
    assert reply.status == 400
    body = json.loads(reply.body)
    assert body["error_code"] == 400
    message: str = body["error_message"]
    return message


def test_without_bounds_every_row_is_of_today(small: Fred) -> None:
    """No real-time bounds: the newest value of each date, as of today."""
    assert spans(observations(small, "TEST")) == [
        ("2024-01-01", TODAY, TODAY, "1.5"),
        ("2024-01-02", TODAY, TODAY, "."),
        ("2024-01-03", TODAY, TODAY, "3.0"),
    ]


def test_a_whole_real_time_period_shows_every_value_with_its_bounds(small: Fred) -> None:
    """One row for each date and real-time start; open ends are 9999-12-31."""
    rows = observations(small, "TEST", realtime_start="1776-07-04", realtime_end=FOREVER)
    assert spans(rows) == [
        ("2024-01-01", "2024-01-05", "2024-01-09", "1.0"),
        ("2024-01-01", "2024-01-10", FOREVER, "1.5"),
        ("2024-01-02", "2024-01-08", FOREVER, "."),
        ("2024-01-03", "2026-06-16", FOREVER, "3.0"),
    ]


def test_row_bounds_are_clipped_to_the_period_asked_for(small: Fred) -> None:
    """A value known before the period begins with the period."""
    rows = observations(small, "TEST", realtime_start="2024-01-07", realtime_end="2024-01-20")
    assert spans(rows) == [
        ("2024-01-01", "2024-01-07", "2024-01-09", "1.0"),
        ("2024-01-01", "2024-01-10", "2024-01-20", "1.5"),
        ("2024-01-02", "2024-01-08", "2024-01-20", "."),
    ]


def test_one_past_day_shows_what_was_known_then(small: Fred) -> None:
    """With both bounds on one day the revision of the day after is not there."""
    rows = observations(small, "TEST", realtime_start="2024-01-09", realtime_end="2024-01-09")
    assert [(row["date"], row["value"]) for row in rows] == [("2024-01-01", "1.0"), ("2024-01-02", ".")]


def test_the_singular_vintage_date_is_ignored(small: Fred) -> None:
    """``vintage_date`` changes nothing; ``vintage_dates`` does."""
    assert observations(small, "TEST", vintage_date="2024-01-09") == observations(small, "TEST")
    rows = observations(small, "TEST", vintage_dates="2024-01-06")
    assert spans(rows) == [("2024-01-01", "2024-01-06", "2024-01-06", "1.0")]


def test_several_vintage_dates_are_the_period_between_them(small: Fred) -> None:
    """The first and the last vintage date bound the real-time period."""
    rows = observations(small, "TEST", vintage_dates="2024-01-12,2024-01-06")
    assert spans(rows) == [
        ("2024-01-01", "2024-01-06", "2024-01-09", "1.0"),
        ("2024-01-01", "2024-01-10", "2024-01-12", "1.5"),
        ("2024-01-02", "2024-01-08", "2024-01-12", "."),
    ]


@pytest.mark.parametrize(
    ("output_type", "first"),
    [
        (2, {"date": "2024-01-01", "TEST_20240105": "1.0", "TEST_20240108": "1.0", "TEST_20240110": "1.5"}),
        (3, {"date": "2024-01-01", "TEST_20240105": "1.0", "TEST_20240110": "1.5"}),
        (
            4,
            {
                "realtime_start": "2024-01-05",
                "realtime_end": "2024-01-09",
                "date": "2024-01-01",
                "value": "1.0",
            },
        ),
    ],
)
def test_output_types(small: Fred, output_type: int, first: dict[str, str]) -> None:
    """2: a column for each vintage; 3: only what changed; 4: first releases only."""
    rows = observations(small, "TEST", realtime_start="2024-01-01", realtime_end="2024-01-31", output_type=output_type)
    assert rows[0] == first
    assert len(rows) == 2


def test_paging_and_order(small: Fred) -> None:
    """``limit`` and ``offset`` cut the sorted list; ``count`` stays the whole."""
    body = ask_json(
        small,
        OBSERVATIONS,
        series_id="TEST",
        api_key=KEY,
        file_type="json",
        sort_order="desc",
        limit=1,
        offset=1,
    )
    assert [row["date"] for row in body["observations"]] == ["2024-01-02"]
    assert (body["count"], body["limit"], body["offset"]) == (3, 1, 1)


def test_the_head_of_an_answer_is_that_of_the_recorded_one(small: Fred) -> None:
    """Member names and their order are those of the recorded answer."""
    body = ask_json(small, OBSERVATIONS, series_id="TEST", api_key=KEY, file_type="json")
    assert list(body) == [
        "realtime_start", "realtime_end", "observation_start", "observation_end", "units", "output_type",
        "file_type", "order_by", "sort_order", "count", "offset", "limit", "observations",
    ]  # fmt: skip


def test_xml_is_the_default(small: Fred) -> None:
    """Without ``file_type`` the answer is XML with attributes."""
    reply = ask(small, OBSERVATIONS, series_id="TEST", api_key=KEY)
    root = ET.fromstring(reply.body)  # noqa: S314  our own server's answer
    assert reply.content_type == "text/xml"
    assert root.tag == "observations"
    assert root.get("count") == "3"
    assert root[0].attrib == {
        "realtime_start": TODAY,
        "realtime_end": TODAY,
        "date": "2024-01-01",
        "value": "1.5",
    }


def test_errors_come_in_xml_too(small: Fred) -> None:
    """An error in XML is an ``error`` element with code and message."""
    reply = ask(small, OBSERVATIONS, series_id="NONE", api_key=KEY)
    root = ET.fromstring(reply.body)  # noqa: S314  our own server's answer
    assert reply.status == 400
    assert (root.tag, root.get("code")) == ("error", "400")
    assert root.get("message") == "Bad Request.  The series does not exist."


def test_a_key_of_the_wrong_form_is_refused_as_recorded(small: Fred, request: pytest.FixtureRequest) -> None:
    """The message equals the recorded one."""
    folder = request.getfixturevalue("shared_data")
    lines = [json.loads(line) for line in (folder / "rest" / "error_bodies.jsonl").read_text().splitlines()]
    recorded = next(json.loads(line["body"]) for line in lines if line["service"] == "fred")
    assert error_of(small, series_id="TEST", api_key="short") == recorded["error_message"]


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"api_key": ""}, "api_key is not set"),
        ({"api_key": KEY.upper()}, "32 character"),
        ({"realtime_end": "2026-06-17"}, "after today's date"),
        ({"realtime_start": "2026-06-17", "realtime_end": FOREVER}, "after today's date"),
        ({"realtime_start": "2026-06-02", "realtime_end": "2026-06-01"}, "after realtime_end"),
        ({"observation_start": "yesterday"}, "YYYY-MM-DD"),
        ({"limit": 100_001}, "between 1 and 100000"),
        ({"output_type": 5}, "output_type"),
        ({"units": "pch"}, "units"),
        ({"vintage_dates": "2026-06-17"}, "after today's date"),
    ],
)
def test_bad_requests(small: Fred, query: dict[str, Any], part: str) -> None:
    """Each wrong variable is a 400 that names it."""
    assert part in error_of(small, **{"series_id": "TEST", "api_key": KEY, **query})


def test_today_is_a_us_central_day(fred: Fred) -> None:
    """At 03:00 UTC it is still yesterday in St. Louis, and today's UTC date is in the future."""
    early = to_ms(datetime(2026, 6, 16, 3, tzinfo=UTC))
    rows = observations(fred, "VIXCLS", now_ms=early)
    assert rows[-1]["realtime_start"] == "2026-06-15"
    reply = ask(fred, OBSERVATIONS, now_ms=early, series_id="VIXCLS", api_key=KEY, realtime_end="2026-06-16")
    assert reply.status == 400


def test_more_than_2000_vintages_are_refused(fred: Fred) -> None:
    """A daily series since 2017 has more vintages than one request may cover."""
    message = error_of(fred, series_id="VIXCLS", api_key=KEY, realtime_start="1776-07-04", realtime_end=FOREVER)
    assert "This exceeds the maximum number of vintage dates allowed (2000)." in message


def test_daily_values_appear_on_the_next_business_day(fred: Fred) -> None:
    """Friday's VIX has Monday as its vintage; a weekend has no VIX."""
    rows = observations(
        fred,
        "VIXCLS",
        realtime_start="2026-01-01",
        realtime_end=TODAY,
        observation_start="2026-06-08",
        output_type=4,
    )
    assert [(row["date"], row["realtime_start"]) for row in rows] == [
        ("2026-06-08", "2026-06-09"),
        ("2026-06-09", "2026-06-10"),
        ("2026-06-10", "2026-06-11"),
        ("2026-06-11", "2026-06-12"),
        ("2026-06-12", "2026-06-15"),
    ]


def test_a_value_is_not_there_before_its_hour(fred: Fred) -> None:
    """Monday's VIX comes at 8 in the morning US Central on Tuesday, not at midnight."""
    before = observations(fred, "VIXCLS", now_ms=to_ms(datetime(2026, 6, 16, 12, 59, tzinfo=UTC)))
    after = observations(fred, "VIXCLS", now_ms=to_ms(datetime(2026, 6, 16, 13, 0, tzinfo=UTC)))
    assert (before[-1]["date"], after[-1]["date"]) == ("2026-06-12", "2026-06-15")


def test_the_dollar_index_comes_a_week_at_a_time(fred: Fred) -> None:
    """All days of a week share the vintage of the next Monday."""
    rows = observations(
        fred, "DTWEXBGS", realtime_start="2026-05-01", realtime_end=TODAY,
        observation_start="2026-06-01", observation_end="2026-06-07", output_type=4,
    )  # fmt: skip
    assert [row["realtime_start"] for row in rows] == ["2026-06-08"] * 5


def test_the_funds_rate_has_seven_days_a_week(fred: Fred) -> None:
    """DFF has a value on Saturdays and Sundays, published on Monday."""
    rows = observations(
        fred, "DFF", realtime_start="2026-05-01", realtime_end=TODAY,
        observation_start="2026-06-05", observation_end="2026-06-08", output_type=4,
    )  # fmt: skip
    assert [(row["date"], row["realtime_start"]) for row in rows] == [
        ("2026-06-05", "2026-06-08"),
        ("2026-06-06", "2026-06-08"),
        ("2026-06-07", "2026-06-08"),
        ("2026-06-08", "2026-06-09"),
    ]


@pytest.mark.parametrize(("series_id", "closed"), [("VIXCLS", False), ("DGS10", True), ("DTWEXBGS", True)])
def test_holidays_differ_by_series(fred: Fred, series_id: str, closed: bool) -> None:
    """On 2024-07-04 the VIX has a value, yields and the dollar index have a point."""
    (row,) = observations(fred, series_id, observation_start="2024-07-04", observation_end="2024-07-04")
    assert (row["value"] == ".") == closed


def test_some_values_are_revised(fred: Fred) -> None:
    """A revised value shows its first release until the day before the revision."""
    rows = observations(
        fred, "DTWEXBGS", realtime_start="2025-01-01", realtime_end=FOREVER, observation_start="2025-01-06"
    )
    by_date: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_date.setdefault(row["date"], []).append(row)
    revised = [both for both in by_date.values() if len(both) == 2]
    assert 10 < len(revised) < 100
    for first, second in revised:
        gap = date.fromisoformat(second["realtime_start"]) - date.fromisoformat(first["realtime_end"])
        assert gap.days == 1
        assert first["value"] != second["value"]


def test_history_as_known_then_is_a_prefix_of_what_is_known_now(fred: Fred) -> None:
    """Asking as of a past day equals asking on that day."""
    then = to_ms(datetime(2026, 3, 10, 23, tzinfo=UTC))
    on_the_day = observations(fred, "DGS10", now_ms=then)
    later = observations(fred, "DGS10", realtime_start="2026-03-10", realtime_end="2026-03-10")
    assert spans(on_the_day) == spans(later)


def test_vintage_dates_are_listed(small: Fred) -> None:
    """All vintages by default, from the first real-time day to the last."""
    body = ask_json(small, "/series/vintagedates", series_id="TEST", api_key=KEY, file_type="json")
    assert body["vintage_dates"] == ["2024-01-05", "2024-01-08", "2024-01-10", "2026-06-16"]
    assert (body["realtime_start"], body["realtime_end"]) == ("1776-07-04", FOREVER)


def test_fredapi_reads_the_simulator(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library works with nothing but its root address changed."""
    monkeypatch.setattr(fredapi.Fred, "root_url", simulator.urls["fred"])
    library: Any = fredapi.Fred(api_key=KEY)
    series = library.get_series("VIXCLS", observation_start="2026-06-01")
    assert len(series) == 10
    assert series.between(9, 85).all()
    releases = library.get_series_all_releases("DTWEXBGS", "2026-05-01", "2026-06-15")
    assert set(releases.columns) == {"realtime_start", "date", "value"}
    vintages = library.get_series_vintage_dates("DTWEXBGS")
    assert vintages[-1].date() == date_of(day_number(date(2026, 6, 15)))
    assert library.get_series_info("VIXCLS")["title"] == "CBOE Volatility Index: VIX"
    with pytest.raises(ValueError, match="The series does not exist"):
        library.get_series("NOSUCH")
