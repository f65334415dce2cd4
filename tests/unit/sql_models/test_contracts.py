"""The SQL folder of MTS: its models deliver what their contracts promise, its sources are the stored tables."""

from __future__ import annotations

import duckdb
import pytest

from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.schemas import TABLES
from mts_dagster.settings import REPOSITORY, Settings
from mts_dagster.sql_models import Project, load_project
from mts_dagster.sql_models.project import SAMPLE_WINDOW
from mts_realtime.settings import RealtimeSettings

MODELS = sorted(load_project(REPOSITORY / "dbt_like_sql").models)


@pytest.mark.parametrize("name", MODELS)
def test_select_delivers_the_contract(lake: duckdb.DuckDBPyConnection, project: Project, name: str) -> None:
    """Names, order and types of the columns are the ones described."""
    model = project.models[name]
    described = lake.execute(f"describe {project.render(model, SAMPLE_WINDOW)}").fetchall()
    names = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    delivered = [(row[0], names.get(row[1], row[1])) for row in described]
    assert delivered == [(column.name, column.sql_type) for column in model.columns]


@pytest.mark.parametrize("name", MODELS)
def test_everything_is_described(project: Project, name: str) -> None:
    """Models and columns say what they mean, and numbers their unit."""
    model = project.models[name]
    assert model.description
    assert [column.name for column in model.columns if not column.description] == []
    numbers = [column for column in model.columns if column.sql_type in {"DOUBLE", "BIGINT"}]
    assert [column.name for column in numbers if column.unit is None] == []


@pytest.mark.parametrize("name", MODELS)
def test_key_and_availability_are_never_null(project: Project, name: str) -> None:
    """What identifies a row and what dates its knowledge is always there."""
    model = project.models[name]
    needed = {*model.key, *(column.name for column in model.columns if column.name == "available_at")}
    assert [column.name for column in model.columns if column.name in needed and column.nullable] == []


def test_sources_are_the_tables_that_python_writes(project: Project) -> None:
    """The YAML of a source lists exactly the columns of its table, and its time column."""
    for source in project.sources.values():
        table = {**TABLES, **LIVE_TABLES}[source.name]
        assert source.schema == table.schema
        assert source.columns == tuple((column.name, column.sql_type) for column in table.columns)
        assert source.event_time == table.time_column


def test_table_names_are_unique(project: Project) -> None:
    """A table can be called by its name alone, in the whole lake."""
    names = [*TABLES, *LIVE_TABLES, *project.models]
    assert sorted(names) == sorted(set(names))


def test_settings_find_their_variables() -> None:
    """Settings that change SQL have the same defaults as the project file, and can replace them."""
    settings, live = Settings(_env_file=None), RealtimeSettings(_env_file=None)
    given = {
        "history_start": settings.history_start.isoformat(),
        "kline_venues": list(settings.kline_venues),
        "bar_delay_s": settings.bar_delay_s,
        "taker_fee_bps": live.taker_fees_bps,
        "funding_holding_hours": live.funding_holding_hours,
    }
    default, replaced = (load_project(REPOSITORY / "dbt_like_sql", values) for values in (None, given))
    window = SAMPLE_WINDOW
    for name, model in default.models.items():
        text = replaced.render(replaced.models[name], window).replace("60.0", "60")
        assert text == default.render(model, window)


def test_column_lineage(project: Project) -> None:
    """Columns are traced through joins, windows, subqueries and unions to the tables that are read."""
    lineage = {name: project.column_lineage(model) for name, model in project.models.items()}
    assert lineage["crypto_ohlcv"]["trades"] == (("staging.stg_exchanges__klines", "trades"),)
    assert lineage["crypto_ohlcv"]["high"] == (
        ("staging.stg_coingecko__price_points", "price_usd"),
        ("staging.stg_exchanges__klines", "high"),
    )
    assert lineage["stg_fred__macro_data"]["observation_date"] == (("raw.macro_data", "date"),)
    assert set(lineage["features_daily"]["vix_correlation"]) == {
        ("marts.ohlcv_daily", "close"),
        ("marts.ohlcv_daily", "date"),
        ("staging.stg_fred__macro_data", "observation_date"),
        ("staging.stg_fred__macro_data", "value"),
    }
    for name, model in project.models.items():
        assert list(lineage[name]) == [column.name for column in model.columns]
