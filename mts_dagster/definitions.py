"""The entry point that Dagster loads: one explicit assembly of all definitions.

What belongs here: which objects exist and which resources they get. Loading it opens no connection and no file besides
the SQL folder and the strategies' configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mts_dagster.defs.backtests.assets import build_backtest_assets
from mts_dagster.defs.backtests.schedules import build_backtest_schedules
from mts_dagster.defs.history import assets as history
from mts_dagster.defs.history import schedules as history_schedules
from mts_dagster.defs.macro import assets as macro
from mts_dagster.defs.macro import schedules as macro_schedules
from mts_dagster.defs.operations.jobs import expire_landing, expire_landing_daily, maintenance, maintenance_weekly
from mts_dagster.defs.quality.checks import build_checks
from mts_dagster.defs.realtime.assets import GROUP, build_live_assets
from mts_dagster.defs.realtime.checks import build_live_checks
from mts_dagster.defs.realtime.sensors import landing_sensor
from mts_dagster.defs.resources import build_resources
from mts_dagster.defs.signals import schedules as signal_schedules
from mts_dagster.defs.signals.assets import build_signal_assets, signal_table
from mts_dagster.defs.sql_models.assets import (
    MACRO_TABLES,
    MARKET_TABLES,
    build_model_assets,
    models_made_of,
    project_of,
)
from mts_dagster.research.subject import subjects_of
from mts_dagster.runs import LIVE_HOURS
from mts_dagster.settings import Settings, get_settings
from mts_dagster.strategies.registry import load_aggregation, load_strategies

SELECTION = dg.AssetSelection


def build_definitions(settings: Settings, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble everything for ``settings``; ``resources`` replaces single resources, for tests."""
    project = project_of(settings)
    strategies = list(load_strategies(settings).values())
    market = [history.price_points, history.klines, history.funding_rates]
    models = build_model_assets(project)
    market_models = SELECTION.assets(*models_made_of(project, MARKET_TABLES))
    macro_models = SELECTION.assets(*models_made_of(project, MACRO_TABLES)) - market_models
    signals = build_signal_assets(strategies, project, load_aggregation(settings))
    subjects = subjects_of(strategies, load_aggregation(settings))
    folds, summary, walk_forward = build_backtest_assets(subjects, project)
    live = build_live_assets()
    backtests = [folds, summary, walk_forward]
    return dg.Definitions(
        assets=[history.coin_universe, *market, macro.macro_data, *models, *signals, *live, *backtests],
        asset_checks=[*build_checks(project, strategies), *build_live_checks()],
        jobs=[
            dg.define_asset_job("universe", SELECTION.assets(history.coin_universe)),
            dg.define_asset_job("market", SELECTION.assets(*market)),
            dg.define_asset_job("macro", SELECTION.assets(macro.macro_data)),
            dg.define_asset_job("sql_models", SELECTION.assets(*models)),
            dg.define_asset_job("market_models", market_models),
            dg.define_asset_job("macro_models", macro_models),
            dg.define_asset_job("signals", SELECTION.assets(*models, *signals)),
            dg.define_asset_job("backtests", SELECTION.assets(folds, summary)),
            dg.define_asset_job("walk_forward", SELECTION.assets(walk_forward)),
            dg.define_asset_job(LIVE_HOURS, SELECTION.groups(GROUP)),
            maintenance,
            expire_landing,
        ],
        sensors=[landing_sensor],
        schedules=[
            history_schedules.universe_hourly,
            history_schedules.market_hourly,
            macro_schedules.macro_6_hourly,
            signal_schedules.sql_models_hourly,
            signal_schedules.signals_daily,
            *build_backtest_schedules(subjects),
            maintenance_weekly,
            expire_landing_daily,
        ],
        resources={
            **build_resources(settings, project, [signal_table(strategy) for strategy in strategies]),
            **(resources or {}),
        },
        # Steps are short and fetch in threads; a process for each step costs seconds and buys nothing.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``dg``, the webserver and the daemon load."""
    return build_definitions(get_settings())
