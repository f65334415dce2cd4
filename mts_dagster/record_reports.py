"""What the commands on stored backtests print: the list of them, and what deleting some has freed.

What belongs here: turning stored runs into tables for people and JSON for programs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mts_dagster.lake.shared import session
from mts_dagster.reports import NO_VALUE, PIPED_WIDTH, print_json
from mts_dagster.research.forget import Forgotten, forget
from mts_dagster.research.stored import StoredRun, list_runs
from mts_dagster.settings import get_settings

ONE_DAY = timedelta(days=1)
# Pairs that stand above each other where the terminal is too narrow for all of them side by side.
HEADS = (
    ("run", "window"),
    ("return %", "pessimistic"),
    ("Sharpe", "drawdown %"),
    ("trials", "snapshot"),
    ("stored (UTC)", "reproduce"),
)
NUMBERS = range(1, 4)


def print_stored(strategy: str | None, *, with_folds: bool, limit: int, as_json: bool) -> None:
    """Print the newest of the stored runs, and how many more there are.

    Raises:
        UsageError: there is no such strategy.
    """
    settings = get_settings()
    with session(settings) as con:
        stored = list_runs(con, settings, strategy)
    wanted = [run for run in stored if with_folds or run.kind == "single"]
    if as_json:
        print_json([run.as_dict() for run in wanted[:limit]])
        return
    if wanted:
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        console = Console(width=width)
        console.print(arranged(wanted[:limit], console.width))
    else:
        sys.stdout.write(f"no backtest{f' of {strategy}' if strategy else ''} stored yet; mts backtest stores one\n")
    if len(wanted) > limit:
        sys.stdout.write(f"{limit} of {len(wanted)}; all: --limit {len(wanted)}\n")
    if folds := len(stored) - len(wanted):
        sys.stdout.write(f"not listed: folds of the asset backtests ({folds}); with them: --folds\n")


def arranged(runs: Sequence[StoredRun], width: int) -> Table:
    """The runs as a table, one line each, or two where ``width`` letters are too few for that."""
    lines = [cells(run) for run in runs]
    table = _table([head for pair in HEADS for head in pair], [i // 2 in NUMBERS for i in range(2 * len(HEADS))])
    for line in lines:
        table.add_row(*(cell for pair in line for cell in pair))
    if Console(width=sys.maxsize).measure(table).maximum <= width:
        return table
    stacked = _table(["\n".join(pair) for pair in HEADS], [i in NUMBERS for i in range(len(HEADS))])
    for (run, window), *others in lines:
        stacked.add_row(f"{run}\n  {window}", *("\n".join(pair) for pair in others))
    return stacked


def cells(run: StoredRun) -> list[tuple[str, str]]:
    """What is shown of a run, in the order of ``HEADS``."""
    mark = " (fold)" if run.kind == "fold" else ""
    return [
        (f"{run.run_id}{mark}", f"{run.start:%Y-%m-%d} to {run.end - ONE_DAY:%Y-%m-%d}"),
        (f"{run.total_return_pct:+,.2f}", f"{run.pessimistic_return_pct:+,.2f}"),
        (NO_VALUE if run.sharpe is None else f"{run.sharpe:.2f}", f"{run.max_drawdown_pct:.2f}"),
        (f"{run.trials:,}", str(run.lake_snapshot)),
        (f"{run.created_at:%Y-%m-%d %H:%M}", run.obstacle or "yes"),
    ]


def print_forgotten(run_ids: Sequence[str]) -> None:
    """Delete stored runs, and print what is gone and what is free.

    Raises:
        UsageError: one of them does not exist or is a fold; nothing was deleted.
    """
    settings = get_settings()
    sys.stdout.write("".join(f"{line}\n" for line in told(forget(settings, run_ids), settings.snapshot_keep_days)))


def told(gone: Forgotten, keep_days: float) -> list[str]:
    """What was deleted, and what became of the snapshots that it kept."""
    lines = [f"deleted {', '.join(gone.run_ids)}: {gone.rows:,} rows"]
    lines += [f"deleted {path}" for path in gone.sheets]
    lines += [
        f"snapshot {snapshot} of the lake is free: maintenance forgets it when it is older than {keep_days:g} days"
        for snapshot in gone.snapshots_freed
    ]
    lines += [
        f"snapshot {snapshot} of the lake is kept: {user} refers to it too"
        for snapshot, user in gone.snapshots_kept.items()
    ]
    return lines


def _table(heads: Sequence[str], are_numbers: Sequence[bool]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for head, is_number in zip(heads, are_numbers, strict=True):
        table.add_column(head, justify="right" if is_number else "left", overflow="fold")
    return table
