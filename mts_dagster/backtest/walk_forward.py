"""Parameters chosen on the past, judged on what came after: walk-forward with purged folds.

What belongs here: the folds and the loop over them. Between the last bar that the choice may see and the
first bar that judges it lie the purged bars, so that nothing measured over a horizon (a position still open,
a return label) reaches from one side to the other (López de Prado, "Advances in Financial Machine Learning",
2018, chapter 7).
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mts_dagster.backtest.layout import MOMENTS, FloatArray, rows
from mts_dagster.backtest.market import MarketData, utc_index
from mts_dagster.backtest.metrics import (
    Growth,
    Trials,
    expected_maximum_sharpe,
    growth_of,
    probabilistic_sharpe,
)
from mts_dagster.backtest.moments import measure
from mts_dagster.backtest.optimise import Method, Objective, Search, Space, Valid, search
from mts_dagster.backtest.signals import Decided, part_of
from mts_dagster.backtest.simulation import simulate
from mts_dagster.backtest.sweep import WORKERS, commands_of
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.sweep import Decide, Params, Progress


@dataclass(frozen=True)
class Fold:
    """Bars to choose on and bars to judge on, half-open."""

    train_start: int
    train_stop: int
    test_start: int
    test_stop: int


@dataclass(frozen=True)
class FoldResult:
    """What one fold chose and what became of it.

    Attributes:
        fold: The bars.
        params: Chosen on the training bars.
        in_sample: Objective there.
        out_of_sample: The same objective on the test bars.
        trials: Backtests run to choose.
        equity: Equity over the test bars, from the close before the first of them.
    """

    fold: Fold
    params: dict[str, Any]
    in_sample: float
    out_of_sample: float
    trials: int
    equity: FloatArray


@dataclass(frozen=True)
class WalkForward:
    """The folds joined.

    Attributes:
        market: What was traded.
        objective: What was maximised.
        folds: In the order of time.
        equity: Test equities joined by their growth, from the capital at the start.
        growth: Metrics of the joined curve.
        trials: All backtests of all folds.
        deflated_sharpe: Of the joined curve, given all trials.
    """

    market: MarketData
    objective: Objective
    folds: tuple[FoldResult, ...]
    equity: FloatArray
    growth: Growth
    trials: Trials
    deflated_sharpe: float

    @property
    def efficiency(self) -> float:
        """Mean objective out of sample over mean objective in sample; 1 would mean nothing was overfitted."""
        inside = float(np.mean([fold.in_sample for fold in self.folds]))
        return float(np.mean([fold.out_of_sample for fold in self.folds])) / inside if inside else float("nan")

    def frame(self) -> pd.DataFrame:
        """Return one row a fold: windows (half-open, UTC), parameters, objective on both sides, trials."""
        opens = utc_index(
            np.append(self.market.arrays.open_ns, self.market.arrays.open_ns[-1:] + self.market.interval_ns)
        )
        return pd.DataFrame(
            [
                {
                    "fold": number,
                    "train_start": opens[item.fold.train_start],
                    "train_end": opens[item.fold.train_stop],
                    "test_start": opens[item.fold.test_start],
                    "test_end": opens[item.fold.test_stop],
                    **item.params,
                    f"{self.objective}_in_sample": item.in_sample,
                    f"{self.objective}_out_of_sample": item.out_of_sample,
                    "trials": item.trials,
                }
                for number, item in enumerate(self.folds)
            ]
        )


def purged_folds(bars: int, count: int, purge: int, *, anchored: bool = True, first_train: float = 0.5) -> list[Fold]:
    """Cut bars into folds: a stretch to choose on, purged bars, a stretch to judge on, one after the other.

    Args:
        bars: Bars there are.
        count: Folds.
        purge: Bars between training and test that belong to neither; at least as long as a position or label
            lasts.
        anchored: Training grows from the first bar; otherwise it keeps its first length and moves.
        first_train: Share of the bars before the first test.

    Raises:
        UsageError: there are too few bars.
    """
    begin = int(bars * first_train)
    edges = np.linspace(begin, bars, count + 1).astype(int).tolist()
    length = begin - purge
    if count < 1 or length < 2 or min(np.diff(edges)) < 1:  # noqa: PLR2004 - a return needs two bars
        raise UsageError(f"{bars} bars are too few for {count} folds with {purge} purged bars each")
    return [
        Fold(0 if anchored else start - purge - length, start - purge, start, stop)
        for start, stop in itertools.pairwise(edges)
    ]


def walk_forward(
    market: MarketData,
    decide: Decide,
    space: Space,
    assumptions: Assumptions,
    folds: list[Fold],
    *,
    method: Method = "grid",
    objective: Objective = "sharpe",
    budget: int | None = None,
    seed: int = 0,
    valid: Valid | None = None,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> WalkForward:
    """Choose parameters on each fold's training bars and trade its test bars with them.

    ``decide`` is called for the whole market and what it decides is cut, so that indicators of a test bar have
    warmed up on the bars before; it must not look ahead. Each test starts flat and with the capital of the
    assumptions. ``progress`` counts folds. The other arguments are those of ``optimise.search``.
    """
    results = []
    sharpes: list[float] = []
    for number, fold in enumerate(folds):
        train = market.part(fold.train_start, fold.train_stop)

        def inside(params: Params, fold: Fold = fold) -> Decided:
            return part_of(decide(params), fold.train_start, fold.train_stop)

        found = search(
            train,
            inside,
            space,
            assumptions,
            method=method,
            objective=objective,
            budget=budget,
            seed=seed,
            valid=valid,
            workers=workers,
        )
        sharpes += found.table["sharpe_per_bar"].tolist()
        results.append(judge(market, decide, assumptions, fold, found))
        if progress is not None:
            progress(number + 1, len(folds))
    return join(market, objective, results, Trials.of(sharpes), assumptions.initial_capital_usd)


def judge(market: MarketData, decide: Decide, assumptions: Assumptions, fold: Fold, found: Search) -> FoldResult:
    """Trade the test bars of a fold with the parameters that were found on its training bars."""
    best = found.best
    test = market.part(fold.test_start - 1, fold.test_stop)
    decided = part_of(decide(best), fold.test_start - 1, fold.test_stop)
    equity = simulate(test, commands_of(decided, test.bars), assumptions).equity
    outside = asdict(growth_of(moments_of(equity), market.interval_ns))
    inside = float(found.table[found.objective].max())
    return FoldResult(fold, best, inside, outside[found.objective], len(found.table), equity)


def moments_of(equity: FloatArray) -> np.void:
    """Return the reduced equity curve (dtype ``layout.MOMENTS``)."""
    table = np.zeros(1, MOMENTS)
    measure(equity, rows(table))
    row: np.void = table[0]
    return row


def join(
    market: MarketData, objective: Objective, results: list[FoldResult], trials: Trials, capital: float
) -> WalkForward:
    """Join the test curves of consecutive folds by their growth."""
    curve = [np.array([capital])]
    for result in results:
        curve.append(curve[-1][-1] * result.equity[1:] / result.equity[0])
    equity = np.concatenate(curve)
    moments = moments_of(equity)
    return WalkForward(
        market,
        objective,
        tuple(results),
        equity,
        growth_of(moments, market.interval_ns),
        trials,
        probabilistic_sharpe(moments, expected_maximum_sharpe(trials)),
    )
