"""One day-partitioned asset for each strategy, their union ``trading_signals``, and the signal files.

What belongs here: which tables a strategy is shown and where its decisions go. Rules are in ``mts_dagster.strategies``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd

from mts_dagster.defs.common import RESEARCH, SINGLE_RUN, ends_in_failure
from mts_dagster.lake.io_manager import column_schema
from mts_dagster.lake.read import read_tables
from mts_dagster.lake.slices import Slice
from mts_dagster.partitions import daily, slices_of
from mts_dagster.schemas import TABLES, Table, TradingSignals, table_of
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Project
from mts_dagster.strategies.base import FEATURES, Strategy
from mts_dagster.strategies.decisions import decide
from mts_dagster.strategies.errors import StrategyError
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.publish import build_documents, write_documents

GROUP = "signals"
SCHEMA = "signals"


def signal_table(strategy: Strategy[Any]) -> Table:
    """The table of one strategy, ``<strategy>_signals``, with the contract of trading_signals.

    The ending keeps it apart from tables of the market: a strategy may be called like what it looks at.

    Raises:
        StrategyError: the name belongs to a table of MTS.
    """
    name = f"{strategy.name}_signals"
    if name in TABLES:
        raise StrategyError(
            f"strategy {strategy.name} needs another name: the table {TABLES[name].qualified} is not its own"
        )
    return replace(table_of(TradingSignals), name=name, description=strategy.description)


def signal_key(strategy: Strategy[Any]) -> dg.AssetKey:
    """Asset key of one strategy's table."""
    return dg.AssetKey([SCHEMA, signal_table(strategy).name])


def build_signal_assets(strategies: Sequence[Strategy[Any]], project: Project) -> list[dg.AssetsDefinition]:
    """Assets of all strategies, their union and the files."""
    assets = [_strategy_asset(strategy, project) for strategy in strategies]
    return [*assets, _union_asset(strategies), _files_asset(project)]


def _strategy_asset(strategy: Strategy[Any], project: Project) -> dg.AssetsDefinition:
    lookback = dg.TimeWindowPartitionMapping(start_offset=-strategy.lookback_days)
    table = signal_table(strategy)
    inputs = [project.models[name].table() for name in strategy.inputs]

    @dg.asset(
        key=signal_key(strategy),
        deps=[dg.AssetDep([entry.schema, entry.name], partition_mapping=lookback) for entry in inputs],
        partitions_def=daily,
        backfill_policy=SINGLE_RUN,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "signals", "strategy": strategy.name},
        code_version=f"1-{strategy.config_hash}",
        description=f"{strategy.description} One decision for each coin and day, flat ones included.",
        metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.qualified},
        io_manager_key="lake",
    )
    @ends_in_failure
    def signals_of_strategy(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> pd.DataFrame:
        windows = slices_of(context.partition_keys)
        frames = [
            decide(strategy, read_market(settings, strategy, project, window), window.start.date(), window.end.date())
            for window in windows
        ]
        return pd.concat(frames, ignore_index=True)

    return signals_of_strategy


def read_market(settings: Settings, strategy: Strategy[Any], project: Project, window: Slice) -> Market:
    """The strategy's input tables, from its lookback before the window on."""
    shown = replace(window, start=window.start - timedelta(days=strategy.lookback_days))
    frames = read_tables(settings, [(project.models[name].table(), [shown]) for name in strategy.inputs])
    return Market(dict(zip(strategy.inputs, frames, strict=True)))


def _union_asset(strategies: Sequence[Strategy[Any]]) -> dg.AssetsDefinition:
    tables = [signal_table(strategy) for strategy in strategies]
    table = table_of(TradingSignals)

    @dg.asset(
        key=[SCHEMA, table.name],
        deps=[signal_key(strategy) for strategy in strategies],
        partitions_def=daily,
        backfill_policy=SINGLE_RUN,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "signals"},
        code_version="1",
        description="Decisions of all strategies side by side, one row for each strategy, coin and day.",
        metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.qualified},
        io_manager_key="lake",
    )
    @ends_in_failure
    def trading_signals(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> pd.DataFrame:
        slices = slices_of(context.partition_keys)
        return pd.concat(read_tables(settings, [(part, slices) for part in tables]), ignore_index=True)

    return trading_signals


def _files_asset(project: Project) -> dg.AssetsDefinition:
    features = project.models[FEATURES].table()

    @dg.asset(
        key=[SCHEMA, "signal_files"],
        deps=[dg.AssetKey([SCHEMA, "trading_signals"]), dg.AssetKey([features.schema, features.name])],
        partitions_def=daily,
        backfill_policy=SINGLE_RUN,
        group_name=GROUP,
        kinds={"python", "json"},
        owners=RESEARCH,
        tags={"domain": "signals"},
        code_version="1",
        description="A JSON file for each day with all signals and the market's context; latest.json is the newest.",
    )
    @ends_in_failure
    def signal_files(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        slices = slices_of(context.partition_keys)
        decisions, market = read_tables(settings, [(table_of(TradingSignals), slices), (features, slices)])
        paths = write_documents(settings.signal_folder, build_documents(decisions, market))
        return dg.MaterializeResult(
            metadata={"files": len(paths), "newest": dg.MetadataValue.path(str(paths[-1])) if paths else "none"}
        )

    return signal_files
