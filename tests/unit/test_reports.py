"""What people and programs are shown: numbers, times, long answers, repeated names."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

import mts_dagster.definitions  # noqa: F401 - registers the contracts of all tables
from mts_dagster.defs.resources import prepare_lake
from mts_dagster.defs.sql_models.assets import project_of
from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.reports import (
    _distinct,
    _plain,
    _shown,
    print_backtests,
    print_opportunities,
    print_rows,
    print_signals,
)
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings, load_settings


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with all tables of Python, and no row."""
    settings = load_settings(home=tmp_path_factory.mktemp("empty") / "home")
    prepare_lake(settings, project_of(settings), TABLES | LIVE_TABLES)
    return settings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (1234567, "1,234,567"),
        (True, "True"),
        (0.123456789, "0.123457"),
        (67123.5, "67,123.5"),
        (1234567.8, "1,234,568"),
        (-2.5e9, "-2,500,000,000"),
        (datetime(2024, 1, 31, 12, 5, 6, 789, tzinfo=UTC), "2024-01-31 12:05:06"),
        (date(2024, 1, 31), "2024-01-31"),
        ("text", "text"),
    ],
)
def test_a_value_reads_well(value: object, text: str) -> None:
    """Thousands apart, six digits of a price, seconds of a time, a dash for nothing."""
    assert _shown(value) == text


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (Decimal("1.50"), 1.5),
        (Decimal("NaN"), None),
        (datetime(2024, 1, 31, tzinfo=UTC), "2024-01-31T00:00:00+00:00"),
        ([1, (float("inf"), "x")], [1, [None, "x"]]),
        ({1: {"a": date(2024, 1, 31)}}, {"1": {"a": "2024-01-31"}}),
        (b"\x01", "b'\\x01'"),
        (None, None),
        (True, True),
    ],
)
def test_every_value_has_a_form_in_json(value: object, plain: object) -> None:
    """Nested ones too, and none that a strict parser refuses."""
    assert _plain(value) == plain
    json.dumps(_plain(value), allow_nan=False)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a", "a_1", "a"], ["a", "a_1", "a_2"]),
    ],
)
def test_repeated_columns_get_names_of_their_own(columns: list[str], names: list[str]) -> None:
    """A JSON object holds a name once; no column may vanish."""
    assert _distinct(columns) == names


def test_numbers_stand_right_and_long_texts_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A table has its title, its head, and every letter of its cells."""
    print_rows(["name", "rows"], [("raw.klines", 3825), ("x" * 300, 1)], title="the lake")
    told = capsys.readouterr().out
    assert told.startswith("the lake")
    assert "│ raw.klines" in told
    assert "3,825 │" in told
    assert told.count("x") == 300


def test_an_empty_answer_has_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """No rows are an answer too."""
    print_rows(["coin", "close"], [])
    assert "coin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("show", "told"),
    [
        (print_signals, "no signals yet"),
        (print_opportunities, "no arbitrage opportunities yet"),
        (print_backtests, "no backtests yet"),
    ],
)
def test_an_empty_lake_is_told_in_a_line(
    show: Callable[[Settings], None], told: str, empty_lake: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables without rows are no error and no empty frame of lines."""
    show(empty_lake)
    assert capsys.readouterr().out == f"{told}\n"
