"""The seeded world: the regimes and stress episodes that strategies need exist in every two years."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mts_simulator.coins import COINS, COINS_BY_ID
from mts_simulator.paths import DAYS, World

WINDOW_DAYS = 730


@pytest.fixture(scope="module", params=[7, 1, 2, 3])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def in_every_window(hits: np.ndarray) -> bool:
    return bool(pd.Series(hits.astype(float)).rolling(WINDOW_DAYS).max().dropna().min() > 0)


def test_every_two_years_have_a_high_vix_in_a_drawdown(world: World) -> None:
    """VIX above 25 while bitcoin is over 10 % below its 90-day high happens in any two years."""
    close = pd.Series(np.exp(world.log_price(COINS_BY_ID["bitcoin"])[1:]))
    drawdown = close / close.rolling(90, min_periods=1).max() - 1
    assert in_every_window((world.vix > 25) & (drawdown.to_numpy() < -0.10))


@pytest.mark.parametrize("sign", [-1, 1])
def test_every_two_years_have_strong_correlations_of_both_signs(world: World, sign: int) -> None:
    """The 30-day correlation of bitcoin's and the VIX's daily changes goes beyond 0.6 both ways."""
    returns = pd.Series(np.diff(world.log_price(COINS_BY_ID["bitcoin"])))
    changes = pd.Series(np.log(world.vix)).diff()
    assert in_every_window((sign * returns.rolling(30).corr(changes) > 0.6).to_numpy())


def test_the_vix_stays_plausible(world: World) -> None:
    """The VIX lies between 9 and 85 and mostly between 11 and 30."""
    assert world.vix.min() >= 9
    assert world.vix.max() <= 85
    assert np.quantile(world.vix, [0.05, 0.90]) == pytest.approx([13, 25], abs=4)


def test_the_ranking_by_market_cap_changes(world: World) -> None:
    """The five largest coins are not always the same five in the same order."""
    days = np.arange(0, DAYS, 30)
    caps = np.array([np.exp(world.log_price(coin)[days]) * world.supply(coin, days.astype(float)) for coin in COINS])
    rankings = {tuple(np.argsort(-column)[:5].tolist()) for column in caps.T}
    assert len(rankings) > 5
