"""One asset for each SQL model: views are created, incremental models replace exactly the run's days.

What belongs here: how a model becomes an asset, with its dependencies, column schema and lineage. Reading and rendering
the SQL folder is ``mts_dagster.sql_models``, storing is ``mts_dagster.lake``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mts_dagster.defs.common import MARKET_DATA, SINGLE_RUN, lake_asset
from mts_dagster.errors import ConfigError
from mts_dagster.lake.io_manager import run_origin
from mts_dagster.lake.replace import replace_select
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.views import replace_view
from mts_dagster.live.derive import stream_settings_of
from mts_dagster.live.tables import SCHEMA as LIVE
from mts_dagster.partitions import daily, slices_of
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Dependency, Model, Project, Window, load_project

# Raw tables are cut by coin or indicator too, live ones by hour; models are cut by day alone.
MARKET_TABLES = {("raw", "price_points"), ("raw", "klines"), ("raw", "funding_rates")}
MACRO_TABLES = {("raw", "macro_data")}
TWO_DIMENSIONS = MARKET_TABLES | MACRO_TABLES


def project_of(settings: Settings) -> Project:
    """The SQL folder, with the settings' values in place of the project file's.

    Raises:
        ConfigError: a file of the folder is wrong, or a model has a materialisation that is not supported.
    """
    project = load_project(
        settings.sql_folder,
        {
            "history_start": settings.history_start.isoformat(),
            "kline_venues": list(settings.kline_venues),
            "bar_delay_s": settings.bar_delay_s,
            **_live_variables(settings),
        },
    )
    for model in project.models.values():
        if model.kind == "table":
            raise ConfigError(f"{model.path}: materialise as view or as incremental microbatch, not as table")
    return project


def _live_variables(settings: Settings) -> dict[str, Any]:
    """What the sidecar's settings say of fees and holding times: one place for live and stored data."""
    live = stream_settings_of(settings)
    return {"taker_fee_bps": live.taker_fees_bps, "funding_holding_hours": live.funding_holding_hours}


def build_model_assets(project: Project) -> list[dg.AssetsDefinition]:
    """Assets of all models, each after what it reads."""
    return [_model_asset(project, model) for model in project.models.values()]


def models_made_of(project: Project, tables: Collection[tuple[str, str]]) -> list[dg.AssetKey]:
    """Models that rest on one of the raw ``tables`` (schema and name), alone or among others."""
    return [
        dg.AssetKey([model.schema, model.name])
        for model in project.models.values()
        if _raw_inputs(project, model) & set(tables)
    ]


def _raw_inputs(project: Project, model: Model) -> set[tuple[str, str]]:
    """The tables at the far end of a model's lineage."""
    found: set[tuple[str, str]] = set()
    for entry in model.depends_on:
        found |= _raw_inputs(project, project.models[entry.name]) if entry.name in project.models else {entry.key}
    return found


def _model_asset(project: Project, model: Model) -> dg.AssetsDefinition:
    is_view = model.kind == "view"

    @lake_asset(
        model.table(),
        deps=_dependencies(project, model),
        group_name=model.schema,
        kinds={"sql", "duckdb", "view" if is_view else "table"},
        owners=MARKET_DATA,
        tags={"domain": "models"},
        code_version=model.code_version,
        description=model.description,
        partitions_def=None if is_view else daily,
        backfill_policy=None if is_view else SINGLE_RUN,
    )
    def sql_model(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        slices = [] if is_view else ended(model, slices_of(context.partition_keys), datetime.now(UTC))
        counts = store(settings, project, model, slices, run_origin(context, model.code_version))
        return dg.MaterializeResult(metadata=counts)

    return sql_model


def ended(model: Model, slices: list[Slice], now: datetime) -> list[Slice]:
    """The slices without the running day, for a model that says ``ended_days_only``.

    Its rows are values as of the end of a day; before that end they would be provisional, and stay so in a partition
    that is not built again. SQL knows no clock, so the day is left out here.
    """
    if not model.meta.get("ended_days_only"):
        return slices
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [replace(piece, end=min(piece.end, today)) for piece in slices if piece.start < today]


def store(settings: Settings, project: Project, model: Model, slices: list[Slice], origin: Origin) -> dict[str, int]:
    """Create the view, or compute the days of ``slices`` inside DuckDB and replace them in one transaction each."""
    with session(settings, read_only=False) as con:
        if model.kind == "view":
            replace_view(con, model.table(), project.render(model), origin)
            return {}
        done = [
            replace_select(con, model.table(), [piece], project.render(model, Window(piece.start, piece.end)), origin)
            for piece in slices
        ]
    return {
        "rows_in_run": sum(part.rows_inserted for part in done),
        "rows_replaced": sum(part.rows_deleted for part in done),
    }


def _dependencies(project: Project, model: Model) -> list[dg.AssetDep]:
    """What the model reads. Views are named and looked through, so that the partitions behind them count."""
    views = [entry for entry in model.depends_on if _is_view(project, entry)]
    stored = [entry for entry in project.stored_inputs(model) if entry not in views]
    return [*(dg.AssetDep(list(entry.key)) for entry in views), *(_dependency(model, entry) for entry in stored)]


def _is_view(project: Project, entry: Dependency) -> bool:
    return entry.name in project.models and project.models[entry.name].kind == "view"


def _dependency(model: Model, entry: Dependency) -> dg.AssetDep:
    """A stored input with its partition mapping; the lookback is the model's own number."""
    key = list(entry.key)
    if model.kind == "view":
        return dg.AssetDep(key)
    if entry.schema == LIVE:
        # 24 hours a day. Days before the first stored hour, and hours that are still to come, have none of them.
        hours = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
        return dg.AssetDep(key, partition_mapping=hours)
    if entry.key in TWO_DIMENSIONS:
        return dg.AssetDep(key, partition_mapping=dg.MultiToSingleDimensionPartitionMapping("date"))
    return dg.AssetDep(key, partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-entry.lookback_days))
