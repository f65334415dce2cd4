"""The rules of volume_spike, each with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies.volume_spike import VolumeSpike, VolumeSpikeConfig

DecideOne = Callable[..., "pd.Series[Any]"]

STRATEGY = VolumeSpike(VolumeSpikeConfig())


@pytest.mark.parametrize(("return_pct", "direction"), [(2.0, "long"), (-2.0, "short")])
def test_a_move_on_high_volume_is_followed(decide_one: DecideOne, return_pct: float, direction: str) -> None:
    """A z-score of 3.5 is half way from 2 to 5."""
    signal = decide_one(STRATEGY, volume_zscore_30d=3.5, return_pct=return_pct)
    assert signal["direction"] == direction
    assert signal["confidence"] == pytest.approx(0.5)
    assert signal["position_size"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("zscore", "return_pct", "direction"),
    [
        (2.0, 5.0, "flat"),
        (math.nextafter(2.0, 3), 5.0, "long"),
        (3.0, 1.0, "flat"),
        (3.0, math.nextafter(1.0, 2), "long"),
        (3.0, -1.0, "flat"),
        (3.0, math.nextafter(-1.0, -2), "short"),
    ],
)
def test_the_thresholds_themselves_are_flat(
    decide_one: DecideOne, zscore: float, return_pct: float, direction: str
) -> None:
    """Volume has to exceed its threshold and so has the move."""
    assert decide_one(STRATEGY, volume_zscore_30d=zscore, return_pct=return_pct)["direction"] == direction


@pytest.mark.parametrize(("zscore", "confidence"), [(5.0, 1.0), (12.0, 1.0)])
def test_confidence_ends_at_one(decide_one: DecideOne, zscore: float, confidence: float) -> None:
    """From the extreme z-score on confidence is full."""
    assert decide_one(STRATEGY, volume_zscore_30d=zscore, return_pct=3.0)["confidence"] == confidence


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"volume_zscore_30d": None}, "usual volume is unknown"),
        ({"volume_zscore_30d": 3.0, "return_pct": None}, "the day's return is unknown"),
        (
            {"volume_zscore_30d": 3.0, "return_pct": 4.0, "volatility_30d_ann_pct": None},
            "30-day volatility is unknown, a position cannot be sized",
        ),
        ({"volume_zscore_30d": 1.5}, "volume +1.5 standard deviations from its mean, not above +2.0"),
        (
            {"volume_zscore_30d": 3.0, "return_pct": -0.4},
            ("volume +3.0 standard deviations from its mean, above +2.0, and the price moved -0.4 %, not beyond 1.0 %"),
        ),
    ],
)
def test_a_flat_decision_says_why(decide_one: DecideOne, columns: dict[str, float | None], reason: str) -> None:
    """What is missing or not enough stands in the reason."""
    signal = decide_one(STRATEGY, **columns)
    assert signal["direction"] == "flat"
    assert signal["reason"] == reason


def test_a_held_decision_says_why(decide_one: DecideOne) -> None:
    """Volume, move and both thresholds stand in the reason."""
    assert decide_one(STRATEGY, volume_zscore_30d=3.0, return_pct=-4.0)["reason"] == (
        "volume +3.0 standard deviations from its mean, above +2.0, and the price moved -4.0 %, below -1.0 %"
    )
