"""Backtests of all strategies, cut by strategy and year; the folds joined; parameters walked forward.

What belongs here: which partitions run what, and what a materialization shows. Reading, running and storing is
``mts_dagster.research``; its modules that load the engine's compiler are imported when an asset runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
import pandas as pd

from mts_dagster.backtest.errors import BacktestError
from mts_dagster.backtest_schemas import SCHEMA, BacktestRuns, BacktestSummary, WalkForward
from mts_dagster.defs.common import RESEARCH, SINGLE_RUN, contract, ends_in_failure, lake_asset
from mts_dagster.errors import MtsError, UsageError
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
SUMMARY = dg.AssetKey([SCHEMA, "backtest_summary"])
READ = (
    ("marts", "features_daily"),
    ("marts", "ohlcv_daily"),
    ("raw", "funding_rates"),
    ("signals", "aggregated_signals"),
)
WALK_FOLDS, WALK_TRIALS = 4, 24
Came: TypeAlias = dict[str, Any] | MtsError  # what the UI shows of a partition, or why there is nothing
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
        if found := [run for _, _, run in done if not isinstance(run, MtsError)]:
            store.store_runs(settings, found, run_origin(context, VERSION))
        came: dict[str, Came] = {
            dg.MultiPartitionKey({"strategy": subject.name, "year": str(year)}): (
                run if isinstance(run, MtsError) else told(settings, run, pictures=len(done) <= MOST_PICTURES)
            )
            for subject, year, run in done
        }
        if found and failures(came):  # then the summary's own step is skipped, yet there are new folds to sum up
            summary = summarised(context, settings, list(subjects))
            context.log_event(dg.AssetMaterialization(SUMMARY, metadata=summary))
        conclude(context, came, "nothing to trade")

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


def conclude(context: dg.AssetExecutionContext, came: Mapping[str, Came], nothing: str) -> None:
    """Show in each partition what came of it.

    Where one failed, the run fails and that partition alone is left unmaterialised, with an observation that says why.
    Dagster materialises all partitions of a step that ends well and none of one that fails, so that the others are
    then reported one by one.

    Raises:
        UsageError: there was nothing in any of them.
        BacktestError: some failed.
    """
    failed = failures(came)
    if not failed and all(isinstance(item, UsageError) for item in came.values()):
        raise UsageError(f"{nothing} in {len(came)} partitions; the first: {next(iter(came.values()))}")
    for key, item in came.items():
        metadata = {nothing.replace(" ", "_"): str(item)} if isinstance(item, UsageError) else item
        if isinstance(metadata, MtsError):
            context.log_event(dg.AssetObservation(context.asset_key, partition=key, metadata={"failed": str(metadata)}))
        elif failed:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
        else:
            context.add_asset_metadata(metadata, partition_key=key)
    if failed:
        first = next(iter(failed))
        raise BacktestError(
            f"{len(failed)} of {len(came)} partitions failed, the others are stored; {first}: {failed[first]}"
        )


def failures(came: Mapping[str, Came]) -> dict[str, MtsError]:
    """Partitions whose strategy or run is at fault; having nothing to trade is no failure."""
    return {key: item for key, item in came.items() if isinstance(item, MtsError) and not isinstance(item, UsageError)}


def told(settings: Settings, run: Run, *, pictures: bool) -> dict[str, Any]:
    """What the UI shows of a fold: numbers, pictures, and where its tear sheet is."""
    from mts_dagster.research.sheets import picture_markdown, write_sheet  # noqa: PLC0415 - loads the engine's compiler

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
        return dg.MaterializeResult(metadata=summarised(context, settings, names))

    return backtest_summary


def summarised(context: dg.AssetExecutionContext, settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """Join all stored folds, store that, and return what the UI shows of it.

    Raises:
        UsageError: no fold is stored.
    """
    from mts_dagster.research import folds, store  # noqa: PLC0415 - loads the engine's compiler

    with session(settings) as con:
        frame = folds.summarise(con, names)
    if frame.empty:
        raise UsageError("there is no fold to summarise: materialise backtests first")
    store.store_frame(settings, table_of(BacktestSummary), frame, names, run_origin(context, VERSION))
    return {"strategies": frame["strategy"].nunique(), "table": in_markdown(frame)}


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
        came: dict[str, Came] = {}
        for name in sorted(context.partition_keys):
            try:
                frame = walks.walk_all(settings, project, subjects[name], start, now, WALK_FOLDS, WALK_TRIALS)
            except MtsError as reason:
                came[name] = reason
                continue
            store.store_frame(settings, table, frame, [name], run_origin(context, VERSION))
            came[name] = walked(frame)
        conclude(context, came, "nothing to walk forward")

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
