"""Stored runs: found by their name, listed, and what could keep one from being reproduced.

What belongs here: reading the backtest tables back, without the engine, so that a command that only looks answers at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import duckdb

from mts_dagster.backtest_schemas import BacktestEquity, BacktestEvents, BacktestFills, BacktestTrades
from mts_dagster.errors import UsageError
from mts_dagster.lake.connection import ALIAS
from mts_dagster.research.pins import RUNS, is_stored
from mts_dagster.research.subject import all_subjects
from mts_dagster.research.version import code_version
from mts_dagster.schemas import table_of
from mts_dagster.settings import Settings
from mts_dagster.strategies.config import suggestion

EQUITY, FILLS, TRADES, EVENTS = (
    table_of(model) for model in (BacktestEquity, BacktestFills, BacktestTrades, BacktestEvents)
)
RESULT_TABLES = (RUNS, EQUITY, FILLS, TRADES, EVENTS)

Obstacle = Literal["snapshot expired", "strategy gone", "other code"]
LISTED = f"""
    select base.run_id, base.kind, base.strategy, base.window_start, base.window_end, base.trials,
        base.total_return_pct, base.sharpe, base.max_drawdown_pct, worse.total_return_pct as pessimistic_return_pct,
        base.created_at, base.lake_snapshot, base.code_version,
        base.lake_snapshot in (select snapshot_id from {ALIAS}.snapshots()) as has_snapshot
    from {RUNS.qualified} as base join {RUNS.qualified} as worse using (run_id)
    where base.variant = 'base' and worse.variant = 'pessimistic'
    order by base.created_at desc, base.run_id
"""  # noqa: S608 - a contract's name


@dataclass(frozen=True)
class StoredRun:
    """A stored run in brief.

    Attributes:
        run_id: Its name.
        kind: ``single``, or ``fold`` for a year of the asset ``backtests``.
        strategy: Name of the strategy.
        start: First open that could be traded, aware UTC.
        end: Exclusive, aware UTC.
        trials: Backtests that were run to find it.
        total_return_pct: Growth as assumed, percent.
        sharpe: Annualised; None where it has no meaning.
        max_drawdown_pct: Deepest fall from a peak, percent.
        pessimistic_return_pct: Growth under worse costs, percent.
        created_at: When it was computed, aware UTC.
        lake_snapshot: What it read.
        code_version: What computed it.
        obstacle: Why it would not come out the same again; None if nothing is in the way.
    """

    run_id: str
    kind: Literal["single", "fold"]
    strategy: str
    start: datetime
    end: datetime
    trials: int
    total_return_pct: float
    sharpe: float | None
    max_drawdown_pct: float
    pessimistic_return_pct: float
    created_at: datetime
    lake_snapshot: int
    code_version: str
    obstacle: Obstacle | None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "reproducible": self.obstacle is None}


def list_runs(con: duckdb.DuckDBPyConnection, settings: Settings, strategy: str | None = None) -> list[StoredRun]:
    """All stored runs, folds among them, the newest first.

    Raises:
        UsageError: there is no such strategy, neither here nor in a stored run.
    """
    rows = records(con, LISTED) if has_runs(con) else []
    subjects = all_subjects(settings)
    known = dict.fromkeys([*subjects, *(str(row["strategy"]) for row in rows)])
    if strategy is not None and strategy not in known:
        raise UsageError(f"there is no strategy {strategy!r}: {suggestion(strategy, known)}")
    versions = {name: code_version(subject) for name, subject in subjects.items()}
    return [_brief(row, versions) for row in rows if strategy in (None, row["strategy"])]


def _brief(row: Mapping[str, Any], versions: Mapping[str, str]) -> StoredRun:
    found = {name: value for name, value in row.items() if name not in {"window_start", "window_end", "has_snapshot"}}
    return StoredRun(
        **{**found, "created_at": row["created_at"].astimezone(UTC)},
        start=row["window_start"].astimezone(UTC),
        end=row["window_end"].astimezone(UTC),
        obstacle=_obstacle(row, versions),
    )


def _obstacle(row: Mapping[str, Any], versions: Mapping[str, str]) -> Obstacle | None:
    if not row["has_snapshot"]:
        return "snapshot expired"
    if row["strategy"] not in versions:
        return "strategy gone"
    return None if versions[row["strategy"]] == row["code_version"] else "other code"


def stored_run(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, dict[str, Any]]:
    """The rows of a stored run by variant.

    Raises:
        UsageError: there is no such run; the message tells which one was probably meant.
    """
    rows = records(con, f"select * from {RUNS.qualified} where run_id = ?", [run_id]) if has_runs(con) else []  # noqa: S608 - a contract's name
    if not rows:
        raise UsageError(no_such_run(run_id, list(kinds(con))))
    return {str(row["variant"]): row for row in rows}


def kinds(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Whether each stored run is a ``fold`` or ``single``."""
    if not has_runs(con):
        return {}
    return dict(con.execute(f"select distinct run_id, kind from {RUNS.qualified} order by run_id").fetchall())  # noqa: S608 - as above


def no_such_run(run_id: str, known: Sequence[str]) -> str:
    """Say that there is no such run, which one was probably meant, and where all are listed."""
    if not known:
        return f"there is no run {run_id!r}: none is stored yet"
    close = get_close_matches(run_id, known, n=1)
    return f"there is no run {run_id!r}: {f'did you mean {close[0]!r}? ' if close else ''}mts backtests lists them"


def stored_equity(con: duckdb.DuckDBPyConnection, run_id: str, variant: str) -> list[float]:
    """Equity at each close of a stored run."""
    query = f"select equity_usd from {EQUITY.qualified} where run_id = ? and variant = ? order by timestamp"  # noqa: S608 - as above
    return [value for (value,) in con.execute(query, [run_id, variant]).fetchall()]


def sheet_path(settings: Settings, run_id: str) -> Path:
    """Where the tear sheet of a run is put unless told otherwise."""
    return settings.report_folder / "backtests" / f"{run_id}.html"


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
