"""Results in the lake: written whole, found by run id, and their snapshots kept.

What belongs here: the frames of ``backtest_schemas`` made of runs, their storage in one transaction, and what stored
runs refer to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pandas as pd

from mts_dagster.backtest_schemas import (
    BacktestEquity,
    BacktestEvents,
    BacktestFills,
    BacktestTrades,
)
from mts_dagster.errors import UsageError
from mts_dagster.lake.replace import replace_members
from mts_dagster.lake.shared import session
from mts_dagster.lake.snapshots import require_snapshot
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.validate import validate_frame
from mts_dagster.research.pins import RUNS, is_stored
from mts_dagster.research.runs import Run
from mts_dagster.schemas import Table, table_of
from mts_dagster.settings import Settings
from mts_dagster.strategies.config import suggestion

EQUITY, FILLS, TRADES, EVENTS = (
    table_of(model) for model in (BacktestEquity, BacktestFills, BacktestTrades, BacktestEvents)
)
RESULT_TABLES = (RUNS, EQUITY, FILLS, TRADES, EVENTS)
SHOWN_RUNS = 5


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


def stored_run(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, dict[str, Any]]:
    """The rows of a stored run by variant.

    Raises:
        UsageError: there is no such run; the message tells some that there are.
    """
    rows = records(con, f"select * from {RUNS.qualified} where run_id = ?", [run_id]) if has_runs(con) else []  # noqa: S608 - a contract's name
    if not rows:
        newest = (
            records(con, f"select distinct run_id, created_at from {RUNS.qualified} order by created_at desc")  # noqa: S608 - as above
            if has_runs(con)
            else []
        )
        known = {str(row["run_id"]): None for row in newest}
        told = suggestion(run_id, dict(list(known.items())[:SHOWN_RUNS])) if known else "none is stored yet"
        raise UsageError(f"there is no run {run_id!r}: {told}")
    return {str(row["variant"]): row for row in rows}


def stored_equity(con: duckdb.DuckDBPyConnection, run_id: str, variant: str) -> list[float]:
    """Equity at each close of a stored run."""
    query = f"select equity_usd from {EQUITY.qualified} where run_id = ? and variant = ? order by timestamp"  # noqa: S608 - as above
    return [value for (value,) in con.execute(query, [run_id, variant]).fetchall()]


def has_runs(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the lake has the table of runs."""
    return is_stored(con, RUNS)


def records(
    con: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] | Mapping[str, object] = ()
) -> list[dict[str, Any]]:
    """Answer of a query, a dictionary for each row, in Python's own types."""
    result = con.execute(query, parameters)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
