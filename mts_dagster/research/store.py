"""Results into the lake: written whole.

What belongs here: the frames of ``backtest_schemas`` made of runs, and their storage in one transaction. Finding them
again is ``stored``, deleting them ``forget``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from mts_dagster.lake.replace import replace_members
from mts_dagster.lake.shared import session
from mts_dagster.lake.snapshots import require_snapshot
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.validate import validate_frame
from mts_dagster.research.runs import Run
from mts_dagster.research.stored import RESULT_TABLES
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings


def store_runs(settings: Settings, runs: Sequence[Run], origin: Origin) -> None:
    """Store runs with all their tables in one transaction; runs of the same names are replaced.

    Raises:
        LakeError: storing failed, or a snapshot that a run read has expired meanwhile.
    """
    frames = (
        [run_rows(run) for run in runs],
        [run.result.equity() for run in runs],
        [run.result.fills() for run in runs],
        [run.result.trades() for run in runs],
        [run.result.events() for run in runs],
    )
    parts = [
        (table, validate_frame(table, pd.concat(parts, ignore_index=True)))
        for table, parts in zip(RESULT_TABLES, frames, strict=True)
    ]
    with session(settings, read_only=False) as con:
        bootstrap(con, RESULT_TABLES)
        for run in runs:
            require_snapshot(con, run.result.provenance.lake_snapshot or 0)
        replace_members(con, parts, "run_id", [run.run_id for run in runs], origin)


def store_frame(
    settings: Settings, table: Table, frame: pd.DataFrame, strategies: Sequence[str], origin: Origin
) -> None:
    """Replace the rows of some strategies in ``backtest_summary`` or ``walk_forward``."""
    valid = validate_frame(table, frame)
    with session(settings, read_only=False) as con:
        bootstrap(con, [table])
        replace_members(con, [(table, valid)], "strategy", strategies, origin)


def run_rows(run: Run) -> pd.DataFrame:
    """The rows of ``backtest_runs``, one for each variant."""
    request, inputs = run.request, run.inputs
    return run.result.runs().assign(
        kind=run.kind,
        fold_year=pd.array([request.fold_year] * 2, dtype="Int64"),
        created_at=pd.Timestamp(run.created_at),
        window_start=pd.Timestamp(request.start),
        window_end=pd.Timestamp(request.end),
        assets_without_bars=json.dumps(list(inputs.without_bars)),
        strategy_config=request.subject.stored_config,
        undecided_days=inputs.undecided_days,
        trials_sharpe_variance=request.trials.sharpe_variance,
        # Both variants keep the assumptions that were asked for; the worse ones follow from them.
        assumptions=request.assumptions.model_dump_json(),
        config_hash=request.assumptions.config_hash(),
    )
