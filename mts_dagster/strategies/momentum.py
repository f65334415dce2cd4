"""Momentum: follow the move of the last weeks while it is large enough.

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

DAYS_PER_YEAR = 365


class MomentumConfig(VolatilitySizing):
    """Config of ``momentum``."""

    window_days: Annotated[int, Tunable(10, 120, 10)] = Field(
        30, ge=1, le=365, description="Days over which the move is measured."
    )
    long_above_pct: Annotated[float, Tunable(0.0, 20.0, 2.5)] = Field(
        5.0, ge=0, description="Long while the price rose by more than this over the window, percent."
    )
    short_below_pct: Annotated[float, Tunable(-20.0, 0.0, 2.5)] = Field(
        -5.0,
        gt=-100,
        le=0,
        description="Short while the price changed by less than this over the window, percent.",
    )
    full_confidence_sigmas: float = Field(
        2.0, gt=0, description="Move in standard deviations of the window that gives full confidence."
    )


class Momentum(Strategy[MomentumConfig]):
    """Long while a coin rose strongly over the window, short while it fell strongly."""

    name = "momentum"

    @property
    def lookback_days(self) -> int:
        """The window: the close at its beginning is needed."""
        return self.config.window_days

    def analyse(self, market: Market) -> pd.DataFrame:
        """Measure the move from the close exactly ``window_days`` calendar days earlier, null without that close.

        ``move_sigmas`` is the move in standard deviations of a move over the window, from the 30-day volatility.
        """
        window = self.config.window_days
        frame = market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "volatility_30d_ann_pct"))
        earlier = frame[["date", "coin", "close_usd"]].rename(columns={"close_usd": "earlier_close_usd"})
        earlier["date"] += pd.Timedelta(days=window)
        frame = frame.merge(earlier, on=["date", "coin"], how="left", validate="one_to_one")
        move_pct = (frame["close_usd"] - frame["earlier_close_usd"]) * 100 / frame["earlier_close_usd"]
        sigma_pct = frame["volatility_30d_ann_pct"] * (window / DAYS_PER_YEAR) ** 0.5
        return frame.assign(move_pct=move_pct, move_sigmas=move_pct / sigma_pct.where(sigma_pct > 0))

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide by the move; exactly at a threshold is flat.

        Confidence is the size of the move in standard deviations, as a part of ``full_confidence_sigmas``, at most
        1. Size is the largest position, reduced as volatility exceeds its target.
        """
        config, move, volatility = self.config, analysis["move_pct"], analysis["volatility_30d_ann_pct"]
        sure = part_of_way(analysis["move_sigmas"].abs(), 0.0, config.full_confidence_sigmas)
        seen = "price moved {move_pct:+.1f} % in {config.window_days} days, "
        return self.first_match(
            analysis,
            [
                Rule(move.isna(), "flat", "no close {config.window_days} days earlier is known"),
                volatility_unknown(analysis),
                Rule(move > config.long_above_pct, "long", seen + "more than {config.long_above_pct:+.1f} %"),
                Rule(move < config.short_below_pct, "short", seen + "less than {config.short_below_pct:+.1f} %"),
            ],
            otherwise=seen + "within {config.short_below_pct:+.1f} and {config.long_above_pct:+.1f} %",
            confidence=np.nan_to_num(sure, nan=1.0),
            position_size=position_size(config, volatility),
            risk_level=risk_level(config, volatility),
        )
