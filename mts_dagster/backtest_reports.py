"""What the backtest commands print: metrics, comparisons, searches, reproductions, and every assumption in words.

What belongs here: turning results into tables for people and JSON for programs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mts_dagster.backtest.report import ROWS, most_stable, shown
from mts_dagster.backtest.words import assumed
from mts_dagster.desk import Tuning
from mts_dagster.reports import print_json, print_rows
from mts_dagster.research.reproduce import Reproduction
from mts_dagster.research.runs import Run

ONE_DAY = timedelta(days=1)
BEST_SHOWN = 10
DIFFERENCES_SHOWN = 10
COMPARED = (
    ("total_return_pct", "return %"),
    ("annual_return_pct", "a year %"),
    ("volatility_pct", "volatility %"),
    ("sharpe", "Sharpe"),
    ("max_drawdown_pct", "drawdown %"),
    ("trades", "trades"),
    ("win_rate_pct", "wins %"),
    ("exposure_pct", "in market %"),
)


def print_run(run: Run, sheet: Path | None, *, as_json: bool) -> None:
    """Print one backtest: numbers, what it rests on, and where it is kept."""
    if as_json:
        print_json(run_document(run, sheet))
        return
    base, worse = run.result.metrics.as_dict(), run.result.pessimistic.metrics.as_dict()
    print_rows(
        [headline(run), "as assumed", "pessimistic"],
        [(words, shown(base[name], pattern), shown(worse[name], pattern)) for name, words, pattern in ROWS],
    )
    print_rows(["assumed", ""], assumed(run.request.assumptions, run.result.base.market.assets))
    say(*foundations(run), f"stored as {run.run_id}; again at any time: mts reproduce {run.run_id}")
    if sheet is not None:
        say(f"tear sheet: {sheet}")


def print_comparison(runs: Sequence[Run], *, as_json: bool) -> None:
    """Print several backtests side by side, buy-and-hold first."""
    if as_json:
        print_json([run_document(run, None) for run in runs])
        return
    rows = []
    for run in runs:
        metrics = run.result.metrics.as_dict()
        costs = metrics["commission_usd"] + metrics["slippage_usd"] - metrics["funding_usd"]
        rows.append(
            (
                run.request.subject.name,
                *(rounded(metrics[name]) for name, _ in COMPARED),
                f"{costs:,.0f}",
                rounded(run.result.pessimistic.metrics.total_return_pct),
                run.run_id,
            )
        )
    print_rows(
        ["strategy", *(words for _, words in COMPARED), "costs USD", "pessimistic %", "run"],
        rows,
        title=headline(runs[0], subject=False),
    )
    print_rows(["assumed", ""], assumed(runs[0].request.assumptions, runs[0].result.base.market.assets))
    say(*dict.fromkeys(line for run in runs for line in foundations(run)))


def print_tuning(found: Tuning, sheet: Path | None, *, as_json: bool) -> None:
    """Print a search: the best sets, how stable the best is, and what the number of trials leaves of it."""
    search, run = found.search, found.run
    names = list(search.space)
    stability = search.stability()
    if as_json:
        print_json(
            {
                "method": search.method,
                "objective": search.objective,
                "trials": search.trials.count,
                "best": search.best,
                "stability": vars(stability),
                "walk_forward": None if found.walk is None else found.walk.frame().to_dict("records"),
                "run": run_document(run, sheet),
            }
        )
        return
    best = search.table.sort_values(search.objective, ascending=False, kind="stable").head(BEST_SHOWN)
    columns = list(dict.fromkeys([search.objective, "total_return_pct", "max_drawdown_pct", "fills"]))
    print_rows(
        [*names, *columns],
        [tuple(rounded(row[name], 4) for name in [*names, *columns]) for row in best.to_dict("records")],
        title=f"best of {search.trials.count} trials ({search.method})",
    )
    say(
        f"{search.objective} of the best {stability.best:.2f}; its neighbours: {stability.neighbours} tried, mean "
        f"{shown(stability.neighbour_mean, '{:.2f}')}, worst {shown(stability.neighbour_worst, '{:.2f}')}; "
        f"{stability.profitable_pct:.0f} % of all trials gained",
        f"most stable: {most_stable(stability.plateau)}",
        f"probability that the best is better than luck after {search.trials.count} trials: "
        f"{shown(run.result.metrics.deflated_sharpe, '{:.1%}')} (deflated Sharpe)",
    )
    if found.walk is not None:
        frame = found.walk.frame().drop(columns=["train_start", "train_end"])
        rows = [tuple(rounded(value, 4) for value in row) for row in frame.itertuples(index=False)]
        print_rows(list(frame.columns), rows, title="walk-forward")
        say(f"unseen bars joined: {found.walk.growth.total_return_pct:+.2f} %, efficiency {found.walk.efficiency:.2f}")
    print_run(run, sheet, as_json=False)


def print_reproduction(run_id: str, found: Reproduction, *, as_json: bool) -> None:
    """Print whether a run came out the same, and if not, what is otherwise."""
    same_code = found.stored_version == found.version
    if as_json:
        print_json(
            {
                "run_id": run_id,
                "equal": found.is_equal,
                "lake_snapshot": found.snapshot,
                "stored_code_version": found.stored_version,
                "code_version": found.version,
                "differences": [vars(item) for item in found.differences],
            }
        )
        return
    numbers = f"{len(found.differences)} numbers differ" if found.differences else "all numbers are equal"
    code = f"code {found.version}" if same_code else f"code was {found.stored_version} and is {found.version}"
    say(f"{run_id} on snapshot {found.snapshot}: {numbers}; {code}")
    for item in found.differences[:DIFFERENCES_SHOWN]:
        say(f"  {item}")
    if len(found.differences) > DIFFERENCES_SHOWN:
        say(f"  and {len(found.differences) - DIFFERENCES_SHOWN} more")


def headline(run: Run, *, subject: bool = True) -> str:
    """Who traded what, from the first to the last day traded."""
    first, last = run.request.start, run.request.end - ONE_DAY
    name = f"{run.request.subject.name}: " if subject else ""
    return f"{name}{', '.join(run.result.base.market.assets)}, {first:%Y-%m-%d} to {last:%Y-%m-%d}, daily bars"


def foundations(run: Run) -> list[str]:
    """What the numbers rest on, a line each."""
    lines = [f"input: {run.result.coverage.summary()}; lake snapshot {run.result.provenance.lake_snapshot}"]
    if run.inputs.undecided_days:
        lines.append(f"{run.inputs.undecided_days} days of an asset have a bar but no decision: the last one stands")
    if run.inputs.without_bars:
        lines.append(f"left out, no bars: {', '.join(run.inputs.without_bars)}")
    return lines


def run_document(run: Run, sheet: Path | None) -> dict[str, Any]:
    """A run for programs."""
    request, result = run.request, run.result
    return {
        "run_id": run.run_id,
        "strategy": request.subject.name,
        "config": json.loads(request.subject.stored_config),
        "symbols": list(result.base.market.assets),
        "symbols_without_bars": list(run.inputs.without_bars),
        "start": request.start,
        "end": request.end,
        "metrics": result.metrics.as_dict(),
        "pessimistic": result.pessimistic.metrics.as_dict(),
        "coverage": result.coverage.summary(),
        "coverage_complete": result.coverage.complete,
        "undecided_days": run.inputs.undecided_days,
        "lake_snapshot": result.provenance.lake_snapshot,
        "code_version": result.provenance.code_version,
        "assumptions": request.assumptions.model_dump(mode="json"),
        "report": None if sheet is None else str(sheet),
    }


def rounded(value: Any, digits: int = 2) -> Any:  # noqa: ANN401 - a cell
    """A number with few digits; a text, a day and nothing as they are; NaN is nothing."""
    if isinstance(value, float):
        return None if value != value else round(float(value), digits)  # noqa: PLR0124 - NaN differs from itself
    return value


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
