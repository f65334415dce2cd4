"""Stored runs deleted, so that the snapshots of the lake that they read may expire.

What belongs here: which runs may be deleted, their deletion in one transaction, and what it frees. Folds of the asset
``backtests`` are no one's to delete: their partition replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from mts_dagster.errors import LakeError, UsageError
from mts_dagster.lake.connection import ALIAS
from mts_dagster.lake.shared import session
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.research.pins import RUNS, WALKS, is_stored
from mts_dagster.research.stored import RESULT_TABLES, kinds, no_such_run, sheet_path
from mts_dagster.settings import Settings

COMMAND = "mts forget"


@dataclass(frozen=True)
class Forgotten:
    """What was deleted, and what that frees.

    Attributes:
        run_ids: Runs that are gone.
        rows: Rows of theirs in all backtest tables.
        snapshots_freed: Snapshots that nothing stored refers to any more.
        snapshots_kept: Snapshots of theirs that others refer to, with one of those.
        sheets: Tear sheets that were deleted.
    """

    run_ids: tuple[str, ...]
    rows: int
    snapshots_freed: tuple[int, ...]
    snapshots_kept: Mapping[int, str]
    sheets: tuple[Path, ...]


def forget(settings: Settings, run_ids: Sequence[str]) -> Forgotten:
    """Delete single runs: their rows in one transaction, then their tear sheets in the folder of reports.

    Interrupted, it has deleted the rows of all runs or of none.

    Raises:
        UsageError: one of them does not exist or is a fold; nothing was deleted.
        LakeError: there is no lake, it could not be written, or a sheet could not be deleted.
    """
    wanted = tuple(dict.fromkeys(run_ids))
    with session(settings) as con:
        _require_single(con, wanted)  # a mistake waits for no lock, and makes no lake
    with session(settings, read_only=False) as con:
        origin = Origin(asset=COMMAND, run_id="", code_version="", partitions=", ".join(wanted))
        rows, freed, kept = transact(con, partial(_delete, run_ids=wanted), origin)
    return Forgotten(wanted, rows, freed, kept, _delete_sheets(settings, wanted))


def _require_single(con: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> None:
    stored = kinds(con)
    problems = [problem for run_id in run_ids if (problem := _problem(run_id, stored))]
    if problems:
        raise UsageError(f"{'; '.join(problems)}; nothing deleted")


def _problem(run_id: str, stored: Mapping[str, str]) -> str | None:
    if run_id not in stored:
        return no_such_run(run_id, [name for name, kind in stored.items() if kind == "single"])
    if stored[run_id] == "fold":
        partition = "|".join(run_id.rsplit("-", 1))
        return f"{run_id} is a fold of the asset backtests: materialise its partition {partition} again to replace it"
    return None


def _delete(con: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> tuple[int, tuple[int, ...], dict[int, str]]:
    """Delete the rows; how many, the snapshots that are free then, and those that are not."""
    _require_single(con, run_ids)  # again, now that nobody else can write
    which = f"run_id in ({', '.join('?' for _ in run_ids)})"
    snapshots = f"select distinct lake_snapshot from {RUNS.qualified} where {which}"  # noqa: S608 - a contract's name
    present = f"select snapshot_id from {ALIAS}.snapshots() where snapshot_id in ({snapshots}) order by all"  # noqa: S608 - as above
    read = [snapshot for (snapshot,) in con.execute(present, list(run_ids)).fetchall()]
    rows = 0
    for table in RESULT_TABLES:
        deleted = con.execute(f"delete from {table.qualified} where {which}", list(run_ids)).fetchone()  # noqa: S608 - as above
        rows += int(deleted[0]) if deleted else 0
    users = _users(con)
    kept = {snapshot: users[snapshot] for snapshot in read if snapshot in users}
    return rows, tuple(snapshot for snapshot in read if snapshot not in users), kept


def _users(con: duckdb.DuckDBPyConnection) -> dict[int, str]:
    """One of the stored results that refer to each snapshot."""
    queries = [f"select lake_snapshot, run_id as name from {RUNS.qualified}"]  # noqa: S608 - as above
    if is_stored(con, WALKS):
        queries.append(f"select lake_snapshot, 'walk_forward of ' || strategy as name from {WALKS.qualified}")  # noqa: S608 - as above
    users = f"select lake_snapshot, min(name) from ({' union '.join(queries)}) group by lake_snapshot"  # noqa: S608 - as above
    return dict(con.execute(users).fetchall())


def _delete_sheets(settings: Settings, run_ids: Sequence[str]) -> tuple[Path, ...]:
    sheets = tuple(path for run_id in run_ids if (path := sheet_path(settings, run_id)).is_file())
    for path in sheets:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LakeError(
                f"the runs are deleted, but their tear sheet {path} is not: {error.strerror}; delete it yourself"
            ) from error
    return sheets
