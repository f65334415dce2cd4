"""What assets are given: settings of a lake that is ready, clients, and the lake as IO manager.

What belongs here: construction and lifetime of resources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from mts_dagster.defs.sql_models.assets import store
from mts_dagster.lake.io_manager import LakeIOManager
from mts_dagster.lake.shared import session
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.views import missing_views
from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.schemas import TABLES, Table
from mts_dagster.settings import Settings
from mts_dagster.sources.clients import Clients
from mts_dagster.sql_models import Project

BOOTSTRAP = Origin(asset="bootstrap", run_id="", code_version="", partitions="")


def build_resources(
    settings: Settings, project: Project, strategy_tables: Sequence[Table]
) -> dict[str, dg.ResourceDefinition | LakeIOManager]:
    """Resources of all assets, by name."""
    tables = {**TABLES, **LIVE_TABLES, **{table.name: table for table in strategy_tables}}

    @dg.resource(description="Settings; the lake that they name exists and has all tables when a step gets them.")
    def ready_settings(_context: dg.InitResourceContext) -> Settings:
        prepare_lake(settings, project, tables)
        return settings

    @dg.resource(description="CoinGecko, FRED, Binance, Bybit; opened when first used.")
    def clients(_context: dg.InitResourceContext) -> Iterator[Clients]:
        with Clients(settings) as opened:
            yield opened

    return {
        # For schedules: a tick opens nothing, and never waits for a writer.
        "bare_settings": dg.ResourceDefinition.hardcoded_resource(settings, "Settings alone."),
        "settings": ready_settings,
        "clients": clients,
        "lake": LakeIOManager(settings, tables),
    }


def prepare_lake(settings: Settings, project: Project, tables: Mapping[str, Table]) -> None:
    """Create the lake with all tables and views, where they are missing."""
    models = {model.table().qualified: model for model in project.models.values()}
    stored = [model.table() for model in models.values() if model.kind != "view"]
    views = [model.table() for model in models.values() if model.kind == "view"]
    with session(settings, read_only=False) as con:
        bootstrap(con, [*tables.values(), *stored])
        missing = missing_views(con, views)
    for view in missing:
        store(settings, project, models[view.qualified], [], BOOTSTRAP)
