"""The rules of mean_reversion, each with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies.mean_reversion import MeanReversion, MeanReversionConfig

DecideOne = Callable[..., "pd.Series[Any]"]

STRATEGY = MeanReversion(MeanReversionConfig())


def test_fear_and_a_fall_are_long(decide_one: DecideOne) -> None:
    """VIX 42.5 is half way from 25 to 60, a drawdown of 20 % a quarter of the way from 10 to 50 %."""
    signal = decide_one(STRATEGY, vix=42.5, drawdown_90d_pct=20.0)
    assert signal["direction"] == "long"
    assert signal["confidence"] == pytest.approx((0.5 + 0.25) / 2)
    assert signal["position_size"] == pytest.approx(0.1 * (1 - 0.5 * 0.75))
    assert signal["reason"] == (
        "VIX 42.50 is above 25.00 and the price is 20.0 % below its 90-day high, more than 10.0 %"
    )


@pytest.mark.parametrize(
    ("vix", "drawdown_pct", "direction"),
    [
        (25.0, 20.0, "flat"),
        (math.nextafter(25.0, 26), 20.0, "long"),
        (30.0, 10.0, "flat"),
        (30.0, math.nextafter(10.0, 11), "long"),
        (24.0, 50.0, "flat"),
        (80.0, 0.0, "flat"),
    ],
)
def test_both_thresholds_have_to_be_passed(
    decide_one: DecideOne, vix: float, drawdown_pct: float, direction: str
) -> None:
    """VIX exactly 25 is flat, a drawdown of exactly 10 % too."""
    assert decide_one(STRATEGY, vix=vix, drawdown_90d_pct=drawdown_pct)["direction"] == direction


@pytest.mark.parametrize(
    ("vix", "size"), [(25.0000001, 0.1), (32.0, 0.085), (42.5, 0.0625), (60.0, 0.025), (82.69, 0.025)]
)
def test_the_position_shrinks_with_fear(decide_one: DecideOne, vix: float, size: float) -> None:
    """From 10 % of equity at VIX 25 in a straight line to 2.5 % at 60, and no further."""
    signal = decide_one(STRATEGY, vix=vix, drawdown_90d_pct=20.0)
    assert signal["position_size"] == pytest.approx(size, abs=1e-8)


@pytest.mark.parametrize(("vix", "risk"), [(26.0, "medium"), (39.99, "medium"), (40.0, "high")])
def test_risk_follows_vix(decide_one: DecideOne, vix: float, risk: str) -> None:
    """Risk is medium below VIX 40 and high from there on."""
    assert decide_one(STRATEGY, vix=vix, drawdown_90d_pct=20.0)["risk_level"] == risk


def test_confidence_ends_at_one(decide_one: DecideOne) -> None:
    """Beyond both extremes confidence stays 1."""
    assert decide_one(STRATEGY, vix=90.0, drawdown_90d_pct=77.0)["confidence"] == 1.0


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"vix": 25.0, "drawdown_90d_pct": 20.0}, "VIX 25.00 is not above 25.00"),
        ({"vix": 30.0, "drawdown_90d_pct": 9.94}, "drawdown 9.9 % is not above 10.0 %"),
        ({"vix": None, "drawdown_90d_pct": 20.0}, "no fresh VIX value is known"),
        ({"vix": 30.0, "drawdown_90d_pct": None}, "drawdown from the 90-day high is unknown"),
    ],
)
def test_a_flat_decision_says_why(decide_one: DecideOne, columns: dict[str, float | None], reason: str) -> None:
    """The condition that does not hold stands in the reason; nothing is held."""
    signal = decide_one(STRATEGY, **columns)
    assert (signal["direction"], signal["confidence"], signal["position_size"]) == ("flat", 0, 0)
    assert signal["reason"] == reason
