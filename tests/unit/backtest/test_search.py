"""Sweeps, searches and walk-forward: every trial counted, none of them different from a plain backtest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.market import MarketData, market_from_arrays
from mts_dagster.backtest.optimise import Search, every_set, search
from mts_dagster.backtest.signals import Targets, commands_from_targets
from mts_dagster.backtest.simulation import simulate
from mts_dagster.backtest.sweep import Params, sweep
from mts_dagster.backtest.walk_forward import Fold, purged_folds, walk_forward
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_dagster.backtest.config import Assumptions
    from tests.unit.backtest.playing import Assume

HOUR_NS = 3_600_000_000_000
BARS = 600
SPACE = {"fast": [2, 3, 5, 8], "slow": [10, 20, 40]}


@pytest.fixture(scope="module")
def market() -> MarketData:
    """Return a random walk with a wave that a moving average can ride."""
    rng = np.random.default_rng(3)
    drift = 0.004 * np.sin(np.arange(BARS) / 25)
    close = 100 * np.exp(np.cumsum(drift + rng.normal(0, 0.004, BARS)))
    opens = np.concatenate([[100.0], close[:-1]])
    return market_from_arrays(
        np.arange(BARS) * HOUR_NS, opens, np.maximum(opens, close), np.minimum(opens, close), close
    )


@pytest.fixture(scope="module")
def terms(assume: Assume) -> Assumptions:
    """Return a plain taker fee."""
    return assume(taker_fee_bps=5.0)


def cross(market: MarketData) -> Callable[[Params], Targets]:
    """Return a decision maker: long while the fast average is above the slow one."""
    close = pd.Series(market.arrays.mark[:, 0])

    def decide(params: Params) -> Targets:
        fast, slow = (close.rolling(int(params[name])).mean() for name in ("fast", "slow"))
        return np.asarray(fast > slow, dtype=np.int8)

    return decide


def test_a_sweep_gives_what_single_backtests_give(market: MarketData, terms: Assumptions) -> None:
    """Twelve trials on two threads and reused tables end with the same equity as twelve runs of their own."""
    decide = cross(market)
    table = sweep(market, decide, every_set(SPACE), terms)
    alone = [simulate(market, commands_from_targets(decide(params)), terms).equity[-1] for params in every_set(SPACE)]
    assert table["total_return_pct"].tolist() == pytest.approx([100 * (end / 1000 - 1) for end in alone])
    assert table[["fast", "slow"]].to_dict("records") == every_set(SPACE)


def test_a_sweep_tells_its_progress(market: MarketData, terms: Assumptions) -> None:
    """Each trial once, the last one says all."""
    seen: list[tuple[int, int]] = []
    sweep(market, cross(market), every_set(SPACE), terms, progress=lambda done, total: seen.append((done, total)))
    assert sorted(seen) == [(i, 12) for i in range(1, 13)]


def test_targets_of_the_wrong_length_are_refused(market: MarketData, terms: Assumptions) -> None:
    """A strategy that forgets a bar is a wrong strategy."""
    with pytest.raises(UsageError, match="599 targets for 600 bars"):
        sweep(market, lambda _: np.zeros(BARS - 1, np.int8), [{}], terms)


def test_the_grid_finds_the_best_of_all(market: MarketData, terms: Assumptions) -> None:
    """The best is the maximum of the table, and all twelve are trials."""
    found = search(market, cross(market), SPACE, terms)
    row = found.table.iloc[int(found.table["sharpe"].argmax())]
    assert found.best == {"fast": row["fast"], "slow": row["slow"]}
    assert found.trials.count == 12
    assert found.trials.sharpe_variance == pytest.approx(found.table["sharpe_per_bar"].var())


def test_parameter_sets_that_are_not_valid_are_not_tried() -> None:
    """Fast must be shorter than slow: of 2 x 2 sets one is left out."""
    sets = every_set({"fast": [5, 20], "slow": [10, 30]}, lambda p: p["fast"] < p["slow"])
    assert sets == [{"fast": 5, "slow": 10}, {"fast": 5, "slow": 30}, {"fast": 20, "slow": 30}]


def test_an_empty_space_is_refused() -> None:
    """Nothing to try is a mistake of the caller."""
    with pytest.raises(UsageError, match="no parameter set"):
        every_set({"fast": [1]}, lambda _: False)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_with_a_seed_is_repeatable(market: MarketData, terms: Assumptions, method: str) -> None:
    """Six different sets of twelve, the same six each time, and as many trials as were run."""

    def run(seed: int) -> Search:
        return search(market, cross(market), SPACE, terms, method=method, budget=6, seed=seed)  # type: ignore[arg-type]  # parametrised

    first, second = run(1), run(1)
    pd.testing.assert_frame_equal(first.table, second.table)
    assert len(first.table[["fast", "slow"]].drop_duplicates()) == first.trials.count == 6


def test_a_bayesian_search_of_the_whole_space_finds_what_the_grid_finds(market: MarketData, terms: Assumptions) -> None:
    """With a budget for every set nothing can be missed."""
    grid = search(market, cross(market), SPACE, terms)
    bayes = search(market, cross(market), SPACE, terms, method="bayes", budget=12)
    if bayes.trials.count == 12:
        assert bayes.best == grid.best
    assert set(map(tuple, bayes.table[["fast", "slow"]].to_numpy())) <= set(
        map(tuple, grid.table[["fast", "slow"]].to_numpy())
    )


def test_a_search_without_any_trade_has_no_best(market: MarketData, terms: Assumptions) -> None:
    """A strategy that never trades has no Sharpe ratio to choose by."""
    found = search(market, lambda _: np.zeros(BARS, np.int8), {"x": [1, 2]}, terms)
    with pytest.raises(UsageError, match="no parameter set traded"):
        _ = found.best


def table_search(objective: list[list[float]]) -> Search:
    """Return a finished search over x (columns) and y (rows)."""
    rows = [
        {"x": x, "y": y, "sharpe": value, "total_return_pct": value, "sharpe_per_bar": value / 10}
        for y, line in enumerate(objective)
        for x, value in enumerate(line)
    ]
    space = {"x": list(range(len(objective[0]))), "y": list(range(len(objective)))}
    return Search(pd.DataFrame(rows), space, "sharpe", "grid")


def test_the_heat_map_shows_the_objective_over_two_parameters() -> None:
    """Rows are y, columns are x."""
    heat = table_search([[1.0, 2.0], [3.0, 4.0]]).heat_map("x", "y")
    assert heat.loc[1, 0] == 3.0
    assert heat.loc[0, 1] == 2.0


def test_stability_tells_a_needle_from_a_plateau() -> None:
    """The best (9 at x 0, y 0) stands alone between -1 and -1; around (2, 1) everything is 4 or 5."""
    found = table_search([[9.0, -1.0, 4.0, 4.0], [-1.0, 4.0, 5.0, 4.0], [-1.0, 4.0, 4.0, 4.0]]).stability()
    assert (found.best, found.neighbour_mean, found.neighbour_worst, found.neighbours) == (9.0, -1.0, -1.0, 2)
    assert found.plateau == {"x": 2, "y": 1}
    assert found.profitable_pct == 75.0


def scattered(*trials: tuple[int, int, float]) -> Search:
    """Return a finished search by chance over x and y of 0 to 9."""
    frame = pd.DataFrame(trials, columns=["x", "y", "sharpe"])
    frame = frame.assign(total_return_pct=frame["sharpe"], sharpe_per_bar=frame["sharpe"] / 10)
    return Search(frame, {"x": list(range(10)), "y": list(range(10))}, "sharpe", "random")


def test_a_trial_that_stands_alone_is_no_plateau() -> None:
    """2.0 without a tried neighbour; 1.5, 1.6, 1.5 in a row: (2 x 1.6 + 1.5 + 1.5) / 4 = 1.55 around the middle."""
    found = scattered((1, 1, 2.0), (5, 5, 1.5), (6, 5, 1.6), (7, 5, 1.5)).stability()
    assert (found.best, found.neighbours) == (2.0, 0)
    assert found.plateau == {"x": 6, "y": 5}


def test_without_tried_neighbours_there_is_no_plateau() -> None:
    """Three trials far from each other."""
    assert scattered((1, 1, 2.0), (5, 5, 1.5), (8, 2, 1.6)).stability().plateau is None


def test_parameters_come_back_as_the_space_has_them() -> None:
    """Whole numbers stay whole, though a row of a table with fractions would make them fractions."""
    frame = pd.DataFrame(
        {"days": [10, 20], "share": [0.5, 1.0], "sharpe": [1.0, 2.0], "total_return_pct": 1.0, "sharpe_per_bar": 0.1}
    )
    found = Search(frame, {"days": [10, 20], "share": [0.5, 1.0]}, "sharpe", "grid")
    assert [(value, type(value)) for value in found.best.values()] == [(20, int), (1.0, float)]
    plateau = scattered((1, 1, 2.0), (1, 2, 1.0)).stability().plateau
    assert plateau is not None
    assert [type(value) for value in plateau.values()] == [int, int]


def test_folds_leave_the_purged_bars_out_of_both_sides() -> None:
    """100 bars, half to begin with, two folds, 5 purged: tests of 25 bars, training ends 5 bars before each."""
    assert purged_folds(100, 2, 5) == [Fold(0, 45, 50, 75), Fold(0, 70, 75, 100)]
    assert purged_folds(100, 2, 5, anchored=False) == [Fold(0, 45, 50, 75), Fold(25, 70, 75, 100)]


def test_too_few_bars_for_the_folds_are_refused() -> None:
    """Ten bars cannot hold five folds with three purged bars each."""
    with pytest.raises(UsageError, match="too few"):
        purged_folds(10, 5, 4)


def test_walk_forward_chooses_on_the_past_only(market: MarketData, terms: Assumptions) -> None:
    """What comes after a fold's training bars cannot change its choice."""
    folds = purged_folds(BARS, 3, 20)
    whole = walk_forward(market, cross(market), SPACE, terms, folds)
    stop = folds[1].test_stop
    part = market.part(0, stop)
    earlier = walk_forward(part, cross(part), SPACE, terms, folds[:2])
    assert [f.params for f in earlier.folds] == [f.params for f in whole.folds[:2]]
    assert earlier.equity.tolist() == pytest.approx(whole.equity[: len(earlier.equity)].tolist())


def test_walk_forward_joins_the_tests_and_counts_all_trials(market: MarketData, terms: Assumptions) -> None:
    """Three folds of twelve trials; the joined curve multiplies the growth of the tests."""
    found = walk_forward(market, cross(market), SPACE, terms, purged_folds(BARS, 3, 20))
    assert found.trials.count == 36
    growth = np.prod([fold.equity[-1] / fold.equity[0] for fold in found.folds])
    assert found.equity[-1] == pytest.approx(1000 * growth)
    assert len(found.equity) == BARS // 2 + 1
    frame = found.frame()
    assert frame["test_start"].tolist()[1:] == frame["test_end"].tolist()[:-1]
    assert frame["trials"].sum() == 36


def test_a_test_fold_warms_up_on_the_bars_before_it(market: MarketData, terms: Assumptions) -> None:
    """A target decided at the close before the first test bar trades at its open."""
    folds = [Fold(0, 280, 300, 310)]
    found = walk_forward(market, lambda _: np.ones(BARS, np.int8), {"x": [1]}, terms, folds)
    opens = market.arrays.open[:, 0]
    bought = 1000 / (opens[300] * 1.0005) * (1 - 1e-12)
    assert found.folds[0].equity[-1] == pytest.approx(bought * market.arrays.mark[309, 0], rel=1e-9)
