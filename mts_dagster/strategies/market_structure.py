"""Market structure: follow the side that the order books leaned to all day, where they are deep enough to mean it.

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

STRUCTURE = "market_structure_daily"


class MarketStructureConfig(VolatilitySizing):
    """Config of ``market_structure``."""

    min_hours_covered: float = Field(
        20.0, gt=0, le=24, description="Hours of the day in which books must have been sampled."
    )
    min_samples: int = Field(3600, ge=1, description="Sampled books of all exchanges that the day must have.")
    min_liquidity_score: float = Field(20.0, ge=0, le=100, description="Mean liquidity score that the books must have.")
    imbalance_above: Annotated[float, Tunable(0.05, 0.5, 0.05)] = Field(
        0.15, gt=0, lt=1, description="Mean imbalance beyond which a side is followed, -1..1."
    )
    same_side_share: Annotated[float, Tunable(0.5, 0.95, 0.05)] = Field(
        0.65, ge=0.5, le=1, description="Part of the sampled hours that must have leaned to that side."
    )
    extreme_imbalance: float = Field(0.6, gt=0, le=1, description="Mean imbalance that gives full confidence.")

    @model_validator(mode="after")
    def _extreme_lies_beyond(self) -> Self:
        if self.extreme_imbalance <= self.imbalance_above:
            raise ValueError(
                f"extreme_imbalance ({self.extreme_imbalance}) must be above imbalance_above ({self.imbalance_above})"
            )
        return self


class MarketStructure(Strategy[MarketStructureConfig]):
    """Long after a day on which liquid books leaned to the bids for hours on end, short after one of asks."""

    name = "market_structure"
    inputs = (FEATURES, STRUCTURE)

    def analyse(self, market: Market) -> pd.DataFrame:
        """Bring the exchanges together: means weighted by samples, and the part of the hours that each side had."""
        features = market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "volatility_30d_ann_pct"))
        books = market.table(
            STRUCTURE,
            (
                "date",
                "coin",
                "exchange",
                "samples",
                "hours_covered",
                "hours_sampled",
                "hours_bid_heavy",
                "hours_ask_heavy",
                "imbalance_mean",
                "liquidity_score_mean",
            ),
        ).sort_values(["date", "coin", "exchange"])
        summed = (
            books.assign(
                imbalance=books["imbalance_mean"] * books["samples"],
                liquidity=books["liquidity_score_mean"] * books["samples"],
            )
            .groupby(["date", "coin"], as_index=False)
            .agg(
                samples=("samples", "sum"),
                hours_covered=("hours_covered", "max"),
                hours=("hours_sampled", "sum"),
                bid_hours=("hours_bid_heavy", "sum"),
                ask_hours=("hours_ask_heavy", "sum"),
                imbalance=("imbalance", "sum"),
                liquidity=("liquidity", "sum"),
            )
        )
        told = summed[["date", "coin", "samples", "hours_covered"]].assign(
            imbalance=summed["imbalance"] / summed["samples"],
            liquidity=summed["liquidity"] / summed["samples"],
            same_side=summed["bid_hours"].where(summed["imbalance"] > 0, summed["ask_hours"]) / summed["hours"],
        )
        return features.merge(told, on=["date", "coin"], how="left")

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by the imbalance and how long it lasted; exactly at the threshold of the imbalance is flat.

        Confidence is how much of the way from ``imbalance_above`` to ``extreme_imbalance`` the books went. Size is the
        largest position, reduced as volatility exceeds its target.
        """
        config = self.config
        volatility = analysis["volatility_30d_ann_pct"]
        samples, hours, imbalance, liquidity, same_side = (
            analysis[name].astype("float64")
            for name in ("samples", "hours_covered", "imbalance", "liquidity", "same_side")
        )
        lean = "imbalance of the books {imbalance:+.2f}, on this side in {same_side:.0%} of the hours, "
        return self.first_match(
            analysis,
            [
                Rule(samples.isna(), "flat", "no books were sampled on {date:%Y-%m-%d}"),
                Rule(
                    hours < config.min_hours_covered,
                    "flat",
                    "books were sampled for {hours_covered:.1f} hours only, less than {config.min_hours_covered:.0f}",
                ),
                Rule(
                    samples < config.min_samples,
                    "flat",
                    "{samples:.0f} books were sampled only, fewer than {config.min_samples}",
                ),
                Rule(
                    liquidity < config.min_liquidity_score,
                    "flat",
                    "liquidity score {liquidity:.0f} is below {config.min_liquidity_score:.0f}",
                ),
                volatility_unknown(analysis),
                Rule(
                    imbalance.abs() <= config.imbalance_above,
                    "flat",
                    lean + "within -{config.imbalance_above:.2f} and +{config.imbalance_above:.2f}",
                ),
                Rule(same_side < config.same_side_share, "flat", lean + "less than {config.same_side_share:.0%}"),
                Rule(imbalance > 0, "long", lean + "above +{config.imbalance_above:.2f}"),
                Rule(imbalance < 0, "short", lean + "below -{config.imbalance_above:.2f}"),
            ],
            otherwise="the imbalance of the books is unknown",
            confidence=part_of_way(imbalance.abs(), config.imbalance_above, config.extreme_imbalance),
            position_size=position_size(config, volatility),
            risk_level=risk_level(config, volatility),
        )
