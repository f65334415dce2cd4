"""Parameters of a strategy tried over a market: what is decided, what the walk keeps, and how a sweep is stopped."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime

import pandas as pd
import pytest

from mts_dagster.backtest.config import Assumptions, Limits
from mts_dagster.backtest.run import Window, backtest_signals, prepare
from mts_dagster.backtest.signals import Decided
from mts_dagster.backtest.sweep import Params, sweep
from mts_dagster.backtest_schemas import WalkForward
from mts_dagster.lake.validate import validate_frame
from mts_dagster.research import tuning
from mts_dagster.research.inputs import Inputs
from mts_dagster.research.rehearsal import Rehearsal
from mts_dagster.research.runs import Request
from mts_dagster.research.subject import subject_named
from mts_dagster.research.tuning import Bench, cut, tune, walk, walk_rows
from mts_dagster.schemas import table_of
from mts_dagster.settings import load_settings
from mts_dagster.strategies import Market, decide

START, END = datetime(2024, 2, 5, tzinfo=UTC), datetime(2024, 10, 20, tzinfo=UTC)
TERMS = Assumptions(rebalance_threshold=0.005)
SPACE: dict[str, list[float]] = {"window_days": [10, 20, 30], "long_above_pct": [0.0, 5.0]}


FIRST_DAY = date(2024, 2, 4)  # the day whose close is the first open


def bench_of(market: Market, bars: pd.DataFrame, terms: Assumptions) -> Bench:
    """Momentum over the seeded market."""
    subject = subject_named("momentum", load_settings(strategy_folders=()))
    assert subject.strategy is not None
    signals = decide(subject.strategy, market, FIRST_DAY, END.date())
    none = pd.DataFrame({"settled_at": pd.DatetimeIndex([], tz="UTC"), "asset": [], "funding_rate": []})
    inputs = Inputs(bars, none, signals, market, (), 0, 1)
    prepared = prepare(bars, none, terms, Window(START, END))
    shown = market.prepared(subject.strategy.inputs, subject.assets)
    rehearsal = Rehearsal(shown, prepared, FIRST_DAY, END.date(), terms.fills.decision_delay_s)
    return Bench(subject, Request(subject, START, END, terms), prepared, rehearsal, inputs)


@pytest.fixture(scope="module")
def bench(market: Market, bars: pd.DataFrame) -> Bench:
    """With plain assumptions."""
    return bench_of(market, bars, TERMS)


@pytest.mark.parametrize("limits", [Limits(), Limits(max_trades_per_day=1), Limits(max_position=0.05)], ids=str)
def test_each_trial_of_a_search_is_the_backtest_of_its_parameters(
    market: Market, bars: pd.DataFrame, limits: Limits
) -> None:
    """Also where limits reject what is wanted, and it is tried again on the next day."""
    bench = bench_of(market, bars, Assumptions(rebalance_threshold=0.005, limits=limits))
    found = tune(bench, SPACE, method="grid", objective="sharpe", trials=None)
    assert found.trials.count == 6
    for row in found.table.to_dict(orient="records"):
        signals = decide(bench.tuned({name: row[name] for name in SPACE}), market, FIRST_DAY, END.date())
        result = backtest_signals(signals, bars, bench.request.assumptions, window=Window(START, END))
        assert result.metrics.sharpe == pytest.approx(row["sharpe"], rel=1e-12)
        assert result.metrics.total_return_pct == pytest.approx(row["total_return_pct"], rel=1e-12)


def test_decisions_are_made_once_for_each_set(bench: Bench) -> None:
    """The same set again, in whatever order, is the same array."""
    one = bench.decide({"window_days": 20, "long_above_pct": 5.0})
    assert bench.decide({"long_above_pct": 5.0, "window_days": 20}) is one


def test_what_does_not_fit_is_decided_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions of very many sets over a long time are not all kept."""
    monkeypatch.setattr(tuning, "MOST_KEPT_BYTES", 0)
    params = {"window_days": 50, "long_above_pct": 5.0}
    assert bench.decide(params) is not bench.decide(params)
    assert (bench.decide(params) == bench.decide(params)).all()


def test_the_rows_of_a_walk_keep_their_contract(bench: Bench) -> None:
    """One row a fold, purged, with the parameters as JSON and every trial counted."""
    found = walk(bench, SPACE, folds=cut(bench, 3), method="grid", objective="sharpe", trials=None)
    rows = validate_frame(table_of(WalkForward), walk_rows(found, bench, 7, pd.Timestamp("2024-11-01", tz="UTC")))
    assert rows["fold"].tolist() == [0, 1, 2]
    assert rows["trials"].tolist() == [6, 6, 6]
    assert set(rows["all_trials"]) == {18}
    assert set(rows["test_start"] - rows["train_end"]) == {pd.Timedelta(days=5)}
    assert [set(json.loads(text)) for text in rows["parameters"]] == [set(SPACE)] * 3


def test_a_sweep_that_is_stopped_does_not_go_on(bench: Bench) -> None:
    """Ctrl-C in one thread: the other one does not work through the rest."""
    decided = []
    first = threading.Event()

    def decide_or_stop(params: Params) -> Decided:
        decided.append(params)
        if len(decided) == 1:
            first.set()
            raise KeyboardInterrupt
        first.wait()
        return bench.decide(params)

    with pytest.raises(KeyboardInterrupt):
        sweep(bench.market, decide_or_stop, [{"window_days": 20}] * 5_000, replace(bench.request).assumptions)
    assert len(decided) < 5_000
