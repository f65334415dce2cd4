"""A stored run once more, on the snapshot that it read, and how it compares.

What belongs here: making the request again from the stored row, and the comparison. Numbers count as equal within a
billionth: sums may be added in another order on another processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from mts_dagster.backtest.config import parse_assumptions
from mts_dagster.backtest.metrics import Trials
from mts_dagster.lake.snapshots import require_snapshot
from mts_dagster.research.runs import Request, Run, execute
from mts_dagster.research.store import run_rows
from mts_dagster.research.stored import stored_equity, stored_run
from mts_dagster.research.subject import Subject, subject_named
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Project

TOLERANCE = 1e-9
NOT_COMPARED = frozenset({"created_at", "lake_snapshot", "code_version", "run_id"})


@dataclass(frozen=True)
class Difference:
    """A number that came out otherwise."""

    variant: str
    name: str
    stored: object
    found: object

    def __str__(self) -> str:
        return f"{self.variant} {self.name}: stored {self.stored}, now {self.found}"


@dataclass(frozen=True)
class Reproduction:
    """A run done again.

    Attributes:
        run: The new run.
        snapshot: The snapshot of the lake that both read.
        differences: Numbers that differ.
        stored_version: Version of the code that computed the stored run.
        version: Version of the code now.
    """

    run: Run
    snapshot: int
    differences: tuple[Difference, ...]
    stored_version: str
    version: str

    @property
    def is_equal(self) -> bool:
        """Whether the numbers and the code are the same."""
        return not self.differences and self.stored_version == self.version


def reproduce(
    con: duckdb.DuckDBPyConnection, project: Project, settings: Settings, run_id: str, now: datetime
) -> Reproduction:
    """Run a stored backtest again from what it recorded.

    Raises:
        UsageError: there is no such run, or its strategy does not exist any more.
        ConfigError: the strategy does not take the recorded config any more.
        LakeError: the snapshot has expired.
    """
    stored = stored_run(con, run_id)
    base = stored["base"]
    snapshot = int(base["lake_snapshot"])
    require_snapshot(con, snapshot)
    run = execute(con, project, _request(base, settings), now=now, snapshot=snapshot)
    found = {str(row["variant"]): row for row in run_rows(run).to_dict("records")}
    differences = [
        *(item for variant, row in stored.items() for item in _compare_rows(variant, row, found[variant])),
        *(item for variant in stored for item in _compare_equity(con, run_id, variant, run)),
    ]
    version = str(run.result.provenance.code_version)
    return Reproduction(run, snapshot, tuple(differences), str(base["code_version"]), version)


def _request(row: dict[str, Any], settings: Settings) -> Request:
    subject: Subject = subject_named(str(row["strategy"]), settings).restored(str(row["strategy_config"]))
    return Request(
        subject=subject,
        start=row["window_start"].astimezone(UTC),
        end=row["window_end"].astimezone(UTC),
        assumptions=parse_assumptions(str(row["assumptions"]), f"run {row['run_id']}"),
        fold_year=row["fold_year"],
        trials=Trials(int(row["trials"]), float(row["trials_sharpe_variance"])),
    )


def _compare_rows(variant: str, stored: dict[str, Any], found: dict[Any, Any]) -> list[Difference]:
    """Every column of the run's row but those that tell when and by what it was computed."""
    return [
        Difference(variant, name, value, found[name])
        for name, value in stored.items()
        if name not in NOT_COMPARED and not _same(value, found[name])
    ]


def _compare_equity(con: duckdb.DuckDBPyConnection, run_id: str, variant: str, run: Run) -> list[Difference]:
    """The first close at which the curves part."""
    stored, found = stored_equity(con, run_id, variant), run.result.outcomes[variant].curves.equity.tolist()
    if len(stored) != len(found):
        return [Difference(variant, "closes", len(stored), len(found))]
    times = run.result.outcomes[variant].market.close_times()
    parted = _first_parting(stored, found)
    return (
        []
        if parted is None
        else [Difference(variant, f"equity at {times[parted]:%Y-%m-%d %H:%M}", stored[parted], found[parted])]
    )


def _first_parting(stored: Sequence[float], found: Sequence[float]) -> int | None:
    pairs = enumerate(zip(stored, found, strict=True))
    return next((i for i, (mine, theirs) in pairs if not _same(mine, theirs)), None)


def _same(stored: object, found: object) -> bool:
    if _is_nothing(stored) or _is_nothing(found):
        return _is_nothing(stored) and _is_nothing(found)
    if isinstance(stored, float) and isinstance(found, float):
        return math.isclose(stored, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(stored == found)


def _is_nothing(value: object) -> bool:
    """Null in the lake, NaN or pandas' own nothing in a frame."""
    return value is None or value != value or str(value) == "<NA>"  # noqa: PLR0124 - NaN differs from itself
