"""The rules of vix_correlation, each with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies.vix_correlation import VixCorrelation, VixCorrelationConfig

DecideOne = Callable[..., "pd.Series[Any]"]

STRATEGY = VixCorrelation(VixCorrelationConfig())


def test_a_strongly_negative_correlation_is_long(decide_one: DecideOne) -> None:
    """At -0.8 half of the way from -0.6 to -1 is gone."""
    signal = decide_one(STRATEGY, vix_correlation=-0.8)
    assert signal["direction"] == "long"
    assert signal["confidence"] == pytest.approx(0.5)
    assert signal["position_size"] == pytest.approx(0.1)
    assert signal["reason"] == "correlation with VIX -0.800 over 30 observations is below -0.60"


def test_a_strongly_positive_correlation_is_short(decide_one: DecideOne) -> None:
    """At +0.7 a quarter of the way from +0.6 to +1 is gone."""
    signal = decide_one(STRATEGY, vix_correlation=0.7)
    assert signal["direction"] == "short"
    assert signal["confidence"] == pytest.approx(0.25)
    assert signal["reason"] == "correlation with VIX +0.700 over 30 observations is above +0.60"


@pytest.mark.parametrize(
    ("correlation", "direction"),
    [
        (-0.6, "flat"),
        (math.nextafter(-0.6, -1), "long"),
        (0.6, "flat"),
        (math.nextafter(0.6, 1), "short"),
        (0.0, "flat"),
        (-1.0, "long"),
        (1.0, "short"),
    ],
)
def test_the_thresholds_themselves_are_flat(decide_one: DecideOne, correlation: float, direction: str) -> None:
    """Only beyond a threshold is a position held."""
    assert decide_one(STRATEGY, vix_correlation=correlation)["direction"] == direction


@pytest.mark.parametrize("correlation", [-1.0, 1.0])
def test_a_perfect_correlation_is_full_confidence(decide_one: DecideOne, correlation: float) -> None:
    """Confidence ends at 1."""
    assert decide_one(STRATEGY, vix_correlation=correlation)["confidence"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("volatility_pct", "size", "risk"),
    [(10.0, 0.1, "low"), (50.0, 0.1, "medium"), (80.0, 0.0625, "high"), (100.0, 0.05, "high")],
)
def test_volatility_reduces_the_position_and_raises_the_risk(
    decide_one: DecideOne, volatility_pct: float, size: float, risk: str
) -> None:
    """Size is 0.1 * 50 / volatility above 50 %, risk is medium from 50 % and high from 80 %."""
    signal = decide_one(STRATEGY, vix_correlation=-0.8, volatility_30d_ann_pct=volatility_pct)
    assert signal["position_size"] == pytest.approx(size)
    assert signal["risk_level"] == risk


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"vix_correlation": None, "vix_correlation_pairs": 12}, "only 12 of 30 observations"),
        ({"vix_correlation": None, "vix_correlation_pairs": 0, "vix": None}, "only 0 of 30 observations"),
        ({"vix_correlation": None, "vix": None}, "no fresh VIX value is known"),
        ({"vix_correlation": None}, "correlation with VIX is undefined: one of the two did not move"),
        (
            {"vix_correlation": -0.9, "volatility_30d_ann_pct": None},
            "30-day volatility is unknown, a position cannot be sized",
        ),
        (
            {"vix_correlation": 0.25},
            "correlation with VIX +0.250 over 30 observations is within -0.60 and +0.60",
        ),
    ],
)
def test_a_flat_decision_says_why(decide_one: DecideOne, columns: dict[str, float | None], reason: str) -> None:
    """What is missing, or where the correlation lies, stands in the reason; nothing is held."""
    signal = decide_one(STRATEGY, **columns)
    assert (signal["direction"], signal["confidence"], signal["position_size"]) == ("flat", 0, 0)
    assert signal["risk_level"] == "low"
    assert signal["reason"] == reason


def test_thresholds_come_from_the_config(decide_one: DecideOne) -> None:
    """A lower threshold makes the same correlation flat."""
    strategy = VixCorrelation(VixCorrelationConfig(long_below=-0.85))
    assert decide_one(strategy, vix_correlation=-0.8)["direction"] == "flat"
