"""FRED: vintages, clipping, the point in time of each value, errors, fredapi over our transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    UnauthorisedError,
    UnknownSymbolError,
)
from mts_dagster.sources.fred import (
    SERIES,
    Fred,
    add_business_days,
    first_needed,
    parse_document,
    parse_observations,
    point_in_time,
    publication_time,
    realtime_windows,
    stitch,
)

from .loopback import FakeTime, MakeSettings, ScriptedServer, Seen

KEY = "abcdef0123456789abcdef0123456789"
OpenClient = Callable[..., Fred]
Release = tuple[date, date, str]
"""Observation day, day on which the value appeared, value."""


def day(text: str) -> date:
    return date.fromisoformat(text)


class Archive:
    """ALFRED in small: releases of one series, clipped to the window asked for, at most ``cap`` vintages."""

    def __init__(self, releases: list[Release], *, cap: int = 2000) -> None:
        self.releases = sorted(releases)
        self.vintages = sorted({appeared for _, appeared, _ in releases})
        self.cap = cap

    def __call__(self, request: Seen) -> str:
        if request.path == "/series/vintagedates":
            dates = "".join(f"<vintage_date>{vintage}</vintage_date>" for vintage in self.vintages)
            return f'<vintage_dates count="{len(self.vintages)}">{dates}</vintage_dates>'
        query = {name: request.query[name] for name in ("observation_start", "observation_end")}
        first, last = (day(request.query[side]) for side in ("realtime_start", "realtime_end"))
        if sum(first <= vintage <= last for vintage in self.vintages) > self.cap:
            raise AssertionError("more vintages than FRED accepts")
        rows = [
            (about, max(appeared, first), value)
            for about, appeared, until, value in self._lifetimes()
            if day(query["observation_start"]) <= about <= day(query["observation_end"])
            and appeared <= last
            and until >= first
        ]
        body = "".join(
            f'<observation realtime_start="{at}" date="{about}" value="{value}"/>' for about, at, value in rows
        )
        return f'<observations count="{len(rows)}">{body}</observations>'

    def _lifetimes(self) -> Iterator[tuple[date, date, date, str]]:
        for about, appeared, value in self.releases:
            later = [other for same, other, _ in self.releases if same == about and other > appeared]
            yield about, appeared, min(later) - timedelta(days=1) if later else date.max, value


@pytest.fixture
def open_client(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> Iterator[OpenClient]:
    opened: list[Fred] = []

    def open_(archive: Archive | None = None, **overrides: object) -> Fred:
        if archive is not None:
            server.respond_text(archive)
        ours = make_settings(**({"fred_url": server.url, "fred_api_key": KEY, "http_retries": 1} | overrides))
        opened.append(Fred(ours, time_.clock))
        return opened[-1]

    yield open_
    for client in opened:
        client.close()


def stored(frame: pd.DataFrame) -> list[tuple[str, float | None, str, str]]:
    """Day, value, vintage day and quality of each row, as text that can be read."""
    days = frame["date"].dt.strftime("%Y-%m-%d")
    vintages = frame["vintage_date"].dt.strftime("%Y-%m-%d")
    values = [None if pd.isna(value) else float(value) for value in frame["value"]]
    return list(zip(days, values, vintages, frame["pit_quality"], strict=True))


def test_a_value_and_its_revision_are_two_rows(open_client: OpenClient) -> None:
    """First 18.5 the next day, then 18.7 a week later; each from its own day on, 17:00 in Chicago."""
    about = day("2026-03-03")
    archive = Archive(
        [
            (day("2026-03-02"), day("2026-03-03"), "17"),
            (about, day("2026-03-04"), "18.5"),
            (about, day("2026-03-11"), "18.7"),
        ]
    )
    frame = open_client(archive).observations("VIXCLS", about, about + timedelta(days=1))
    assert stored(frame) == [
        ("2026-03-03", 18.5, "2026-03-04", "vintage"),
        ("2026-03-03", 18.7, "2026-03-11", "vintage"),
    ]
    assert frame["available_at"].tolist() == [
        datetime(2026, 3, 4, 23, tzinfo=UTC),  # standard time, UTC-6
        datetime(2026, 3, 11, 22, tzinfo=UTC),  # daylight time since 2026-03-08, UTC-5
    ]


def test_what_came_with_the_archive_gets_the_assumed_lag(open_client: OpenClient) -> None:
    """ALFRED began on 2026-03-04: Monday's and Tuesday's older values have no usable vintage, later ones do."""
    began = day("2026-03-04")
    archive = Archive(
        [
            (day("2026-02-27"), began, "15"),
            (day("2026-03-02"), began, "16"),
            (day("2026-03-03"), began, "17"),
            (day("2026-03-04"), day("2026-03-05"), "18"),
        ]
    )
    frame = open_client(archive).observations("VIXCLS", day("2026-02-27"), day("2026-03-05"))
    assert stored(frame) == [
        ("2026-02-27", 15.0, "2026-03-02", "assumed_lag"),  # Friday, one business day: Monday
        ("2026-03-02", 16.0, "2026-03-03", "assumed_lag"),
        ("2026-03-03", 17.0, "2026-03-04", "vintage"),  # the archive began no later than it was due
        ("2026-03-04", 18.0, "2026-03-05", "vintage"),
    ]


def test_a_revision_of_an_archived_value_keeps_its_vintage(open_client: OpenClient) -> None:
    """Only the first value of a day is assumed; what replaced it has a real vintage."""
    about, began, revised = day("2026-01-05"), day("2026-03-04"), day("2026-03-20")
    frame = open_client(Archive([(about, began, "15"), (about, revised, "15.5")])).observations(
        "VIXCLS", about, about + timedelta(days=1)
    )
    assert stored(frame) == [
        ("2026-01-05", 15.0, "2026-01-06", "assumed_lag"),
        ("2026-01-05", 15.5, "2026-03-20", "vintage"),
    ]


def test_the_lag_of_a_series_is_a_setting(open_client: OpenClient) -> None:
    """DTWEXBGS appears six business days later; a series without an entry gets the cautious default, 32."""
    about, began = day("2025-06-02"), day("2026-03-04")
    client = open_client(Archive([(about, began, "120")]))
    due = {name: stored(client.observations(name, about, began))[0][2] for name in ("VIXCLS", "DTWEXBGS", "OTHER")}
    assert due == {"VIXCLS": "2025-06-03", "DTWEXBGS": "2025-06-10", "OTHER": "2025-07-18"}


def test_the_missing_value_is_a_null_row(open_client: OpenClient) -> None:
    """A holiday's '.' is kept: known to be missing is not the same as not known."""
    about = day("2026-01-01")
    archive = Archive([(day("2025-12-31"), day("2025-12-31"), "1"), (about, day("2026-01-02"), ".")])
    frame = open_client(archive).observations("VIXCLS", about, about + timedelta(days=1))
    assert stored(frame) == [("2026-01-01", None, "2026-01-02", "vintage")]


def test_a_clipped_start_is_not_taken_for_a_vintage(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """With requests of two vintages, what was valid when a window begins is the old value, not a new one."""
    monkeypatch.setattr("mts_dagster.sources.fred.VINTAGES_PER_REQUEST", 2)
    days = [day("2026-03-02") + timedelta(days=at) for at in range(4)]
    releases = [(about, about + timedelta(days=1), f"1{at}") for at, about in enumerate(days)]
    releases.append((days[0], day("2026-03-10"), "10.5"))
    archive = Archive(releases, cap=2)
    frame = open_client(archive).observations("VIXCLS", days[0], days[-1] + timedelta(days=1))
    assert stored(frame) == [
        ("2026-03-02", 10.0, "2026-03-03", "vintage"),
        ("2026-03-02", 10.5, "2026-03-10", "vintage"),
        ("2026-03-03", 11.0, "2026-03-04", "vintage"),
        ("2026-03-04", 12.0, "2026-03-05", "vintage"),
        ("2026-03-05", 13.0, "2026-03-06", "vintage"),
    ]


def test_a_recent_window_asks_for_recent_vintages_only(server: ScriptedServer, open_client: OpenClient) -> None:
    """Ten years of vintages are not asked for to refresh a day; the answer is the same."""
    days = [day("2026-03-02") + timedelta(days=at) for at in range(10)]
    archive = Archive([(about, about + timedelta(days=1), str(at)) for at, about in enumerate(days)])
    frame = open_client(archive).observations("VIXCLS", days[8], days[9])
    assert stored(frame) == [("2026-03-10", 8.0, "2026-03-11", "vintage")]
    assert server.seen[-1].query["realtime_start"] == "2026-03-09"


def test_a_projection_keeps_its_first_vintage(server: ScriptedServer, open_client: OpenClient) -> None:
    """A value for March that was published in January: known since January, not since the window's start."""
    vintages = [day("2026-01-10"), day("2026-02-10"), day("2026-03-10")]
    archive = Archive([(day("2026-03-15"), vintages[0], "2.0")] + [(vintage, vintage, "1") for vintage in vintages[1:]])
    frame = open_client(archive).observations("FEDTARMD", day("2026-03-15"), day("2026-03-16"))
    assert stored(frame) == [("2026-03-15", 2.0, "2026-01-10", "vintage")]


def test_a_series_without_vintages_gets_the_assumed_lag(server: ScriptedServer, open_client: OpenClient) -> None:
    """FRED without ALFRED answers as of its own today: every older value is assumed."""
    server.answer(
        '<error code="400" message="Bad Request. The series does not exist in ALFRED but may exist in FRED."/>',
        400,
    )
    row = '<observation realtime_start="2026-11-20" date="2025-06-02" value="5"/>'
    server.answer(f'<observations count="1">{row}</observations>')
    frame = open_client().observations("VIXCLS", day("2025-06-02"), day("2025-06-03"))
    assert stored(frame) == [("2025-06-02", 5.0, "2025-06-03", "assumed_lag")]
    assert "realtime_start" not in server.seen[1].query


def test_no_observation_makes_an_empty_frame(open_client: OpenClient) -> None:
    """A weekend has no rows, and no error."""
    archive = Archive([(day("2026-03-06"), day("2026-03-09"), "1")])
    assert open_client(archive).observations("VIXCLS", day("2026-03-07"), day("2026-03-09")).empty


def test_long_answers_are_paged(server: ScriptedServer, open_client: OpenClient) -> None:
    """150,000 rows do not fit one answer; the second page is asked for with an offset."""

    def reply(request: Seen) -> str:
        if request.path == "/series/vintagedates":
            return '<vintage_dates count="1"><vintage_date>2026-03-04</vintage_date></vintage_dates>'
        about = "2026-03-03" if request.query["offset"] == "0" else "2026-03-04"
        return (
            '<observations count="150000">'
            f'<observation realtime_start="2026-03-04" date="{about}" value="1"/></observations>'
        )

    server.respond_text(reply)
    frame = open_client().observations("VIXCLS", day("2026-03-03"), day("2026-03-05"))
    assert [row[0] for row in stored(frame)] == ["2026-03-03", "2026-03-04"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_windows_of_any_size_give_the_same_releases(data: st.DataObject) -> None:
    """However the real-time axis is cut, the stitched releases are those of one uncut request."""
    start = day("2026-01-01")
    offsets = st.integers(0, 40)
    releases: dict[tuple[date, date], str] = {}
    for about in data.draw(st.lists(offsets, min_size=1, max_size=6, unique=True)):
        before = None
        for appeared in sorted(data.draw(st.lists(offsets, min_size=1, max_size=5, unique=True))):
            value = data.draw(st.sampled_from([choice for choice in ("1", "2", ".") if choice != before]))
            releases[start + timedelta(days=about), start + timedelta(days=appeared)] = before = value
    archive = Archive([(about, appeared, value) for (about, appeared), value in releases.items()])
    window = {"observation_start": "2026-01-01", "observation_end": "2026-12-31"}

    def ask(first: date, last: date) -> pd.DataFrame:
        query = window | {"realtime_start": str(first), "realtime_end": str(last)}
        document = parse_document(archive(Seen("/series/observations", query, {})).encode())
        return parse_observations(document)  # type: ignore[arg-type]

    whole = stitch([ask(first, last) for first, last in realtime_windows(archive.vintages, 1000)])
    cut = stitch([ask(first, last) for first, last in realtime_windows(archive.vintages, data.draw(st.integers(1, 5)))])
    pd.testing.assert_frame_equal(cut, whole)
    assert len(whole) == len(releases)


def test_real_time_windows_touch_and_end_with_the_newest_vintage() -> None:
    """Five vintages in twos; the last window does not reach into a day that has no vintage yet."""
    vintages = [day(f"2026-01-{at:02}") for at in (1, 3, 10, 12, 20)]
    assert realtime_windows(vintages, 2) == [
        (day("2026-01-01"), day("2026-01-09")),
        (day("2026-01-10"), day("2026-01-19")),
        (day("2026-01-20"), day("2026-01-20")),
    ]
    assert realtime_windows([], 2) == []


def test_first_needed_is_the_last_vintage_before() -> None:
    """A vintage on the first day itself can already hold it."""
    vintages = [day(f"2026-01-{at:02}") for at in (1, 3, 10)]
    assert [first_needed(vintages, day(f"2026-01-{at:02}")) for at in (1, 2, 3, 4, 11)] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("about", "count", "expected"),
    [
        ("2026-03-04", 1, "2026-03-05"),
        ("2026-03-06", 1, "2026-03-09"),  # Friday to Monday
        ("2026-03-07", 1, "2026-03-09"),  # Saturday counts as Friday
        ("2024-07-03", 1, "2024-07-05"),  # over Independence Day
        ("2026-01-16", 1, "2026-01-20"),  # over a weekend and Martin Luther King's day
        ("2026-03-02", 6, "2026-03-10"),
        ("2026-03-04", 0, "2026-03-04"),
        ("2026-03-07", 0, "2026-03-09"),  # never before the day itself
    ],
)
def test_business_days_are_those_of_the_government(about: str, count: int, expected: str) -> None:
    """Weekends and federal holidays publish nothing."""
    (shifted,) = add_business_days(pd.Series([pd.Timestamp(about)]), count)
    assert shifted == pd.Timestamp(expected)


@settings(max_examples=40, deadline=None)
@given(st.dates(day("1990-01-01"), day("2030-12-31")), st.integers(0, 60))
def test_a_lag_never_leads_into_the_past(about: date, count: int) -> None:
    """Whatever the day and the lag, nothing is known before its day."""
    (shifted,) = add_business_days(pd.Series([pd.Timestamp(about)]), count)
    assert shifted >= pd.Timestamp(about)


@pytest.mark.parametrize(
    ("when", "hour", "expected"),
    [
        ("2026-01-15", 17, "2026-01-15T23:00:00+00:00"),
        ("2026-07-15", 17, "2026-07-15T22:00:00+00:00"),
        ("2026-03-08", 2, "2026-03-08T08:00:00+00:00"),  # 02:00 does not exist that day: 03:00 daylight time
        ("2026-11-01", 1, "2026-11-01T07:00:00+00:00"),  # 01:00 happens twice: the second one
    ],
)
def test_publication_in_chicago(when: str, hour: int, expected: str) -> None:
    """Standard and daylight time, and the two days between."""
    (moment,) = publication_time(pd.Series([pd.Timestamp(when)]), hour)
    assert moment == pd.Timestamp(expected)


def test_point_in_time_is_pure() -> None:
    """The frame that came in is not changed."""
    releases = pd.DataFrame(
        {
            "date": pd.to_datetime(["2026-03-03"]),
            "realtime_start": pd.to_datetime(["2026-03-20"]),
            "value": [1.0],
        }
    )
    before = releases.copy()
    point_in_time(releases, indicator="DFF", first_vintage=day("2026-03-20"), lag_business_days=1, publication_hour=17)
    pd.testing.assert_frame_equal(releases, before)


def test_no_key_says_how_to_get_one(make_settings: MakeSettings) -> None:
    """Before any request: where a key is free, and which setting takes it."""
    with pytest.raises(UnauthorisedError, match=r"fredaccount\.stlouisfed\.org/apikeys.*MTS_FRED_API_KEY"):
        Fred(make_settings())


def test_recorded_rejection_of_the_key(server: ScriptedServer, open_client: OpenClient, recordings: Path) -> None:
    """The recorded 400 about the key is a matter of the setting, and never repeats the key."""
    lines = [json.loads(line) for line in (recordings / "rest/error_bodies.jsonl").read_text().splitlines()]
    recorded = next(line for line in lines if line["service"] == "fred")
    server.answer(recorded["body"], recorded["http_status"])
    with pytest.raises(UnauthorisedError, match="MTS_FRED_API_KEY") as caught:
        open_client().vintage_dates("VIXCLS")
    assert KEY not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '<error code="400" message="Bad Request.  The series does not exist."/>', UnknownSymbolError),
        (400, '{"error_code":400,"error_message":"Bad Request.  The series does not exist."}', UnknownSymbolError),
        (
            400,
            '<error code="400" message="Bad Request. Variable realtime_end can not be after today."/>',
            BadRequestError,
        ),
        (400, '<error code="400" message="api_key is not registered"/>', UnauthorisedError),
        (500, '<error code="500" message="Internal Server Error"/>', SourceUnavailableError),
        (502, "<html><body>Bad Gateway</body></html>", SourceUnavailableError),
        (200, "<html><body>maintenance</body></html>", BadContentError),
        (200, "<observations", BadContentError),
        (200, "{}", BadContentError),
        (200, "", BadContentError),
    ],
)
def test_errors(
    server: ScriptedServer, open_client: OpenClient, status: int, body: str, kind: type[SourceError]
) -> None:
    """XML, JSON, web pages and torn bodies: each is the error that a user would act on."""
    server.answer(body, status)
    with pytest.raises(kind) as caught:
        open_client().vintage_dates("VIXCLS")
    assert type(caught.value) is kind


def test_a_limit_without_a_time_waits_twenty_seconds(
    server: ScriptedServer, open_client: OpenClient, time_: FakeTime
) -> None:
    """FRED names no time in its 429."""
    server.answer('<error code="429" message="Too Many Requests. Exceeded Rate Limit"/>', 429)
    with pytest.raises(RateLimitedError):
        open_client(http_retries=2).vintage_dates("VIXCLS")
    assert [slept for slept in time_.slept if slept > 1] == [20.0, 20.0]


def test_fredapi_works_over_our_transport(server: ScriptedServer, open_client: OpenClient) -> None:
    """Its own methods get our budget, our key handling and our errors."""
    server.answer('<observations count="1"><observation date="2026-03-03" value="18.5"/></observations>')
    series = open_client().get_series("VIXCLS", observation_start="2026-03-01", units="lin")
    assert series.to_dict() == {pd.Timestamp("2026-03-03"): 18.5}
    assert server.seen[0].query == {
        "series_id": "VIXCLS",
        "observation_start": "2026-03-01",
        "units": "lin",
        "api_key": KEY,
    }


def test_recorded_values_are_read(recordings: Path) -> None:
    """The 45 recorded observations of DGS10 in XML: three holidays are null, the first is 4.19."""
    recorded = json.loads((recordings / "rest/fred_series_observations_DGS10_excerpt_20260919.json").read_text())
    rows = "".join(
        f'<observation realtime_start="{row["realtime_start"]}" date="{row["date"]}" value="{row["value"]}"/>'
        for row in recorded["observations"]
    )
    frame = parse_observations(parse_document(f"<observations>{rows}</observations>".encode()))  # type: ignore[arg-type]
    missing = frame.loc[frame["value"].isna(), "date"].dt.strftime("%Y-%m-%d").tolist()
    assert (len(frame), frame["value"].iloc[0]) == (45, 4.19)
    assert missing == ["2024-12-25", "2025-01-01", "2025-01-20"]


def test_the_dollar_index_is_labelled_as_what_it_is() -> None:
    """DTWEXBGS is not the DXY."""
    assert "not ICE DXY" in SERIES["DTWEXBGS"].title
    assert set(SERIES) == {"VIXCLS", "DTWEXBGS", "DGS10", "DFF"}
