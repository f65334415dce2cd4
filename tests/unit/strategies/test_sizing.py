"""How sure, how large, how risky: numbers by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mts_dagster.strategies.sizing import (
    VolatilitySizing,
    part_of_way,
    position_size,
    risk_level,
)

UNKNOWN = pd.Series([None], dtype="Float64")


def test_the_part_of_the_way_ends_at_both_ends() -> None:
    """From 10 to 30: 15 is a quarter; before and beyond are 0 and 1; unknown stays unknown."""
    part = part_of_way(pd.Series([5.0, 10.0, 15.0, 30.0, 31.0, None]), 10.0, 30.0)
    np.testing.assert_array_equal(part, [0.0, 0.0, 0.25, 1.0, 1.0, np.nan])


def test_a_way_may_lead_down() -> None:
    """From -0.6 to -1: -0.7 is a quarter, and -0.5 not yet on it."""
    np.testing.assert_allclose(part_of_way(pd.Series([-0.5, -0.7, -1.0]), -0.6, -1.0), [0.0, 0.25, 1.0], rtol=1e-12)


def test_a_position_shrinks_as_volatility_exceeds_its_target() -> None:
    """Target 50 %: full size up to there, half of it at 100 %."""
    config = VolatilitySizing(max_position_size=0.1, target_volatility_pct=50.0)
    np.testing.assert_allclose(position_size(config, pd.Series([20.0, 50.0, 100.0])), [0.1, 0.1, 0.05], rtol=1e-12)
    assert np.isnan(position_size(config, UNKNOWN)).all()


def test_risk_rises_at_its_thresholds() -> None:
    """Exactly at a threshold is the higher level; an unknown volatility is high risk."""
    config = VolatilitySizing(medium_risk_volatility_pct=50.0, high_risk_volatility_pct=80.0)
    levels = risk_level(config, pd.Series([49.9, 50.0, 79.9, 80.0]))
    assert levels.tolist() == ["low", "medium", "medium", "high"]
    assert risk_level(config, UNKNOWN).tolist() == ["high"]
