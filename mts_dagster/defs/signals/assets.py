"""One day-partitioned asset for each strategy, their union ``trading_signals``, the portfolio of all, and its files.

What belongs here: which tables a strategy is shown and where its decisions go. Rules are in ``mts_dagster.strategies``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd

from mts_dagster.defs.common import RESEARCH, SINGLE_RUN, ends_in_failure, lake_asset
from mts_dagster.lake.read import read_tables
from mts_dagster.lake.slices import Slice
from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.partitions import daily, midnight, slices_of
from mts_dagster.schemas import TABLES, AggregatedSignals, Table, TradingSignals, table_of
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Project
from mts_dagster.strategies.aggregate import AggregationConfig, aggregate
from mts_dagster.strategies.base import FEATURES, Strategy
from mts_dagster.strategies.config import config_hash
from mts_dagster.strategies.decisions import decide
from mts_dagster.strategies.errors import StrategyError
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.publish import build_documents, write_documents

GROUP = "signals"
SCHEMA = "signals"
MOST_DAYS = 36_500  # back to the first partition, wherever it is: the mapping clips there


def signal_table(strategy: Strategy[Any]) -> Table:
    """The table of one strategy, ``<strategy>_signals``, with the contract of trading_signals.

    The ending keeps it apart from tables of the market: a strategy may be called like what it looks at.

    Raises:
        StrategyError: the name belongs to a table of MTS.
    """
    name = f"{strategy.name}_signals"
    if taken := {**TABLES, **LIVE_TABLES}.get(name):
        raise StrategyError(f"strategy {strategy.name} needs another name: the table {taken.qualified} is not its own")
    return replace(table_of(TradingSignals), name=name, description=strategy.description)


def signal_key(strategy: Strategy[Any]) -> dg.AssetKey:
    """Asset key of one strategy's table."""
    return dg.AssetKey([SCHEMA, signal_table(strategy).name])


def build_signal_assets(
    strategies: Sequence[Strategy[Any]], project: Project, config: AggregationConfig
) -> list[dg.AssetsDefinition]:
    """Assets of all strategies, their union, the portfolio of all and the files."""
    assets = [_strategy_asset(strategy, project) for strategy in strategies]
    return [*assets, _union_asset(strategies), _portfolio_asset(strategies, project, config), _files_asset(project)]


def _strategy_asset(strategy: Strategy[Any], project: Project) -> dg.AssetsDefinition:
    lookback = dg.TimeWindowPartitionMapping(start_offset=-strategy.lookback_days)
    table = signal_table(strategy)
    inputs = [project.models[name].table() for name in strategy.inputs]

    @lake_asset(
        table,
        deps=[dg.AssetDep([entry.schema, entry.name], partition_mapping=lookback) for entry in inputs],
        partitions_def=daily,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "signals", "strategy": strategy.name},
        code_version=f"1-{strategy.config_hash}",
        description=f"{strategy.description} One decision for each coin and day, flat ones included.",
        io_manager_key="lake",
    )
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

    @lake_asset(
        table,
        deps=[signal_key(strategy) for strategy in strategies],
        partitions_def=daily,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "signals"},
        description="Decisions of all strategies side by side, one row for each strategy, coin and day.",
        io_manager_key="lake",
    )
    def trading_signals(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> pd.DataFrame:
        slices = slices_of(context.partition_keys)
        return pd.concat(read_tables(settings, [(part, slices) for part in tables]), ignore_index=True)

    return trading_signals


def _portfolio_asset(
    strategies: Sequence[Strategy[Any]], project: Project, config: AggregationConfig
) -> dg.AssetsDefinition:
    features = project.models[FEATURES].table()
    table = table_of(AggregatedSignals)
    hedged = {strategy.name for strategy in strategies if strategy.hedged}
    past = dg.TimeWindowPartitionMapping(start_offset=-MOST_DAYS)

    @lake_asset(
        table,
        deps=[
            dg.AssetDep([SCHEMA, "trading_signals"], partition_mapping=past),
            dg.AssetDep([features.schema, features.name], partition_mapping=past),
        ],
        partitions_def=daily,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "signals"},
        code_version=f"1-{config_hash(config)}",
        description="One decision for each coin and day: weighted votes of all strategies within the portfolio's "
        "limits, with the contributing signals and the rule that decided. The portfolio is replayed from the first "
        "day on, so that a day comes out the same alone or in a range.",
        io_manager_key="lake",
    )
    def aggregated_signals(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> pd.DataFrame:
        slices = slices_of(context.partition_keys)
        replayed = Slice(midnight(settings.history_start), slices[-1].end)
        said, market = read_tables(settings, [(table_of(TradingSignals), [replayed]), (features, [replayed])])
        decisions, _ = aggregate(said, market, config, hedged=hedged)
        return decisions[decisions["date"].isin(days_of(slices))]

    return aggregated_signals


def days_of(slices: Sequence[Slice]) -> pd.DatetimeIndex:
    """Every day of ``slices``, as the lake's DATE columns give them."""
    days = [pd.date_range(piece.start, piece.end, inclusive="left", tz="UTC").tz_localize(None) for piece in slices]
    return pd.DatetimeIndex([day for part in days for day in part])


def _files_asset(project: Project) -> dg.AssetsDefinition:
    features = project.models[FEATURES].table()

    @dg.asset(
        key=[SCHEMA, "signal_files"],
        deps=[
            dg.AssetKey([SCHEMA, "aggregated_signals"]),
            dg.AssetKey([SCHEMA, "trading_signals"]),
            dg.AssetKey([features.schema, features.name]),
        ],
        partitions_def=daily,
        backfill_policy=SINGLE_RUN,
        group_name=GROUP,
        kinds={"python", "json"},
        owners=RESEARCH,
        tags={"domain": "signals"},
        code_version="2",
        description="A JSON file for each day: the portfolio's decisions with what contributed to them, then all "
        "signals, and the market's context; latest.json is the newest.",
    )
    @ends_in_failure
    def signal_files(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        slices = slices_of(context.partition_keys)
        tables = (table_of(AggregatedSignals), table_of(TradingSignals), features)
        portfolio, signals, market = read_tables(settings, [(table, slices) for table in tables])
        paths = write_documents(settings.signal_folder, build_documents(signals, market, portfolio))
        return dg.MaterializeResult(
            metadata={"files": len(paths), "newest": dg.MetadataValue.path(str(paths[-1])) if paths else "none"}
        )

    return signal_files
