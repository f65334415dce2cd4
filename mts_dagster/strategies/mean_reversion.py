"""Mean reversion: buy what fell while the stock market is afraid, and less of it the greater the fear.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.config import StrategyConfig, Tunable
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import part_of_way


class MeanReversionConfig(StrategyConfig):
    """Config of ``mean_reversion``."""

    vix_above: Annotated[float, Tunable(18.0, 35.0, 1.0)] = Field(
        25.0, gt=0, description="Long only while VIX is above this, index points."
    )
    drawdown_above_pct: Annotated[float, Tunable(5.0, 30.0, 2.5)] = Field(
        10.0,
        ge=0,
        lt=100,
        description="Long only while the coin is further than this below its 90-day high, percent.",
    )
    max_position_size: float = Field(0.10, gt=0, le=1, description="Largest position, fraction of equity.")
    extreme_vix: float = Field(60.0, gt=0, description="VIX from which on the position is smallest, index points.")
    extreme_drawdown_pct: float = Field(
        50.0, gt=0, le=100, description="Drawdown at which the fall alone gives full confidence, percent."
    )
    smallest_scale: Annotated[float, Tunable(0.1, 1.0, 0.1)] = Field(
        0.25, gt=0, le=1, description="Part of the largest position that is left at extreme VIX."
    )
    high_risk_vix: float = Field(40.0, gt=0, description="VIX from which on risk is high, below it medium.")

    @model_validator(mode="after")
    def _extremes_lie_beyond(self) -> Self:
        for extreme, threshold in (("extreme_vix", "vix_above"), ("extreme_drawdown_pct", "drawdown_above_pct")):
            if getattr(self, extreme) <= getattr(self, threshold):
                raise ValueError(
                    f"{extreme} ({getattr(self, extreme)}) must be above {threshold} ({getattr(self, threshold)})"
                )
        return self


class MeanReversion(Strategy[MeanReversionConfig]):
    """Long while VIX is high and the coin is well below its 90-day high; smaller the higher VIX is."""

    name = "mean_reversion"

    def analyse(self, market: Market) -> pd.DataFrame:
        """Take VIX and drawdown."""
        return market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "drawdown_90d_pct", "vix"))

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by VIX and drawdown; exactly at a threshold is flat.

        ``fear`` and ``fall`` are how far VIX and drawdown are on their way from threshold (0) to extreme (1).
        Confidence is the mean of the two. Size falls in a straight line from ``max_position_size`` at the threshold to
        ``smallest_scale`` of it at ``extreme_vix``: ``max_position_size * (1 - fear * (1 - smallest_scale))``.
        """
        config, vix, drawdown = self.config, analysis["vix"], analysis["drawdown_90d_pct"]
        fear = part_of_way(vix, config.vix_above, config.extreme_vix)
        fall = part_of_way(drawdown, config.drawdown_above_pct, config.extreme_drawdown_pct)
        return self.first_match(
            analysis,
            [
                Rule(vix.isna(), "flat", "no fresh VIX value is known"),
                Rule(drawdown.isna(), "flat", "drawdown from the 90-day high is unknown"),
                Rule(vix <= config.vix_above, "flat", "VIX {vix:.2f} is not above {config.vix_above:.2f}"),
                Rule(
                    drawdown > config.drawdown_above_pct,
                    "long",
                    "VIX {vix:.2f} is above {config.vix_above:.2f} and the price is {drawdown_90d_pct:.1f} % "
                    "below its 90-day high, more than {config.drawdown_above_pct:.1f} %",
                ),
            ],
            otherwise="drawdown {drawdown_90d_pct:.1f} % is not above {config.drawdown_above_pct:.1f} %",
            confidence=(fear + fall) / 2,
            position_size=config.max_position_size * (1 - fear * (1 - config.smallest_scale)),
            risk_level=pd.Series(np.where(vix >= config.high_risk_vix, "high", "medium"), dtype="str"),
        )
