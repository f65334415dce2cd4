"""Backtests of all strategies, cut by strategy and year; the folds joined; parameters walked forward.

What belongs here: which partitions run what, and what a materialization shows. Reading, running and storing is
``mts_dagster.research``; its modules that load the engine's compiler are imported when an asset runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from mts_dagster.backtest_schemas import SCHEMA, BacktestRuns, BacktestSummary, WalkForward
from mts_dagster.defs.common import RESEARCH, SINGLE_RUN, contract, ends_in_failure, lake_asset
from mts_dagster.errors import UsageError
from mts_dagster.lake.io_manager import run_origin
from mts_dagster.lake.shared import session
from mts_dagster.partitions import midnight, years
from mts_dagster.research.subject import Subject, tunable
from mts_dagster.schemas import table_of
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Project

if TYPE_CHECKING:
    from mts_dagster.research.runs import Run

GROUP = "backtests"
BACKTESTS = dg.AssetKey([SCHEMA, "backtests"])
READ = (
    ("marts", "features_daily"),
    ("marts", "ohlcv_daily"),
    ("raw", "funding_rates"),
    ("signals", "aggregated_signals"),
)
WALK_FOLDS, WALK_TRIALS = 4, 24
MOST_PICTURES = 24  # of partitions in one run; each picture is some 50 kB in the event log
VERSION = "1"


def build_backtest_assets(subjects: Mapping[str, Subject], project: Project) -> list[dg.AssetsDefinition]:
    """Folds, their summary, and walk-forward, for all subjects."""
    strategies = dg.StaticPartitionsDefinition(list(subjects))
    deps = [dg.AssetDep(list(key), partition_mapping=dg.AllPartitionMapping()) for key in READ]
    return [
        _folds_asset(subjects, project, dg.MultiPartitionsDefinition({"strategy": strategies, "year": years}), deps),
        _summary_asset(list(subjects)),
        _walk_asset(subjects, project, dg.StaticPartitionsDefinition(tunable(subjects)), deps),
    ]


def _folds_asset(
    subjects: Mapping[str, Subject],
    project: Project,
    partitions: dg.MultiPartitionsDefinition,
    deps: Sequence[dg.AssetDep],
) -> dg.AssetsDefinition:
    @dg.asset(
        key=BACKTESTS,
        deps=deps,
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "backtests"},
        code_version=VERSION,
        description="Each strategy traded over each year on daily bars, with fees, slippage and funding, as assumed "
        "and under worse costs. A year warms up on the time before, starts flat, and ends at the last closed day. "
        "Results are in backtest_runs, backtest_equity, backtest_fills, backtest_trades and backtest_events.",
        metadata=contract(table_of(BacktestRuns)),
    )
    @ends_in_failure
    def backtests(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
        from mts_dagster.research import folds, runs, store  # noqa: PLC0415 - loads the engine's compiler

        wanted = [(subjects[name], year) for name, year in folds_of(context.partition_keys)]
        assumptions = runs.load_assumptions(settings.backtest_assumptions)
        with session(settings) as con:
            done = list(folds.run_folds(con, project, wanted, assumptions, datetime.now(UTC)))
        found = [run for _, _, run in done if not isinstance(run, str)]
        if not found:
            raise UsageError(f"nothing to backtest in {len(done)} partitions; the first: {done[0][2]}")
        store.store_runs(settings, found, run_origin(context, VERSION))
        for subject, year, run in done:
            key = dg.MultiPartitionKey({"strategy": subject.name, "year": str(year)})
            context.add_asset_metadata(told(settings, run, pictures=len(done) <= MOST_PICTURES), partition_key=key)

    return backtests


def folds_of(keys: Sequence[str]) -> list[tuple[str, int]]:
    """Strategy and year of each partition, in that order."""
    found = []
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey):
            raise UsageError(f"{key!r} is no partition of a strategy and a year")
        found.append((key.keys_by_dimension["strategy"], int(key.keys_by_dimension["year"])))
    if not found:
        raise UsageError("the run has no partitions: is its range reversed, or before the first partition?")
    return sorted(found)


def told(settings: Settings, run: Run | str, *, pictures: bool) -> dict[str, Any]:
    """What the UI shows of a fold: numbers, pictures, and where its tear sheet is."""
    from mts_dagster.research.sheets import picture_markdown, write_sheet  # noqa: PLC0415 - loads the engine's compiler

    if isinstance(run, str):
        return {"nothing_to_trade": run}
    numbers = {f"{name}": value for name, value in run.result.metrics.as_dict().items() if value == value}  # noqa: PLR0124 - not NaN
    sheet = write_sheet(settings, run)
    return {
        "run_id": run.run_id,
        **numbers,
        "pessimistic_return_pct": run.result.pessimistic.metrics.total_return_pct,
        "coverage": run.result.coverage.summary(),
        "undecided_days": run.inputs.undecided_days,
        "lake_snapshot": run.result.provenance.lake_snapshot or 0,
        "tear_sheet": dg.MetadataValue.path(str(sheet)),
        "tear_sheet_link": dg.MetadataValue.url(sheet.as_uri()),
        **({"curves": dg.MetadataValue.md(picture_markdown(run))} if pictures else {}),
    }


def _summary_asset(names: Sequence[str]) -> dg.AssetsDefinition:
    table = table_of(BacktestSummary)

    @lake_asset(
        table,
        deps=[dg.AssetDep(BACKTESTS, partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "backtests"},
        code_version=VERSION,
        description="The yearly folds of each strategy joined by their growth, as assumed and under worse costs.",
    )
    def backtest_summary(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from mts_dagster.research import folds, store  # noqa: PLC0415 - loads the engine's compiler

        with session(settings) as con:
            frame = folds.summarise(con, names)
        if frame.empty:
            raise UsageError("there is no fold to summarise: materialise backtests first")
        store.store_frame(settings, table, frame, names, run_origin(context, VERSION))
        return dg.MaterializeResult(metadata={"strategies": frame["strategy"].nunique(), "table": in_markdown(frame)})

    return backtest_summary


def in_markdown(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """The columns of a summary that people compare."""
    columns = ["strategy", "variant", "total_return_pct", "sharpe", "max_drawdown_pct", "trades", "buy_hold_return_pct"]
    return dg.MetadataValue.md(frame[columns].round(2).to_markdown(index=False))


def _walk_asset(
    subjects: Mapping[str, Subject],
    project: Project,
    partitions: dg.StaticPartitionsDefinition,
    deps: Sequence[dg.AssetDep],
) -> dg.AssetsDefinition:
    table = table_of(WalkForward)

    @lake_asset(
        table,
        deps=deps,
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=RESEARCH,
        tags={"domain": "backtests"},
        code_version=VERSION,
        description="Parameters of each strategy chosen on the past and judged on the bars after it, in purged folds "
        "over all history: how much of a strategy's optimum survives.",
    )
    def walk_forward(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
        from mts_dagster.research import store, walks  # noqa: PLC0415 - loads the engine's compiler

        start, now = midnight(settings.history_start), datetime.now(UTC)
        reasons = []
        for name in sorted(context.partition_keys):
            try:
                frame = walks.walk_all(settings, project, subjects[name], start, now, WALK_FOLDS, WALK_TRIALS)
            except UsageError as nothing:
                reasons.append(str(nothing))
                context.add_asset_metadata({"nothing_to_walk": str(nothing)}, partition_key=name)
                continue
            store.store_frame(settings, table, frame, [name], run_origin(context, VERSION))
            context.add_asset_metadata(walked(frame), partition_key=name)
        if len(reasons) == len(context.partition_keys):
            raise UsageError(f"nothing to walk forward in {len(reasons)} partitions; the first: {reasons[0]}")

    return walk_forward


def walked(frame: pd.DataFrame) -> dict[str, Any]:
    """What the UI shows of a walk."""
    shown = frame[["test_start", "test_end", "parameters", "in_sample", "out_of_sample"]]
    shown = shown.round({"in_sample": 2, "out_of_sample": 2})
    return {
        "joined_return_pct": float(frame["joined_return_pct"].iloc[0]),
        "trials": int(frame["all_trials"].iloc[0]),
        "folds": dg.MetadataValue.md(shown.to_markdown(index=False)),
    }
