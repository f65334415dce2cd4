"""The search for parameters: grid, random, Bayesian; and how much the found optimum is worth.

What belongs here: parameter spaces, the three searches, the map of their results and the stability of an
optimum. Every backtest that a search runs is counted, and the count goes into the deflated Sharpe ratio of
whatever is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from mts_dagster.backtest.metrics import Trials
from mts_dagster.backtest.sweep import WORKERS, Decide, Params, Progress, Trial, sweep
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.market import MarketData

Method: TypeAlias = Literal["grid", "random", "bayes"]
Objective: TypeAlias = Literal["sharpe", "sortino", "calmar", "total_return_pct"]
Space: TypeAlias = Mapping[str, Sequence[Any]]  # the values that each parameter may take, in their order
Valid: TypeAlias = Callable[[Params], bool]

WORST: Final = -1e9  # told to the Bayesian sampler for a trial whose objective has no value


@dataclass(frozen=True)
class Stability:
    """Whether an optimum is a plateau or a needle.

    Attributes:
        best: Objective of the best trial.
        neighbour_mean: Mean objective of the trials one step away from it in one parameter.
        neighbour_worst: The worst of them.
        neighbours: How many of them were tried.
        profitable_pct: Trials of the whole search with a gain.
        plateau: Parameters of the trial whose own neighbourhood is best on average; None where no trial has a tried
            neighbour, since one that stands alone says nothing about what lies around it.
    """

    best: float
    neighbour_mean: float
    neighbour_worst: float
    neighbours: int
    profitable_pct: float
    plateau: dict[str, Any] | None


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        table: One row a trial: the parameters, then the metrics of ``sweep.Trial.run``.
        space: The parameters that were searched.
        objective: What was maximised.
        method: How.
    """

    table: pd.DataFrame
    space: Space
    objective: Objective
    method: Method

    @property
    def best(self) -> dict[str, Any]:
        """Parameters of the best trial, the first of them where several are equal.

        Raises:
            UsageError: no trial has a value.
        """
        values = self.table[self.objective]
        if not np.isfinite(values).any():
            raise UsageError(f"none of {len(values)} trials has a {self.objective}: no parameter set traded")
        return self._params(int(np.nanargmax(np.where(np.isfinite(values), values, np.nan))))

    def _params(self, row: int) -> dict[str, Any]:
        """Parameters of one trial as the space holds them: a row of the table would make whole numbers floats."""
        return {name: values[list(values).index(self.table[name].iloc[row])] for name, values in self.space.items()}

    @property
    def trials(self) -> Trials:
        """The trials that were run, for the deflated Sharpe ratio."""
        return Trials.of(self.table["sharpe_per_bar"].to_numpy(np.float64))

    def heat_map(self, x: str, y: str) -> pd.DataFrame:
        """Return the objective over two parameters (rows ``y``, columns ``x``), the mean over all others."""
        return self.table.pivot_table(index=y, columns=x, values=self.objective, aggfunc="mean")

    def stability(self) -> Stability:
        """Compare the optimum with what lies next to it."""
        places = [
            tuple(place)
            for place in np.column_stack(
                [pd.Categorical(self.table[name], categories=list(values)).codes for name, values in self.space.items()]
            ).tolist()
        ]
        values = self.table[self.objective].to_numpy(np.float64)
        scores = np.where(np.isfinite(values), values, np.nan)
        known = {place: score for place, score in zip(places, scores.tolist(), strict=True) if not math.isnan(score)}
        best = int(np.nanargmax(scores))
        beside = np.array([known[place] for place in one_step_from(places[best]) if place in known])
        around = [_mean_around(place, known) for place in places]
        plateau = int(np.argmax(around))
        return Stability(
            best=float(scores[best]),
            neighbour_mean=float(beside.mean()) if len(beside) else math.nan,
            neighbour_worst=float(beside.min()) if len(beside) else math.nan,
            neighbours=len(beside),
            profitable_pct=100.0 * float((self.table["total_return_pct"] > 0).mean()),
            plateau=self._params(plateau) if math.isfinite(around[plateau]) else None,
        )


def one_step_from(place: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the places that differ by one step in one parameter."""
    for axis, position in enumerate(place):
        for step in (-1, 1):
            yield (*place[:axis], position + step, *place[axis + 1 :])


def _mean_around(place: tuple[int, ...], scores: Mapping[tuple[int, ...], float]) -> float:
    """Return the mean score of a place, counted twice, and those beside it; minus infinity without any beside it."""
    beside = [scores[near] for near in one_step_from(place) if near in scores]
    if place not in scores or not beside:
        return -math.inf
    return (2.0 * scores[place] + sum(beside)) / (2 + len(beside))


def every_set(space: Space, valid: Valid | None = None) -> list[dict[str, Any]]:
    """Return all valid combinations of a space, the last parameter running fastest.

    Raises:
        UsageError: the space is empty.
    """
    sets = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    kept = [params for params in sets if valid is None or valid(params)]
    if not space or not kept:
        raise UsageError(f"no parameter set to try in {dict(space)}")
    return kept


def search(
    market: MarketData,
    decide: Decide,
    space: Space,
    assumptions: Assumptions,
    *,
    method: Method = "grid",
    objective: Objective = "sharpe",
    budget: int | None = None,
    seed: int = 0,
    valid: Valid | None = None,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> Search:
    """Search a parameter space.

    Args:
        market: Bars and funding.
        decide: Makes targets from a parameter set.
        space: Values of each parameter.
        assumptions: Costs, fills, limits.
        method: ``grid`` tries all sets, ``random`` as many of them as the budget allows, ``bayes`` lets a
            tree-structured Parzen estimator (Optuna) choose from what it has seen.
        objective: What to maximise.
        budget: Trials for ``random`` and ``bayes``; a tenth of the grid, at least ten, if not given.
        seed: Makes ``random`` and ``bayes`` repeatable.
        valid: Leaves parameter sets out, for instance a fast window that is not shorter than the slow one.
        progress: Called after each trial.
        workers: Threads of ``grid`` and ``random``; one, where ``decide`` holds the interpreter's lock.

    Raises:
        UsageError: the space is empty.
    """
    sets = every_set(space, valid)
    wanted = min(len(sets), budget or max(10, len(sets) // 10))
    if method == "bayes":
        table = bayesian(
            market,
            decide,
            space,
            sets,
            assumptions,
            objective=objective,
            budget=wanted,
            seed=seed,
            progress=progress,
        )
    else:
        if method == "random":
            chosen = np.random.default_rng(seed).choice(len(sets), size=wanted, replace=False)
            sets = [sets[i] for i in chosen]
        table = sweep(market, decide, sets, assumptions, progress=progress, workers=workers)
    return Search(table, space, objective, method)


def bayesian(
    market: MarketData,
    decide: Decide,
    space: Space,
    sets: Sequence[Params],
    assumptions: Assumptions,
    *,
    objective: Objective,
    budget: int,
    seed: int,
    progress: Progress | None,
) -> pd.DataFrame:
    """Let Optuna choose parameter sets until as many different ones as the budget allows have been run.

    The sampler works on the positions of values in the space, so neighbouring values are near each other. A
    set that it asks for again is answered from memory and is not a trial.
    """
    import optuna  # noqa: PLC0415 - half a second to import, and only this search needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    allowed = {tuple(params.values()) for params in sets}
    trial = Trial(market, assumptions)
    done: dict[tuple[Any, ...], dict[str, float]] = {}
    asked = 0
    while len(done) < budget and asked < 10 * budget:
        asked += 1
        question = study.ask()
        params = {name: values[question.suggest_int(name, 0, len(values) - 1)] for name, values in space.items()}
        key = tuple(params.values())
        if key not in allowed:
            study.tell(question, state=optuna.trial.TrialState.PRUNED)
            continue
        if key not in done:
            done[key] = trial.run(decide(params))
            if progress is not None:
                progress(len(done), budget)
        value = done[key][objective]
        study.tell(question, value if math.isfinite(value) else WORST)
    return pd.DataFrame([{**dict(zip(space, key, strict=True)), **metrics} for key, metrics in done.items()])
