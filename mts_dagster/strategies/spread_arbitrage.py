"""Spread arbitrage: keep a pair of exchanges ready where their books crossed often and long enough to be taken.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

from typing import Annotated, Self

import pandas as pd
from pydantic import Field, model_validator

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.config import StrategyConfig, Tunable
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import part_of_way

ARBITRAGE = "arbitrage_daily"


class SpreadArbitrageConfig(StrategyConfig):
    """Config of ``spread_arbitrage``."""

    min_hours_covered: float = Field(
        20.0, gt=0, le=24, description="Hours of the day in which two exchanges must have been seen."
    )
    lasting_above: Annotated[int, Tunable(5, 50, 5)] = Field(
        10, ge=0, description="Held only after more feasible spreads than this had an edge left a second later."
    )
    peak_net_above_bps: Annotated[float, Tunable(0.0, 5.0, 0.5)] = Field(
        1.0, ge=0, description="Held only if the median spread's best net edge was above this, fees paid."
    )
    full_confidence_lasting: int = Field(100, gt=0, description="Such spreads in a day that give full confidence.")
    max_position_size: float = Field(0.10, gt=0, le=1, description="Size of each leg, fraction of equity.")

    @model_validator(mode="after")
    def _full_confidence_lies_beyond(self) -> Self:
        if self.full_confidence_lasting <= self.lasting_above:
            raise ValueError(
                f"full_confidence_lasting ({self.full_confidence_lasting}) must be above "
                f"lasting_above ({self.lasting_above})"
            )
        return self


class SpreadArbitrage(Strategy[SpreadArbitrageConfig]):
    """Trade the spread between two exchanges on the day after one on which it paid often and for long enough."""

    name = "spread_arbitrage"
    inputs = (FEATURES, ARBITRAGE)
    hedged = True

    def analyse(self, market: Market) -> pd.DataFrame:
        """Take the day's spreads; without a row the day was not seen."""
        features = market.table(FEATURES, ("date", "coin", "available_at", "close_usd"))
        arbitrage = market.table(
            ARBITRAGE,
            (
                "date",
                "coin",
                "kind",
                "hours_covered",
                "opportunities",
                "lasting_opportunities",
                "lifetime_median_ms",
                "peak_net_median_bps",
                "best_buy_exchange",
                "best_sell_exchange",
            ),
        )
        return features.merge(arbitrage[arbitrage["kind"] == "spread"], on=["date", "coin"], how="left")

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by how many spreads could be taken and what they left; exactly at a threshold is flat.

        Confidence is how much of the way from ``lasting_above`` to ``full_confidence_lasting`` was gone. Both legs have
        the same size and prices move them against each other, so the size does not follow volatility and risk is low.
        """
        config = self.config
        hours, lasting, net = (
            analysis[name].astype("float64")
            for name in ("hours_covered", "lasting_opportunities", "peak_net_median_bps")
        )
        counted = "{lasting_opportunities:.0f} of {opportunities:.0f} spreads left an edge after a second, "
        earned = counted + "the median one {peak_net_median_bps:.1f} bps net at its best, "
        every = pd.Series(1.0, index=analysis.index)
        return self.first_match(
            analysis,
            [
                Rule(hours.isna(), "flat", "no two exchanges were seen on {date:%Y-%m-%d}"),
                Rule(
                    hours < config.min_hours_covered,
                    "flat",
                    "two exchanges were seen for {hours_covered:.1f} hours only, "
                    "less than {config.min_hours_covered:.0f}",
                ),
                Rule(lasting <= config.lasting_above, "flat", counted + "not more than {config.lasting_above}"),
                Rule(
                    net > config.peak_net_above_bps,
                    "long",
                    "buy {best_buy_exchange}, sell {best_sell_exchange}: "
                    + earned
                    + "median lifetime {lifetime_median_ms:.0f} ms",
                ),
            ],
            otherwise=earned + "not above {config.peak_net_above_bps:.1f}",
            confidence=part_of_way(lasting, config.lasting_above, config.full_confidence_lasting),
            position_size=every * config.max_position_size,
            risk_level=pd.Series("low", index=analysis.index),
        )
