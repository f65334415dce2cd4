"""VIX correlation: trade the coin with or against the fear of the stock market, while the two move together.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.config import Tunable
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import VolatilitySizing, part_of_way, position_size, risk_level, volatility_unknown

OBSERVATIONS = 30
"""Pairs that the correlation in ``features_daily`` is computed over; it is null with fewer."""


class VixCorrelationConfig(VolatilitySizing):
    """Config of ``vix_correlation``."""

    long_below: Annotated[float, Tunable(-0.9, -0.3, 0.05)] = Field(
        -0.6, gt=-1, lt=0, description="Long while the correlation with VIX is below this."
    )
    short_above: Annotated[float, Tunable(0.3, 0.9, 0.05)] = Field(
        0.6, gt=0, lt=1, description="Short while the correlation with VIX is above this."
    )


class VixCorrelation(Strategy[VixCorrelationConfig]):
    """Long while a coin's rolling correlation with VIX is strongly negative, short while strongly positive."""

    name = "vix_correlation"

    def analyse(self, market: Market) -> pd.DataFrame:
        """Take the rolling 30-observation correlation, its number of pairs, and the coin's volatility."""
        return market.table(
            FEATURES,
            (
                "date",
                "coin",
                "available_at",
                "close_usd",
                "volatility_30d_ann_pct",
                "vix",
                "vix_correlation",
                "vix_correlation_pairs",
            ),
        )

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by the correlation; exactly at a threshold is flat.

        Confidence is how much of the way from the threshold to a perfect correlation is gone: 0 at the threshold,
        1 at -1 or +1. Size is the largest position, reduced as volatility exceeds its target.
        """
        config, correlation = self.config, analysis["vix_correlation"]
        volatility = analysis["volatility_30d_ann_pct"]
        beyond_low = part_of_way(correlation, config.long_below, -1.0)
        beyond_high = part_of_way(correlation, config.short_above, 1.0)
        seen = "correlation with VIX {vix_correlation:+.3f} over {vix_correlation_pairs:.0f} observations is "
        return self.first_match(
            analysis,
            [
                Rule(
                    analysis["vix_correlation_pairs"] < OBSERVATIONS,
                    "flat",
                    f"only {{vix_correlation_pairs:.0f}} of {OBSERVATIONS} observations",
                ),
                Rule(analysis["vix"].isna(), "flat", "no fresh VIX value is known"),
                Rule(correlation.isna(), "flat", "correlation with VIX is undefined: one of the two did not move"),
                volatility_unknown(analysis),
                Rule(correlation < config.long_below, "long", seen + "below {config.long_below:+.2f}"),
                Rule(correlation > config.short_above, "short", seen + "above {config.short_above:+.2f}"),
            ],
            otherwise=seen + "within {config.long_below:+.2f} and {config.short_above:+.2f}",
            confidence=np.where(correlation < 0, beyond_low, beyond_high),
            position_size=position_size(config, volatility),
            risk_level=risk_level(config, volatility),
        )
