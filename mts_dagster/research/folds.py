"""Years of a strategy: each a backtest of its own that warms up on the time before, and all of them joined.

What belongs here: the window of a fold, running several, and ``backtest_summary``. Each fold starts flat with the
capital of the assumptions and decides from the close before it on; a position over New Year is opened anew, with its
costs, so the joined curve is never better than one run without the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.layout import FloatArray
from mts_dagster.backtest.metrics import growth_of
from mts_dagster.backtest.walk_forward import moments_of
from mts_dagster.errors import MtsError, UsageError
from mts_dagster.research.pins import RUNS
from mts_dagster.research.runs import Request, Run, at_midnight, execute
from mts_dagster.research.stored import EQUITY, records
from mts_dagster.research.subject import Subject
from mts_dagster.sql_models import Project

NS_PER_S = 1_000_000_000


def fold_request(subject: Subject, year: int, assumptions: Assumptions, now: datetime) -> Request:
    """The year, or its part up to the last closed day.

    Raises:
        UsageError: no day of the year is over.
    """
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    closed = min(end, at_midnight(now))
    if closed <= start:
        raise UsageError(f"no day of {year} is over yet")
    return Request(subject, start, closed, assumptions, fold_year=year)


def run_folds(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    wanted: Sequence[tuple[Subject, int]],
    assumptions: Assumptions,
    now: datetime,
) -> Iterator[tuple[Subject, int, Run | MtsError]]:
    """Run each subject's year; where that cannot be, the reason in place of a run, and the others go on.

    A ``UsageError`` says that there is nothing to trade; any other error that the strategy or its run is at fault.
    """
    for subject, year in wanted:
        try:
            yield subject, year, execute(con, project, fold_request(subject, year, assumptions, now), now=now)
        except MtsError as reason:
            yield subject, year, reason


def summarise(con: duckdb.DuckDBPyConnection, strategies: Sequence[str]) -> pd.DataFrame:
    """Rows of ``backtest_summary`` for the strategies that have stored folds."""
    places = ", ".join("?" for _ in strategies)
    rows = records(
        con,
        f"select * from {RUNS.qualified} where kind = 'fold' and strategy in ({places}) "  # noqa: S608 - a contract's name
        "order by strategy, variant, fold_year",
        list(strategies),
    )
    curves = _curves(con, [str(row["run_id"]) for row in rows])
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["strategy"]), str(row["variant"])), []).append(row)
    return pd.DataFrame([_joined(folds, curves) for folds in groups.values()])


def _curves(con: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> dict[tuple[str, str], FloatArray]:
    """Equity of each run and variant."""
    places = ", ".join("?" for _ in run_ids)
    frame = con.execute(
        f"select run_id, variant, equity_usd from {EQUITY.qualified} where run_id in ({places or 'null'}) "  # noqa: S608 - as above
        "order by run_id, variant, timestamp",
        list(run_ids),
    ).df()
    return {
        (str(run_id), str(variant)): part["equity_usd"].to_numpy(np.float64)
        for (run_id, variant), part in frame.groupby(["run_id", "variant"])
    }


def _joined(folds: Sequence[dict[str, Any]], curves: dict[tuple[str, str], FloatArray]) -> dict[str, Any]:
    """One row of the summary: the folds of one strategy and variant, in the order of their years."""
    first, last = folds[0], folds[-1]
    equity = join_by_growth([curves[str(fold["run_id"]), str(fold["variant"])] for fold in folds])
    return {
        "strategy": first["strategy"],
        "variant": first["variant"],
        "first_year": first["fold_year"],
        "last_year": last["fold_year"],
        "folds": len(folds),
        "started_at": pd.Timestamp(first["started_at"]),
        "ended_at": pd.Timestamp(last["ended_at"]),
        **asdict(growth_of(moments_of(equity), int(first["interval_s"]) * NS_PER_S)),
        **{
            name: sum(fold[name] for fold in folds)
            for name in (
                "trades",
                "commission_usd",
                "slippage_usd",
                "funding_usd",
                "missing_bars",
                "missing_settlements",
                "undecided_days",
            )
        },
        "buy_hold_return_pct": 100.0 * (float(np.prod([1.0 + f["buy_hold_return_pct"] / 100.0 for f in folds])) - 1.0),
        "code_version": ", ".join(dict.fromkeys(str(fold["code_version"]) for fold in folds)),
    }


def join_by_growth(curves: Sequence[FloatArray]) -> FloatArray:
    """One curve from several: each goes on where the one before ended, with its own growth."""
    whole = curves[0]
    for curve in curves[1:]:
        whole = np.concatenate([whole, whole[-1] * curve[1:] / curve[0]])
    return whole
