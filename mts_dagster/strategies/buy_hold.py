"""Buy and hold: the benchmark that every other strategy has to beat.

What belongs here: this one strategy and its config.
"""

from __future__ import annotations

import pandas as pd
from pydantic import Field

from mts_dagster.strategies.base import FEATURES, Rule, Strategy
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.sizing import RiskLevels, risk_level


class BuyHoldConfig(RiskLevels):
    """Config of ``buy_hold``."""

    invested_fraction: float = Field(1.0, gt=0, le=1, description="Fraction of equity held in all assets together.")


class BuyHold(Strategy[BuyHoldConfig]):
    """Long in every asset all the time, in equal parts."""

    name = "buy_hold"

    def analyse(self, market: Market) -> pd.DataFrame:
        """Take the closes, and the volatility for the risk level."""
        return market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "volatility_30d_ann_pct"))

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide long wherever there is a close: full confidence, an equal part of the invested fraction each."""
        share = self.config.invested_fraction / len(self.config.assets)
        everywhere = pd.Series(data=True, index=analysis.index)
        return self.first_match(
            analysis,
            [Rule(everywhere, "long", f"held in equal parts, {share:.1%} of equity each")],
            otherwise="",
            confidence=pd.Series(1.0, index=analysis.index),
            position_size=pd.Series(share, index=analysis.index),
            risk_level=risk_level(self.config, analysis["volatility_30d_ann_pct"]),
        )
