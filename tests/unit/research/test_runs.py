"""Requests, their names, folds and how they are joined."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.metrics import Trials
from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.research.folds import fold_request, join_by_growth
from mts_dagster.research.reproduce import _same
from mts_dagster.research.runs import Request, load_assumptions, run_id_of, with_capital
from mts_dagster.research.subject import subject_named
from mts_dagster.settings import load_settings

SETTINGS = load_settings(strategy_folders=())
MOMENTUM = subject_named("momentum", SETTINGS)
YEAR = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
REQUEST = Request(MOMENTUM, *YEAR, Assumptions())


def test_a_fold_is_its_whole_year() -> None:
    """Half-open, and named after strategy and year."""
    fold = fold_request(MOMENTUM, 2024, Assumptions(), datetime(2026, 3, 5, 12, tzinfo=UTC))
    assert (fold.start, fold.end) == YEAR
    assert run_id_of(fold, 7, "v") == "momentum-2024"


def test_the_running_year_ends_at_its_last_closed_day() -> None:
    """On 5 March the 4th is over and the 5th is not."""
    fold = fold_request(MOMENTUM, 2024, Assumptions(), datetime(2024, 3, 5, 23, 59, tzinfo=UTC))
    assert fold.end == datetime(2024, 3, 5, tzinfo=UTC)


def test_a_year_without_a_closed_day_is_refused() -> None:
    """On New Year's Day there is nothing to trade yet."""
    with pytest.raises(UsageError, match="no day of 2024 is over yet"):
        fold_request(MOMENTUM, 2024, Assumptions(), datetime(2024, 1, 1, 18, tzinfo=UTC))


def test_the_name_tells_everything_that_decides_the_numbers() -> None:
    """Same request, same rows, same code: same name; any of them different: another one."""
    names = {
        run_id_of(REQUEST, 7, "v"),
        run_id_of(replace(REQUEST, subject=MOMENTUM.tuned({"window_days": 40})), 7, "v"),
        run_id_of(replace(REQUEST, subject=MOMENTUM.on(["bitcoin"])), 7, "v"),
        run_id_of(replace(REQUEST, end=datetime(2024, 6, 1, tzinfo=UTC)), 7, "v"),
        run_id_of(replace(REQUEST, assumptions=Assumptions(initial_capital_usd=5.0)), 7, "v"),
        run_id_of(replace(REQUEST, trials=Trials(10, 0.1)), 7, "v"),
        run_id_of(REQUEST, 8, "v"),
        run_id_of(REQUEST, 7, "w"),
    }
    assert len(names) == 8
    assert run_id_of(replace(REQUEST), 7, "v") in names


def test_folds_are_joined_by_their_growth() -> None:
    """100 to 110 is 10 %, 50 to 45 to 60 is -10 % then a third more: 110, 99, 132."""
    joined = join_by_growth([np.array([100.0, 110.0]), np.array([50.0, 45.0, 60.0])])
    assert joined.tolist() == pytest.approx([100.0, 110.0, 99.0, 132.0])


@pytest.mark.parametrize("capital", [0.0, -5.0, math.inf, math.nan])
def test_there_has_to_be_capital(capital: float) -> None:
    """Zero, less, and what is no number."""
    with pytest.raises(UsageError, match="capital must be above zero"):
        with_capital(Assumptions(), capital, strict=False)


def test_the_command_line_changes_capital_and_strictness_alone() -> None:
    """The rest stays as the file says; a strict file stays strict."""
    file = Assumptions(rebalance_threshold=0.02, strict=True)
    changed = with_capital(file, 5_000.0, strict=False)
    assert changed == file.model_copy(update={"initial_capital_usd": 5_000.0})


def test_delivered_assumptions_are_valid() -> None:
    """And have funding: the default instrument is a perpetual."""
    terms = load_assumptions(SETTINGS.backtest_assumptions)
    assert terms.venue("bitcoin").kind == "perpetual"


def test_a_missing_file_of_assumptions_is_named(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        load_assumptions(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("stored", "found", "same"),
    [
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.001, False),
        (None, math.nan, True),
        (None, 1.0, False),
        ("a", "a", True),
        (3, 4, False),
    ],
)
def test_what_counts_as_equal(stored: object, found: object, same: bool) -> None:
    """A billionth of dust, and nothing is nothing."""
    assert _same(stored, found) is same
