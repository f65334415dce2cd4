"""The rules of momentum, each with numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies import FEATURES, Market, decide
from mts_dagster.strategies.momentum import Momentum, MomentumConfig

Rows = Callable[..., pd.DataFrame]

OVER_ONE_DAY = Momentum(MomentumConfig(window_days=1))


def last_decision(rows: Rows, strategy: Momentum, **columns: object) -> pd.Series[Any]:
    frame = rows(**columns)
    return decide(strategy, Market({FEATURES: frame}), date(2024, 3, 1), date(2025, 1, 1)).iloc[-1]


@pytest.mark.parametrize(
    ("close", "direction"),
    [
        (105.0, "flat"),
        (105.01, "long"),
        (95.0, "flat"),
        (94.99, "short"),
        (100.0, "flat"),
    ],
)
def test_a_move_beyond_a_threshold_is_followed(rows: Rows, close: float, direction: str) -> None:
    """Exactly +5 % or -5 % is flat, beyond is long or short."""
    assert last_decision(rows, OVER_ONE_DAY, close_usd=[100.0, close])["direction"] == direction


def test_the_window_is_counted_in_calendar_days(rows: Rows) -> None:
    """Over 30 days 100 became 110: +10 %, whatever happened between."""
    closes = [100.0, *[500.0] * 29, 110.0]
    signal = last_decision(rows, Momentum(MomentumConfig()), close_usd=closes)
    assert signal["direction"] == "long"
    assert signal["reason"] == "price moved +10.0 % in 30 days, more than +5.0 %"


def test_confidence_is_the_move_in_standard_deviations(rows: Rows) -> None:
    """At 38.2099463 % a year a day is 2 %, so +3 % are 1.5 of the 2 that give full confidence."""
    volatility = [2.0 * 365**0.5] * 2
    strategy = Momentum(MomentumConfig(window_days=1, long_above_pct=2.0))
    signal = last_decision(rows, strategy, close_usd=[100.0, 103.0], volatility_30d_ann_pct=volatility)
    assert signal["confidence"] == pytest.approx(0.75)


@pytest.mark.parametrize("volatility_pct", [1.0, 0.0])
def test_confidence_ends_at_one(rows: Rows, volatility_pct: float) -> None:
    """A move far beyond any usual one is full confidence, also where there was no volatility at all."""
    volatility = [volatility_pct] * 2
    signal = last_decision(rows, OVER_ONE_DAY, close_usd=[100.0, 200.0], volatility_30d_ann_pct=volatility)
    assert signal["confidence"] == 1.0


def test_volatility_reduces_the_position(rows: Rows) -> None:
    """At 125 % a year the position is 0.1 * 50 / 125."""
    volatility = [125.0] * 2
    signal = last_decision(rows, OVER_ONE_DAY, close_usd=[100.0, 50.0], volatility_30d_ann_pct=volatility)
    assert (signal["direction"], signal["risk_level"]) == ("short", "high")
    assert signal["position_size"] == pytest.approx(0.04)


def test_without_the_earlier_close_it_is_flat(rows: Rows) -> None:
    """A missing day is not replaced by its neighbour."""
    frame = rows(close_usd=[100.0, 100.0, 120.0]).drop(index=1)
    decisions = decide(OVER_ONE_DAY, Market({FEATURES: frame}), date(2024, 3, 1), date(2024, 3, 4))
    assert decisions["direction"].tolist() == ["flat", "flat"]
    assert decisions["reason"].iloc[-1] == "no close 1 days earlier is known"


def test_an_unknown_volatility_is_flat(rows: Rows) -> None:
    """What cannot be sized is not held."""
    signal = last_decision(rows, OVER_ONE_DAY, close_usd=[100.0, 120.0], volatility_30d_ann_pct=[40.0, None])
    assert signal["direction"] == "flat"
    assert signal["reason"] == "30-day volatility is unknown, a position cannot be sized"


def test_the_lookback_is_the_window() -> None:
    """The close at the beginning of the window has to be read."""
    assert Momentum(MomentumConfig(window_days=45)).lookback_days == 45


def test_each_coin_moves_by_itself(rows: Rows) -> None:
    """The earlier close is the same coin's."""
    closes = {"bitcoin": [100.0, 110.0], "ethereum": [10.0, 9.0]}
    frame = pd.concat([rows(coin=coin, close_usd=values) for coin, values in closes.items()])
    decisions = decide(OVER_ONE_DAY, Market({FEATURES: frame}), date(2024, 3, 2), date(2024, 3, 3))
    assert dict(zip(decisions["asset"], decisions["direction"], strict=True)) == {
        "bitcoin": "long",
        "ethereum": "short",
    }
