"""How sure a decision is, how large its position and how risky.

What belongs here: what several strategies share. Sizing that is one strategy's own idea stays in its file.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from mts_dagster.strategies.base import Rule
from mts_dagster.strategies.config import StrategyConfig, Tunable


class RiskLevels(StrategyConfig):
    """Config of strategies whose risk level follows the asset's volatility."""

    medium_risk_volatility_pct: float = Field(
        50.0, gt=0, description="Annual volatility from which on risk is medium, percent."
    )
    high_risk_volatility_pct: float = Field(
        80.0, gt=0, description="Annual volatility from which on risk is high, percent."
    )

    @model_validator(mode="after")
    def _levels_rise(self) -> Self:
        if self.medium_risk_volatility_pct >= self.high_risk_volatility_pct:
            raise ValueError(
                f"medium_risk_volatility_pct ({self.medium_risk_volatility_pct}) must be below "
                f"high_risk_volatility_pct ({self.high_risk_volatility_pct})"
            )
        return self


class VolatilitySizing(RiskLevels):
    """Config of strategies that reduce the position as volatility grows."""

    max_position_size: float = Field(0.10, gt=0, le=1, description="Largest position, fraction of equity.")
    target_volatility_pct: Annotated[float, Tunable(20.0, 100.0, 10.0)] = Field(
        50.0, gt=0, description="Annual volatility up to which the largest position is held, percent."
    )


def part_of_way(values: pd.Series[float], start: float, end: float) -> npt.NDArray[np.float64]:
    """How far values are on their way from ``start`` (0) to ``end`` (1), at least 0 and at most 1, NaN where null."""
    return np.clip((_numbers(values) - start) / (end - start), 0.0, 1.0)


def position_size(config: VolatilitySizing, volatility_pct: pd.Series[float]) -> npt.NDArray[np.float64]:
    """Fraction of equity: the largest position times ``target / volatility``, never more than the largest.

    The position's own volatility is so held at ``max_position_size * target_volatility_pct``. Null where the
    volatility is null.
    """
    target = config.target_volatility_pct
    return config.max_position_size * (target / np.maximum(_numbers(volatility_pct), target))


def risk_level(config: RiskLevels, volatility_pct: pd.Series[float]) -> pd.Series[str]:
    """Low, medium or high by the config's two thresholds; an unknown volatility is high risk."""
    medium, high = config.medium_risk_volatility_pct, config.high_risk_volatility_pct
    volatility = _numbers(volatility_pct)
    below = (volatility < high).astype(np.intp) + (volatility < medium)
    return pd.Series(pd.array(["high", "medium", "low"], dtype="str").take(below), index=volatility_pct.index)


def volatility_unknown(analysis: pd.DataFrame) -> Rule:
    """Nothing is held that cannot be sized."""
    return Rule(
        analysis["volatility_30d_ann_pct"].isna(),
        "flat",
        "30-day volatility is unknown, a position cannot be sized",
    )


def _numbers(values: pd.Series[float]) -> npt.NDArray[np.float64]:
    """The values alone, NaN where null; a search asks thousands of times, and a column's own arithmetic is slower."""
    numbers: npt.NDArray[np.float64] = np.asarray(values.to_numpy(na_value=np.nan), dtype=np.float64)
    return numbers
