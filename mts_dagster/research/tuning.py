"""The parameters of a strategy, searched and walked forward.

What belongs here: the space of a strategy's tunable parameters, and decisions for a set of them as the sweep wants
them. The search itself is ``mts_dagster.backtest.optimise``, the folds are ``mts_dagster.backtest.walk_forward``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mts_dagster.backtest.market import MarketData
from mts_dagster.backtest.optimise import Method, Objective, Search, Space, every_set, search
from mts_dagster.backtest.run import Window, prepare
from mts_dagster.backtest.sweep import Params, Progress
from mts_dagster.backtest.walk_forward import Fold, WalkForward, purged_folds, walk_forward
from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.lake.slices import Slice
from mts_dagster.research.inputs import ONE_DAY, Inputs, read_inputs, read_market
from mts_dagster.research.rehearsal import Rehearsal
from mts_dagster.research.runs import Request
from mts_dagster.research.subject import Subject
from mts_dagster.research.version import code_version
from mts_dagster.sql_models import Project
from mts_dagster.strategies.base import Parameter, Strategy
from mts_dagster.strategies.config import suggestion

MOST_SETS = 20_000
DIGITS = 10
PURGE_BARS = 5
WORKERS = 1  # decisions hold the interpreter's lock, and two threads that fight for it take longer than one
MOST_KEPT_BYTES = 256 << 20


def values_of(parameter: Parameter) -> list[float]:
    """The values of a parameter worth trying, from low to high in its step."""
    count = math.floor((parameter.high - parameter.low) / parameter.step + 1e-9) + 1
    values = [round(parameter.low + i * parameter.step, DIGITS) for i in range(count)]
    return [int(value) for value in values] if parameter.integer else values


def space_of(strategy: Strategy[Any], names: Sequence[str] | None = None) -> dict[str, list[float]]:
    """The parameters to search, all tunable ones if none are named.

    Raises:
        UsageError: there is no such parameter, the strategy has none, or there are too many sets.
    """
    tunable = {parameter.name: parameter for parameter in strategy.parameters()}
    if not tunable:
        raise UsageError(f"strategy {strategy.name} has no parameters to tune")
    for name in names or ():
        if name not in tunable:
            raise UsageError(f"strategy {strategy.name} has no tunable parameter {name!r}: {suggestion(name, tunable)}")
    space = {name: values_of(tunable[name]) for name in (names or tunable)}
    sets = math.prod(len(values) for values in space.values())
    if sets > MOST_SETS:
        raise UsageError(f"{sets} parameter sets are more than {MOST_SETS}: name fewer with --parameters {list(space)}")
    return space


@dataclass(frozen=True)
class Bench:
    """A strategy ready to be tried with any parameters over one market.

    Attributes:
        subject: The strategy.
        request: Window and assumptions.
        market: The aligned bars.
        rehearsal: Makes the decisions.
        inputs: What the request itself read.
        decided: Decisions already made, by the parameters in the order of their names, for the next fold.
    """

    subject: Subject
    request: Request
    market: MarketData
    rehearsal: Rehearsal
    inputs: Inputs
    decided: dict[tuple[tuple[str, Any], ...], NDArray[np.void]] = field(default_factory=dict)

    def decide(self, params: Params) -> NDArray[np.void]:
        """What is decided with these parameters, as commands."""
        key = tuple(sorted(params.items()))
        if key in self.decided:
            return self.decided[key]
        commands = self.rehearsal.commands(self.tuned(params))
        if len(self.decided) * commands.nbytes < MOST_KEPT_BYTES:
            self.decided[key] = commands
        return commands

    def tuned(self, params: Params) -> Strategy[Any]:
        """The strategy with these parameters."""
        if self.subject.strategy is None:
            raise UsageError(f"{self.subject.name} has no parameters to tune")
        return self.subject.strategy.tuned(params)

    def valid(self, params: Params) -> bool:
        """Whether the strategy's config accepts these parameters together."""
        return self.subject.strategy is not None and accepts(self.subject.strategy, params)


def open_bench(
    con: duckdb.DuckDBPyConnection, project: Project, request: Request, space: Space, snapshot: int
) -> Bench:
    """Read everything once: bars, funding, and features from the longest lookback of any set of ``space`` on.

    Raises:
        UsageError: there is nothing to trade or no set to try, or the subject is not a strategy.
    """
    subject = request.subject
    if subject.strategy is None:
        raise UsageError(f"{subject.name} has no parameters to tune; tune a strategy")
    inputs = read_inputs(con, project, subject, request.window, request.assumptions, snapshot)
    longest = longest_lookback(subject.strategy, space)
    window = Slice(request.start - ONE_DAY, request.end)
    tables = read_market(con, project, longest, window, snapshot)
    market = prepare(inputs.bars, inputs.funding, request.assumptions, Window(request.start, request.end))
    rehearsal = Rehearsal(
        tables.prepared(subject.strategy.inputs, subject.assets),
        market,
        window.start.date(),
        window.end.date(),
        request.assumptions.fills.decision_delay_s,
    )
    return Bench(subject, request, market, rehearsal, inputs)


def longest_lookback(strategy: Strategy[Any], space: Space) -> Strategy[Any]:
    """The strategy with the set of the space that looks back furthest.

    Every set is asked: parameters may add up, and a value may be allowed beside some values of the others alone.

    Raises:
        UsageError: the config accepts no set of the space.
    """
    sets = every_set(space, partial(accepts, strategy))
    return max((strategy.tuned(params) for params in sets), key=lambda tuned: tuned.lookback_days)


def accepts(strategy: Strategy[Any], params: Params) -> bool:
    """Whether the strategy's config accepts these parameters together."""
    try:
        strategy.tuned(params)
    except ConfigError:
        return False
    return True


def tune(
    bench: Bench,
    space: Space,
    *,
    method: Method,
    objective: Objective,
    trials: int | None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Search:
    """Search the space.

    Raises:
        StrategyError: the strategy decides otherwise among other sets than alone.
    """
    found = search(
        bench.market,
        bench.decide,
        space,
        bench.request.assumptions,
        method=method,
        objective=objective,
        budget=trials,
        seed=seed,
        valid=bench.valid,
        progress=progress,
        workers=WORKERS,
    )
    for params in (found.table.iloc[0], found.best):
        bench.rehearsal.check(bench.tuned({name: params[name] for name in space}))
    return found


def cut(bench: Bench, folds: int) -> list[Fold]:
    """Cut the bars into so many folds.

    Raises:
        UsageError: there are too few bars.
    """
    return purged_folds(bench.market.bars, folds, PURGE_BARS)


def walk(
    bench: Bench,
    space: Space,
    *,
    folds: Sequence[Fold],
    method: Method,
    objective: Objective,
    trials: int | None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WalkForward:
    """Choose on the past, judge on what came after, fold by fold."""
    return walk_forward(
        bench.market,
        bench.decide,
        space,
        bench.request.assumptions,
        list(folds),
        method=method,
        objective=objective,
        budget=trials,
        seed=seed,
        valid=bench.valid,
        progress=progress,
        workers=WORKERS,
    )


def walk_rows(walk: WalkForward, bench: Bench, snapshot: int, now: pd.Timestamp) -> pd.DataFrame:
    """Rows of the table ``walk_forward``."""
    frame = walk.frame()
    return pd.DataFrame(
        {
            "strategy": bench.subject.name,
            "fold": frame["fold"],
            "train_start": frame["train_start"],
            "train_end": frame["train_end"],
            "test_start": frame["test_start"],
            "test_end": frame["test_end"],
            "parameters": [json.dumps(fold.params, sort_keys=True) for fold in walk.folds],
            "objective": walk.objective,
            "in_sample": [fold.in_sample for fold in walk.folds],
            "out_of_sample": [fold.out_of_sample for fold in walk.folds],
            "trials": [fold.trials for fold in walk.folds],
            "joined_return_pct": walk.growth.total_return_pct,
            "joined_sharpe": walk.growth.sharpe,
            "efficiency": walk.efficiency,
            "deflated_sharpe": walk.deflated_sharpe,
            "all_trials": walk.trials.count,
            "created_at": now,
            "lake_snapshot": snapshot,
            "code_version": code_version(bench.subject),
            "config_hash": bench.request.assumptions.config_hash(),
        }
    )
