"""Funding arbitrage: hold a coin long on one exchange and short on the other while their funding differs enough.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.config import StrategyConfig, Tunable
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import part_of_way

FUNDING = "funding_daily"
DAYS_PER_YEAR = 365
BPS_PER_PCT = 100
PAIR = ["coin", "first", "second", "date"]


class FundingArbitrageConfig(StrategyConfig):
    """Config of ``funding_arbitrage``."""

    window_days: Annotated[int, Tunable(3, 14, 1)] = Field(
        7, ge=1, description="Days, the newest included, over which the difference of the rates is averaged."
    )
    min_days_share: float = Field(0.7, gt=0, le=1, description="Part of these days that must be known.")
    min_hours_covered: float = Field(
        20.0, gt=0, le=24, description="A day is known if the settlements of both legs were for this many hours."
    )
    same_side_share: Annotated[float, Tunable(0.5, 1.0, 0.1)] = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Part of the known days on which the same exchange must have been the cheaper one.",
    )
    holding_days: Annotated[int, Tunable(7, 60, 1)] = Field(
        21, ge=1, description="Days that the pair is expected to be held; fees are paid once in this time."
    )
    net_above_bps: Annotated[float, Tunable(0.0, 50.0, 5.0)] = Field(
        5.0, ge=0, description="Held only if more than this is expected over the holding time after fees."
    )
    full_confidence_net_bps: float = Field(100.0, gt=0, description="Expected net that gives full confidence.")
    max_position_size: float = Field(0.10, gt=0, le=1, description="Size of each leg, fraction of equity.")

    @model_validator(mode="after")
    def _full_confidence_lies_beyond(self) -> Self:
        if self.full_confidence_net_bps <= self.net_above_bps:
            raise ValueError(
                f"full_confidence_net_bps ({self.full_confidence_net_bps}) must be above "
                f"net_above_bps ({self.net_above_bps})"
            )
        return self

    @property
    def min_days(self) -> int:
        """Days of the window that must be known."""
        return math.ceil(self.min_days_share * self.window_days)


class FundingArbitrage(Strategy[FundingArbitrageConfig]):
    """Long where funding is lower and short where it is higher, while the difference outearns the fees."""

    name = "funding_arbitrage"
    inputs = (FEATURES, FUNDING)
    hedged = True

    @property
    def lookback_days(self) -> int:
        """The window reaches this far back from the day that is decided on."""
        return self.config.window_days - 1

    def analyse(self, market: Market) -> pd.DataFrame:
        """Average each pair's difference over the window, with its sign, and take the pair that differs most."""
        features = market.table(FEATURES, ("date", "coin", "available_at", "close_usd"))
        funding = market.table(
            FUNDING,
            (
                "date",
                "coin",
                "long_venue",
                "short_venue",
                "differential_pct_per_year",
                "long_hours_covered",
                "short_hours_covered",
                "fees_bps",
            ),
        )
        funding["hours_covered"] = funding[["long_hours_covered", "short_hours_covered"]].min(axis=1)
        hours = funding.groupby(["date", "coin"], as_index=False)["hours_covered"].max()
        known = funding[funding["hours_covered"] >= self.config.min_hours_covered]
        best = self._best_pairs(known)
        return features.merge(hours, on=["date", "coin"], how="left").merge(best, on=["date", "coin"], how="left")

    def _best_pairs(self, known: pd.DataFrame) -> pd.DataFrame:
        """One row for each coin and day that is known: its pair with the largest mean difference."""
        windows = _windows(known, self.config.window_days)
        found = windows.groupby(PAIR, as_index=False).agg(
            newest=("age", "min"),
            days=("differential", "count"),
            mean=("differential", "mean"),
            first_cheaper=("first_cheaper", "mean"),
            fees_bps=("fees_bps", "first"),
        )
        found = found[found["newest"] == 0]
        is_first = found["mean"] >= 0
        size = found["mean"].abs()
        bps_per_day = size * BPS_PER_PCT / DAYS_PER_YEAR
        found = found.assign(
            long_venue=found["first"].where(is_first, found["second"]),
            short_venue=found["second"].where(is_first, found["first"]),
            mean=size,
            same_side=found["first_cheaper"].where(is_first, 1 - found["first_cheaper"]),
            net_bps=bps_per_day * self.config.holding_days - found["fees_bps"],
            break_even_days=found["fees_bps"] / bps_per_day.where(bps_per_day > 0),
        )
        order = found.sort_values(["mean", "first", "second"], ascending=[False, True, True], kind="stable")
        return order.drop_duplicates(["date", "coin"])

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by what the pair is expected to earn, if rates stay as they were; exactly at a threshold is flat.

        Confidence is how much of the way from ``net_above_bps`` to ``full_confidence_net_bps`` the expectation went.
        Both legs have the same size and prices move them against each other, so the size does not follow volatility and
        risk is low.
        """
        config = self.config
        hours, days, net = (analysis[name].astype("float64") for name in ("hours_covered", "days", "net_bps"))
        differs = "funding differed by {mean:.1f} % a year over {days:.0f} days, "
        earns = differs + "{net_bps:+.1f} bps expected in {config.holding_days} days after fees, "
        every = pd.Series(1.0, index=analysis.index)
        return self.first_match(
            analysis,
            [
                Rule(hours.isna(), "flat", "no funding of two exchanges is known for {date:%Y-%m-%d}"),
                Rule(
                    hours < config.min_hours_covered,
                    "flat",
                    "funding is known for {hours_covered:.0f} hours only, less than {config.min_hours_covered:.0f}",
                ),
                Rule(
                    days < config.min_days,
                    "flat",
                    "{days:.0f} of {config.window_days} days are known, fewer than {config.min_days}",
                ),
                Rule(
                    analysis["same_side"].astype("float64") < config.same_side_share,
                    "flat",
                    "{long_venue} was the cheaper side on {same_side:.0%} of {days:.0f} days only",
                ),
                Rule(
                    net > config.net_above_bps,
                    "long",
                    "buy {long_venue}, sell {short_venue}: " + earns + "fees are earned in {break_even_days:.1f} days",
                ),
            ],
            otherwise=earns + "not above {config.net_above_bps:+.1f}",
            confidence=part_of_way(net, config.net_above_bps, config.full_confidence_net_bps),
            position_size=every * config.max_position_size,
            risk_level=pd.Series("low", index=analysis.index),
        )


def _windows(known: pd.DataFrame, days: int) -> pd.DataFrame:
    """Each day's row under the days that it counts for, ``age`` days later, newest first.

    The pair is written in the order of its names, the difference positive where the first one is cheaper.
    """
    is_first = known["long_venue"] < known["short_venue"]
    pairs = known[["date", "coin", "fees_bps"]].assign(
        first=known["long_venue"].where(is_first, known["short_venue"]),
        second=known["short_venue"].where(is_first, known["long_venue"]),
        differential=known["differential_pct_per_year"] * np.where(is_first, 1.0, -1.0),
        first_cheaper=is_first.astype("float64"),
    )
    aged = [pairs.assign(date=pairs["date"] + pd.Timedelta(days=age), age=age) for age in range(days)]
    return pd.concat(aged, ignore_index=True)
