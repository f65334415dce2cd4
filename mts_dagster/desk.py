"""What the backtest commands do: find the subject, read the lake, run, store, write the sheet.

What belongs here: the order of steps and the progress that a person sees meanwhile. Every run is stored, so that it
can be reproduced; the same request on the same data is the same run. Nothing here asks a service or starts Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.optimise import Method, Objective, Search
from mts_dagster.backtest.report import Extras
from mts_dagster.backtest.walk_forward import WalkForward
from mts_dagster.defs.sql_models.assets import project_of
from mts_dagster.errors import UsageError
from mts_dagster.lake.shared import session
from mts_dagster.lake.snapshots import newest_snapshot
from mts_dagster.lake.transaction import Origin
from mts_dagster.research.inputs import first_bar, require_assets
from mts_dagster.research.reproduce import Reproduction, reproduce
from mts_dagster.research.runs import Request, Run, at_midnight, execute, load_assumptions, with_capital
from mts_dagster.research.sheets import write_sheet
from mts_dagster.research.store import store_runs
from mts_dagster.research.subject import BENCHMARK, Subject, all_subjects, subject_named
from mts_dagster.research.tuning import cut, open_bench, space_of, tune, walk
from mts_dagster.settings import Settings, get_settings
from mts_dagster.sql_models import Project

DEFAULT_TRIALS = 200
ONE_DAY = timedelta(days=1)
FIRST_BLOCK = date(2009, 1, 3)  # of Bitcoin: no coin has a price before it


@dataclass(frozen=True)
class Terms:
    """What the commands have in common, as it was typed; None where nothing was.

    Attributes:
        symbols: CoinGecko ids.
        first: First day to trade.
        last: Last day, included.
        capital_usd: Cash at the start.
        assumptions: File of assumptions.
        strict: Whether gaps are refused.
    """

    symbols: Sequence[str] | None
    first: date | None
    last: date | None
    capital_usd: float | None
    assumptions: Path | None
    strict: bool


@dataclass(frozen=True)
class Quest:
    """How to search, as it was typed."""

    parameters: Sequence[str] | None
    method: Method
    trials: int | None
    objective: Objective
    folds: int
    seed: int


@dataclass(frozen=True)
class Tuning:
    """A search, the run of its best parameters, and how the choice fared on unseen bars."""

    search: Search
    run: Run
    walk: WalkForward | None

    @property
    def extras(self) -> Extras:
        """What the tear sheet shows of it."""
        varied = [name for name, values in self.search.space.items() if len(values) > 1]
        return Extras(self.search, (varied[0], varied[1]) if len(varied) > 1 else None, self.walk)


@dataclass
class Desk:
    """Settings, the SQL project, and the console that progress goes to."""

    settings: Settings
    project: Project
    console: Console

    @classmethod
    def open(cls) -> Self:
        """With the settings of the environment."""
        settings = get_settings()
        return cls(settings, project_of(settings), Console(stderr=True))

    def backtest(self, strategy: str, terms: Terms) -> Run:
        """Run and store one backtest.

        Raises:
            UsageError: there is no such strategy or coin, or nothing to trade in the window.
            BacktestError: gaps in a strict run.
        """
        request = self._request(subject_named(strategy, self.settings), terms)
        with self.console.status(f"{strategy} over {request.window} ..."):
            return self._run_and_store([request], "mts backtest")[0]

    def compare(self, strategies: Sequence[str] | None, terms: Terms) -> list[Run]:
        """Run and store several strategies over the same window, buy-and-hold first."""
        names = strategies or list(all_subjects(self.settings))
        named = [subject_named(name, self.settings) for name in dict.fromkeys([BENCHMARK, *names])]
        requests = [self._request(subject, terms) for subject in named]
        start = max(request.start for request in requests)  # without --start, assets may begin at different days
        with self._progress("comparing", len(requests)) as advance:
            return self._run_and_store([replace(item, start=start) for item in requests], "mts compare", advance)

    def optimise(self, strategy: str, terms: Terms, quest: Quest) -> Tuning:
        """Search the parameters, run the best ones with the number of trials held against them, and store that run.

        Raises:
            UsageError: as ``backtest``, or there is no such parameter, the bars are too few for the folds, or no trial
                ever traded.
        """
        subject = subject_named(strategy, self.settings)
        if subject.strategy is None:
            raise UsageError(f"{strategy} has no parameters to tune; tune one of the strategies that it is made of")
        if quest.trials is not None and quest.method == "grid":
            raise UsageError("--method grid tries all sets; --trials is for random and bayes")
        space = space_of(subject.strategy, quest.parameters)
        request = self._request(subject, terms)
        budget = None if quest.method == "grid" else quest.trials or DEFAULT_TRIALS
        with session(self.settings) as con:
            bench = open_bench(con, self.project, request, space, newest_snapshot(con))
        folds = cut(bench, quest.folds) if quest.folds else []
        with self._progress("trials", None) as advance:
            search = tune(
                bench,
                space,
                method=quest.method,
                objective=quest.objective,
                trials=budget,
                seed=quest.seed,
                progress=advance,
            )
        walked = None
        if folds:
            with self._progress("folds", quest.folds) as advance:
                walked = walk(
                    bench,
                    space,
                    folds=folds,
                    method=quest.method,
                    objective=quest.objective,
                    trials=budget,
                    seed=quest.seed,
                    progress=advance,
                )
        best = replace(request, subject=bench.subject.tuned(search.best), trials=search.trials)
        return Tuning(search, self._run_and_store([best], "mts optimize")[0], walked)

    def reproduce(self, run_id: str) -> Reproduction:
        """Run a stored backtest again.

        Raises:
            UsageError: there is no such run.
            LakeError: its snapshot has expired.
        """
        with self.console.status(f"{run_id} once more ..."), session(self.settings) as con:
            return reproduce(con, self.project, self.settings, run_id, datetime.now(UTC))

    def sheet(self, run: Run, path: Path | None, extras: Extras | None = None) -> Path | None:
        """Write the tear sheet where one was asked for, at a ``sheet_place``."""
        if path is None:
            return None
        with self.console.status("tear sheet ..."):
            return write_sheet(self.settings, run, path=path, extras=extras)

    def _request(self, subject: Subject, terms: Terms) -> Request:
        """Make what was typed exact.

        Raises:
            UsageError: a coin is unknown, the window is reversed, in the future or before all coins, or there is no
                capital.
        """
        with session(self.settings) as con:
            if terms.symbols is not None:
                require_assets(con, self.project, terms.symbols)
                subject = subject.on(tuple(dict.fromkeys(terms.symbols)))
            start = _start(terms.first or first_bar(con, self.project, subject.assets))
        return Request(subject, start, _end(start, terms.last), self._assumptions(terms))

    def _assumptions(self, terms: Terms) -> Assumptions:
        found = load_assumptions(terms.assumptions or self.settings.backtest_assumptions)
        return with_capital(found, terms.capital_usd, strict=terms.strict)

    def _run_and_store(
        self, requests: Sequence[Request], command: str, advance: Callable[[int, int], None] | None = None
    ) -> list[Run]:
        now = datetime.now(UTC)
        runs = []
        with session(self.settings) as con:
            snapshot = newest_snapshot(con)
            for done, request in enumerate(requests, 1):
                runs.append(execute(con, self.project, request, now=now, snapshot=snapshot))
                if advance:
                    advance(done, len(requests))
        version = str(runs[0].result.provenance.code_version)
        store_runs(self.settings, runs, Origin(asset=command, run_id="", code_version=version, partitions=""))
        return runs

    @contextmanager
    def _progress(self, what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
        """A bar on stderr; the function that it yields takes how many are done, and how many there are."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, all_of_them: bar.update(task, completed=done, total=all_of_them)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _start(first: date) -> datetime:
    """Begin of the first day.

    Raises:
        UsageError: no coin existed yet.
    """
    if first < FIRST_BLOCK:
        raise UsageError(f"--start {first} lies before {FIRST_BLOCK}, the day of Bitcoin's first block; begin later")
    return _midnight(first)


def _end(start: datetime, last: date | None) -> datetime:
    """End of the last day, exclusive, not beyond the last closed one.

    Raises:
        UsageError: the day lies before the start or in the future.
    """
    closed = at_midnight(datetime.now(UTC))
    if last is None:
        return closed
    if _midnight(last) > closed:
        raise UsageError(f"--end {last} lies in the future; the last closed day is {(closed - ONE_DAY).date()} (UTC)")
    if last < start.date():
        raise UsageError(f"the start {start.date()} lies after the end {last}")
    return min(_midnight(last) + ONE_DAY, closed)
