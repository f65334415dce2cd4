"""Data tests: each finds the rows that break it and no others, within the window it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mts_dagster.settings import REPOSITORY
from mts_dagster.sql_models import DataTest, Project, SqlModelError, load_project
from mts_dagster.sql_models.project import SAMPLE_WINDOW

Add = Callable[..., None]
Build = Callable[[str, str], None]

MODEL = """
models:
  - name: items
    data_tests: [unique_grain: {arguments: {columns: [id]}}]
    columns:
      - {name: id, data_type: bigint}
      - {name: day, data_type: date}
      - name: word
        data_type: varchar
        data_tests: [TEST]
"""
GRAIN = "{% test unique_grain(model, columns) %}select {{ columns[0] }} from {{ model }} where false{% endtest %}"
ROWS = [(1, "2024-01-01", "a"), (2, "2024-01-02", "b"), (3, "2024-01-02", None), (4, "2024-01-02", "b")]


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    con.execute("create schema marts; create table marts.items (id bigint, day date, word varchar, letter varchar)")
    con.executemany("insert into marts.items values (?, ?, ?, 'x')", ROWS)
    yield con
    con.close()


@pytest.fixture
def stated(tmp_path: Path) -> Callable[[str], tuple[Project, DataTest]]:
    """A project with one model, whose column ``word`` has the given test."""

    def write(test: str, singular: str = "") -> tuple[Project, DataTest]:
        files = {
            "dbt_project.yml": "{name: small, models: {small: {+schema: marts}}}",
            "models/items.sql": "{{ config(event_time='day') }} select 1",
            "models/_items.yml": MODEL.replace("TEST", test),
            "tests/generic/unique_grain.sql": GRAIN,
        }
        if singular:
            files["tests/single.sql"] = singular
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        project = load_project(tmp_path)
        return project, project.tests[-1]

    return write


@pytest.mark.parametrize(
    ("test", "failures"),
    [
        ("not_null", [(3, "2024-01-02", None, "x")]),
        ("unique", [("b", 2)]),
        ("accepted_values: {arguments: {values: [a]}}", [("b", 2)]),
        ("accepted_values: {arguments: {values: [a, b]}}", []),
        ("relationships: {arguments: {to: ref('items'), field: word}}", []),
        ("relationships: {arguments: {to: ref('items'), field: letter}}", [("a",), ("b",), ("b",)]),
        ("not_null: {config: {where: id < 3}}", []),
    ],
)
def test_generic_tests_return_failing_rows(
    con: duckdb.DuckDBPyConnection,
    stated: Callable[[str], tuple[Project, DataTest]],
    test: str,
    failures: list[tuple[Any, ...]],
) -> None:
    """The rows returned are the failures."""
    project, data_test = stated(test)
    found = con.execute(f"select * from ({project.render_test(data_test)}) order by all").fetchall()
    assert [tuple(str(part) if hasattr(part, "year") else part for part in row) for row in found] == failures


def test_only_the_window_is_judged(
    con: duckdb.DuckDBPyConnection, stated: Callable[[str], tuple[Project, DataTest]]
) -> None:
    """With a window, rows of other days do not fail; the sample window is 2024-01-02."""
    con.execute("update marts.items set word = null where id = 1")
    project, test = stated("not_null")
    failing = con.execute(project.render_test(test, SAMPLE_WINDOW)).fetchall()
    assert failing == con.execute("from marts.items where id = 3").fetchall()


def test_severity_and_name(stated: Callable[[str], tuple[Project, DataTest]]) -> None:
    """A test is named after what it judges, unless it has a name, and errs unless it only warns."""
    _, test = stated("not_null")
    assert (test.name, test.model, test.column, test.severity) == ("not_null_items_word", "items", "word", "error")
    _, test = stated("not_null: {name: words, description: Words are there., config: {severity: warn}}")
    assert (test.name, test.severity, test.description) == ("words", "warn", "Words are there.")


def test_two_tests_of_one_name_are_refused(stated: Callable[[str], tuple[Project, DataTest]]) -> None:
    """Names identify checks, so a second one needs its own."""
    with pytest.raises(SqlModelError, match="two data tests are called not_null_items_word; give one a name"):
        stated("not_null, not_null: {config: {where: id > 1}}")


def test_test_of_its_own_file(con: duckdb.DuckDBPyConnection, stated: Callable[..., tuple[Project, DataTest]]) -> None:
    """A singular test belongs to the first model it reads, and takes severity from its config()."""
    sql = "{{ config(severity='warn') }}\nselect id from {{ ref('items') }} where word = 'b'"
    project, test = stated("not_null", singular=sql)
    assert (test.name, test.model, test.severity, test.macro) == ("single", "items", "warn", None)
    assert con.execute(project.render_test(test)).fetchall() == [(2,), (4,)]
    assert project.tests_of(project.models["items"])[-1] == test


@pytest.mark.parametrize(
    ("model", "damage", "name"),
    [
        (
            "crypto_ohlcv",
            "insert into marts.crypto_ohlcv from marts.crypto_ohlcv limit 1",
            "unique_grain_crypto_ohlcv",
        ),
        ("crypto_ohlcv", "update marts.crypto_ohlcv set low = 200", "bar_bounds_hold_crypto_ohlcv"),
        ("crypto_ohlcv", "update marts.crypto_ohlcv set high = 1", "bar_bounds_hold_crypto_ohlcv"),
        ("crypto_ohlcv", "update marts.crypto_ohlcv set low = 0", "bar_bounds_hold_crypto_ohlcv"),
        (
            "crypto_ohlcv",
            "update marts.crypto_ohlcv set available_at = close_time - interval 1 second",
            "not_known_before_crypto_ohlcv",
        ),
        ("macro_daily", "delete from marts.macro_daily where date = '2024-01-02'", "macro_daily_has_every_day"),
        ("features_daily", "delete from marts.features_daily", "features_cover_every_daily_bar"),
        ("ohlcv_daily", "update marts.ohlcv_daily set close = 101", "daily_close_equals_last_hour"),
        ("coverage_daily", "delete from marts.crypto_ohlcv where hour(open_time) = 5", "hours_are_not_missing"),
    ],
)
def test_damage_is_found(
    lake: duckdb.DuckDBPyConnection,
    project: Project,
    kline: Add,
    observe: Add,
    build: Build,
    model: str,
    damage: str,
    name: str,
) -> None:
    """On sound marts no test fails; after the damage the one made for it does."""
    for day in (1, 2, 3):
        for hour in range(24):
            kline(f"2024-01-0{day} {hour:02}:00", 100.0)
        kline(f"2024-01-0{day}", 100.0, interval="1d")
        observe(f"2024-01-0{day}", 14.0, f"2024-01-0{day}")
    build("2024-01-01", "2024-01-04")
    assert [test.name for test in project.tests if lake.execute(project.render_test(test)).fetchall()] == []
    lake.execute(damage)
    failed = {test.name: test for test in project.tests if lake.execute(project.render_test(test)).fetchall()}
    assert name in failed
    assert failed[name].model == model


def test_every_test_says_what_it_means() -> None:
    """Tests in files of their own have a description."""
    project = load_project(REPOSITORY / "dbt_like_sql")
    assert [test.name for test in project.tests if test.macro is None and not test.description] == []
