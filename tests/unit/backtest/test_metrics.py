"""The numbers of a tear sheet against numbers worked out by hand."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mts_dagster.backtest.layout import MOMENTS, rows
from mts_dagster.backtest.metrics import (
    DAY_NS,
    Trials,
    expected_maximum_sharpe,
    growth_of,
    probabilistic_sharpe,
)
from mts_dagster.backtest.moments import correlation, hold_equally, measure
from mts_dagster.backtest.run import Window, backtest_signals
from tests.unit.backtest.playing import HOUR, START, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from tests.unit.backtest.playing import Assume

EQUITY = [100.0, 110.0, 99.0, 99.0, 121.0, 108.9]
RETURNS = [0.1, -0.1, 0.0, 121 / 99 - 1, -0.1]


def moments_of(equity: list[float]) -> np.void:
    """Return the reduced curve."""
    table = np.zeros(1, MOMENTS)
    measure(np.array(equity), rows(table))
    row: np.void = table[0]
    return row


def test_moments_are_those_of_the_returns() -> None:
    """Mean and sample variance as the statistics module has them; skewness and kurtosis from their definitions."""
    found = moments_of(EQUITY)
    mean = statistics.fmean(RETURNS)
    spread = statistics.pstdev(RETURNS)
    assert found["mean"] == pytest.approx(mean, rel=1e-12)
    assert found["variance"] == pytest.approx(statistics.variance(RETURNS), rel=1e-12)
    assert found["skewness"] == pytest.approx(sum((r - mean) ** 3 for r in RETURNS) / 5 / spread**3, rel=1e-9)
    assert found["kurtosis"] == pytest.approx(sum((r - mean) ** 4 for r in RETURNS) / 5 / spread**4, rel=1e-9)
    assert found["downside"] == pytest.approx((0.01 + 0.01) / 5, rel=1e-12)


def test_drawdown_depth_and_duration() -> None:
    """From 110 to 99 is 10 %, as is from 121 to 108.9; the first lasts from bar 1 to bar 4, back above at 121."""
    found = moments_of(EQUITY)
    assert found["drawdown"] == pytest.approx(0.1)
    assert found["drawdown_bars"] == 3


def test_growth_uses_a_year_of_365_days() -> None:
    """Five daily returns to 1.089: annual 1.089 ** 73 - 1, volatility and Sharpe ratio with the root of 365."""
    growth = growth_of(moments_of(EQUITY), DAY_NS)
    deviation = statistics.stdev(RETURNS)
    assert growth.total_return_pct == pytest.approx(8.9)
    assert growth.annual_return_pct == pytest.approx(100 * (1.089**73 - 1))
    assert growth.volatility_pct == pytest.approx(100 * deviation * math.sqrt(365))
    assert growth.sharpe == pytest.approx(statistics.fmean(RETURNS) / deviation * math.sqrt(365))
    assert growth.sortino == pytest.approx(statistics.fmean(RETURNS) / math.sqrt(0.02 / 5) * math.sqrt(365))
    assert growth.calmar == pytest.approx((1.089**73 - 1) / 0.1)


def test_a_curve_that_does_not_move_has_no_sharpe_ratio() -> None:
    """No variance, no ratio: NaN, not zero and not infinity."""
    growth = growth_of(moments_of([100.0, 100.0, 100.0]), DAY_NS)
    assert (growth.total_return_pct, growth.volatility_pct) == (0.0, 0.0)
    assert math.isnan(growth.sharpe)
    assert math.isnan(growth.calmar)


def test_constant_growth_has_no_variance_from_float_residue() -> None:
    """1 % a bar a hundred times is the same return every time."""
    assert moments_of([100 * 1.01**i for i in range(100)])["variance"] == 0.0


def test_a_used_up_account_returns_nothing_more() -> None:
    """After equity fell below zero returns are zero, not nonsense; the year's growth is minus 100 %."""
    found = moments_of([100.0, 50.0, -10.0, -10.0])
    assert np.isfinite(found["mean"])
    assert growth_of(found, DAY_NS).annual_return_pct == -100.0


def test_a_short_run_may_grow_beyond_any_float() -> None:
    """5 % in a minute, compounded over a year, is infinite and not an error."""
    assert growth_of(moments_of([100.0, 105.0]), DAY_NS // 1440).annual_return_pct == math.inf


def test_a_single_bar_has_no_return_and_so_no_figure_of_returns(assume: Assume) -> None:
    """A window of one bar, after a gap: nothing gained, and neither a year's growth nor a deviation to tell."""
    flat = (100.0, 101.0, 99.0, 100.0)
    bars = frame_of({"BTC": [flat, flat, None, None, flat]})
    signals = bars[["asset"]].assign(
        timestamp=bars["open_time"] + HOUR, direction="long", position_size=0.5, confidence=1.0
    )
    metrics = backtest_signals(signals, bars, assume(), window=Window(start=START + 4 * HOUR)).metrics
    assert (metrics.bars, metrics.total_return_pct, metrics.max_drawdown_pct) == (1, 0.0, 0.0)
    undefined = (
        *(metrics.annual_return_pct, metrics.volatility_pct, metrics.sharpe, metrics.sortino, metrics.calmar),
        *(metrics.turnover_per_year, metrics.buy_hold_correlation),
        *(metrics.probabilistic_sharpe, metrics.deflated_sharpe),
    )
    assert all(math.isnan(value) for value in undefined)


def test_the_probabilistic_sharpe_ratio_follows_its_paper() -> None:
    """Worked example of Bailey and López de Prado (2012): SR 0.458 monthly, 24 months, skew -2.448, kurtosis 10.164.

    The paper's table gives an annual ratio of 1.59 and a probability of 0.913 against a threshold of zero.
    """
    moments = np.zeros(1, MOMENTS)
    sharpe = 0.458
    moments["mean"], moments["variance"] = sharpe, 1.0
    moments["count"], moments["skewness"], moments["kurtosis"] = 24, -2.448, 10.164
    assert probabilistic_sharpe(moments[0]) == pytest.approx(0.913, abs=2e-3)


def test_the_deflated_sharpe_ratio_follows_its_paper() -> None:
    """Worked example of Bailey and López de Prado (2014): 100 trials, variance 1/2 annual, 1250 days, SR 2.5 annual.

    The expected maximum is 0.1132 a day, and with skewness -3 and kurtosis 10 the probability is 0.9004.
    """
    trials = Trials(100, 0.5 / 250)
    assert expected_maximum_sharpe(trials) == pytest.approx(0.1132, abs=5e-5)
    moments = np.zeros(1, MOMENTS)
    moments["mean"], moments["variance"] = 2.5 / math.sqrt(250), 1.0
    moments["count"], moments["skewness"], moments["kurtosis"] = 1250, -3.0, 10.0
    assert probabilistic_sharpe(moments[0], expected_maximum_sharpe(trials)) == pytest.approx(0.9004, abs=5e-5)


def test_one_trial_deflates_nothing() -> None:
    """Nothing was selected."""
    assert expected_maximum_sharpe(Trials()) == 0.0


def test_trials_count_those_without_a_sharpe_ratio_too() -> None:
    """A parameter set that never traded was still tried."""
    trials = Trials.of([0.1, float("nan"), 0.3])
    assert trials.count == 3
    assert trials.sharpe_variance == pytest.approx(0.02)


def test_correlation_is_that_of_the_returns() -> None:
    """Against itself 1, against its mirror -1, against a constant 0."""
    mirror = np.array([100.0 * math.prod(1 - r for r in RETURNS[:i]) for i in range(6)])
    assert correlation(np.array(EQUITY), np.array(EQUITY)) == pytest.approx(1.0)
    assert correlation(np.array(EQUITY), mirror) == pytest.approx(-1.0)
    assert correlation(np.array(EQUITY), np.full(6, 100.0)) == 0.0


def test_buy_and_hold_shares_capital_equally_and_waits_for_a_late_listing() -> None:
    """Half in A from 10 to 20, half in B, which appears at 5 and ends at 10: from 1 to 2 by way of 1.5."""
    growth = np.empty(3)
    hold_equally(np.array([[10.0, np.nan], [20.0, 5.0], [20.0, 10.0]]), growth)
    assert growth.tolist() == [1.0, 1.5, 2.0]


@pytest.fixture(scope="module")
def round_trips() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return bars and signals of two round trips: bought at 100, sold at 110; bought at 110, sold at 99."""
    closes = [100.0, 100.0, 110.0, 110.0, 110.0, 99.0, 99.0]
    opens = [100.0, 100.0, 100.0, 110.0, 110.0, 110.0, 99.0]
    bars = frame_of({"BTC": [(o, max(o, c), min(o, c), c) for o, c in zip(opens, closes, strict=True)]})
    signals = bars[["asset"]].assign(
        timestamp=bars["open_time"] + HOUR,
        direction=["long", "long", "flat", "long", "long", "flat", "flat"],
        position_size=[0.5, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0],
        confidence=1.0,
    )
    return bars, signals


def test_trade_metrics(round_trips: tuple[pd.DataFrame, pd.DataFrame], assume: Assume) -> None:
    """5 units win 50, then 1050 / 2 / 110 = 4.7727 units lose 52.5; both last two hours of six that could be traded."""
    bars, signals = round_trips
    metrics = backtest_signals(signals, bars, assume()).metrics
    units = 1050 / 2 / 110
    assert metrics.trades == 2
    assert metrics.win_rate_pct == 50.0
    assert metrics.profit_factor == pytest.approx(50 / 52.5)
    assert metrics.expectancy_usd == pytest.approx((50 - 11 * units) / 2)
    assert metrics.average_trade_hours == 2.0
    assert metrics.end_equity_usd == pytest.approx(1000 + 50 - 52.5)
    assert metrics.exposure_pct == pytest.approx(100 * 4 / 6)
    traded = 500 + 550 + units * 110 + units * 99
    mean = (1000 * 2 + 1050 * 3 + 997.5 * 2) / 7
    assert metrics.turnover_per_year == pytest.approx(traded / mean / (6 / 8760), rel=1e-9)


def test_costs_are_split(round_trips: tuple[pd.DataFrame, pd.DataFrame], assume: Assume) -> None:
    """Bought 5 at 100 and sold at 110: 5 bps of 500.5 and of 549.45, slippage 10 bps of 500 and 550, funding apart."""
    bars, signals = round_trips
    funding = signals.iloc[[1]].assign(settled_at=START + 2 * HOUR, funding_rate=1e-3)
    terms = assume(taker_fee_bps=5.0, slippage_bps=10.0)
    window = Window(end=START + 4 * HOUR)
    metrics = backtest_signals(signals, bars, terms, funding=funding, window=window).metrics
    assert metrics.commission_usd == pytest.approx(5e-4 * (5 * 100.1 + 5 * 109.89))
    assert metrics.slippage_usd == pytest.approx(0.5 + 0.55)
    assert metrics.funding_usd == pytest.approx(-0.5)
    assert metrics.end_equity_usd == pytest.approx(1000 + 50 - 1.05 - 0.5 - metrics.commission_usd)
