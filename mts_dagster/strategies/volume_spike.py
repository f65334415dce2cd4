"""Volume spike: follow the day's move when far more was traded than usual.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

from typing import Annotated, Self

import pandas as pd
from pydantic import Field, model_validator

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.config import Tunable
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import VolatilitySizing, part_of_way, position_size, risk_level, volatility_unknown


class VolumeSpikeConfig(VolatilitySizing):
    """Config of ``volume_spike``."""

    zscore_above: Annotated[float, Tunable(1.0, 4.0, 0.5)] = Field(
        2.0, gt=0, description="Volume counts as a spike above this many standard deviations over its 30-day mean."
    )
    move_above_pct: Annotated[float, Tunable(0.0, 5.0, 0.5)] = Field(
        1.0, ge=0, description="Smallest move of the day that is followed, up or down, percent."
    )
    extreme_zscore: float = Field(5.0, gt=0, description="Z-score of the volume that gives full confidence.")

    @model_validator(mode="after")
    def _extreme_lies_beyond(self) -> Self:
        if self.extreme_zscore <= self.zscore_above:
            raise ValueError(f"extreme_zscore ({self.extreme_zscore}) must be above zscore_above ({self.zscore_above})")
        return self


class VolumeSpike(Strategy[VolumeSpikeConfig]):
    """Long after a rise on unusually high volume, short after a fall on it."""

    name = "volume_spike"

    def analyse(self, market: Market) -> pd.DataFrame:
        """Take the z-score of the volume and the day's return."""
        return market.table(
            FEATURES,
            (
                "date",
                "coin",
                "available_at",
                "close_usd",
                "return_pct",
                "volatility_30d_ann_pct",
                "volume_zscore_30d",
            ),
        )

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by volume and return; exactly at a threshold is flat.

        Confidence is how much of the way from ``zscore_above`` to ``extreme_zscore`` the volume went. Size is the
        largest position, reduced as volatility exceeds its target.
        """
        config, zscore, move = self.config, analysis["volume_zscore_30d"], analysis["return_pct"]
        volatility = analysis["volatility_30d_ann_pct"]
        spike = "volume {volume_zscore_30d:+.1f} standard deviations from its mean, "
        moved = spike + "above {config.zscore_above:+.1f}, and the price moved {return_pct:+.1f} %, "
        return self.first_match(
            analysis,
            [
                Rule(zscore.isna(), "flat", "usual volume is unknown"),
                Rule(move.isna(), "flat", "the day's return is unknown"),
                volatility_unknown(analysis),
                Rule(zscore <= config.zscore_above, "flat", spike + "not above {config.zscore_above:+.1f}"),
                Rule(move > config.move_above_pct, "long", moved + "above {config.move_above_pct:+.1f} %"),
                Rule(move < -config.move_above_pct, "short", moved + "below -{config.move_above_pct:.1f} %"),
            ],
            otherwise=moved + "not beyond {config.move_above_pct:.1f} %",
            confidence=part_of_way(zscore, config.zscore_above, config.extreme_zscore),
            position_size=position_size(config, volatility),
            risk_level=risk_level(config, volatility),
        )
