"""Days as a person says them, and how arguments of the command line become them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from mts_dagster.arguments import parse_day, repeat_lists, split_list
from mts_dagster.cli import parse_days
from mts_dagster.errors import UsageError
from mts_dagster.runs import Days, range_tags

TODAY = datetime.now(UTC).date()


def test_days_include_both_ends() -> None:
    """A leap February has 29 days, and its keys are its first and last day."""
    days = Days(date(2024, 2, 1), date(2024, 2, 29))
    assert (len(days), days.keys, str(days)) == (29, ("2024-02-01", "2024-02-29"), "2024-02-01 to 2024-02-29")


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (date(2024, 1, 2), date(2024, 1, 1), "the start 2024-01-02 lies after the end 2024-01-01"),
        (date(1999, 1, 1), date(2024, 1, 1), "1999-01-01 lies before the first partition 2021-01-01.*HISTORY_START"),
        (date(2024, 1, 1), date(2124, 1, 1), "2124-01-01 lies in the future; the newest partition is"),
    ],
)
def test_impossible_days_are_refused(first: date, last: date, told: str) -> None:
    """Dagster would make them an empty run, which looks like success."""
    with pytest.raises(UsageError, match=told):
        Days(first, last)


def test_range_tags_are_those_that_dagster_reads() -> None:
    """The public names of a range run."""
    assert range_tags("a", "b") == {
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "b",
    }


def test_the_last_days_include_today() -> None:
    """``--days 1`` is today, ``--days 3`` begins the day before yesterday."""
    assert parse_days(1, None, None) == Days(TODAY, TODAY)
    assert parse_days(3, None, None) == Days(TODAY - timedelta(days=2), TODAY)


def test_thirty_days_by_default() -> None:
    """Nothing given."""
    assert len(parse_days(None, None, None)) == 30


def test_a_start_alone_goes_up_to_today() -> None:
    """The end defaults to today."""
    assert parse_days(None, "2024-01-01", None) == Days(date(2024, 1, 1), TODAY)


def test_an_end_alone_has_thirty_days_before_it() -> None:
    """31 January back to 2 January."""
    assert parse_days(None, None, "2024-01-31") == Days(date(2024, 1, 2), date(2024, 1, 31))


def test_days_and_bounds_exclude_each_other() -> None:
    """Which of them counts would be a guess."""
    with pytest.raises(UsageError, match="either --days or --start and --end"):
        parse_days(3, "2024-01-01", None)


@pytest.mark.parametrize("text", ["yesterday", "2024-02-30", "01.02.2024", "2024-1-1T00:00", ""])
def test_what_is_no_day_names_option_and_form(text: str) -> None:
    """The message shows an example."""
    with pytest.raises(UsageError, match=r"--end '.*' is not a day; write it as YYYY-MM-DD"):
        parse_day("--end", text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (["bitcoin,ethereum"], ["bitcoin", "ethereum"]),
        (["bitcoin", " ethereum , "], ["bitcoin", "ethereum"]),
        (["VIXCLS"], ["VIXCLS"]),
    ],
)
def test_lists_are_comma_separated_or_repeated(given: list[str] | None, expected: list[str] | None) -> None:
    """Both forms of an option that takes several values."""
    assert split_list(given) == expected


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("collect --coins bitcoin ethereum --days 3", "collect --coins bitcoin --coins ethereum --days 3"),
        ("collect --coins bitcoin,ethereum", "collect --coins bitcoin,ethereum"),
        ("collect --days 3 --coins bitcoin", "collect --days 3 --coins bitcoin"),
        ("collect-macro --indicators VIXCLS DFF", "collect-macro --indicators VIXCLS --indicators DFF"),
        ("sql --json query", "sql --json query"),
    ],
)
def test_several_values_may_follow_a_list_option(typed: str, read: str) -> None:
    """Blanks between values mean what repeating the option means; other options keep their one value."""
    assert repeat_lists(typed.split()) == read.split()
