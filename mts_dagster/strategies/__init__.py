"""Strategies: from features to signals, without Dagster, clock or storage.

A strategy is one file with a subclass of ``Strategy`` and one JSON file with its config. Those of MTS stand in
this folder, yours in any folder that ``MTS_STRATEGY_FOLDERS`` names::

    class DipConfig(StrategyConfig):
        drawdown_above_pct: Annotated[float, Tunable(5, 40, 5)] = Field(20.0, ge=0, description="Percent.")

    class Dip(Strategy[DipConfig]):
        \"\"\"Long while a coin is well below its 90-day high.\"\"\"

        name = "dip"

        def analyse(self, market): ...
        def signals(self, analysis): ...

``decide(strategy, market, start, end)`` runs it; ``testing.examine(strategy, market)`` looks for what makes
results untrue: look-ahead, missing lookback, chance, wrong shape.
"""

from mts_dagster.strategies.base import FEATURES, Parameter, Rule, Strategy
from mts_dagster.strategies.config import StrategyConfig, Tunable, configured_coins
from mts_dagster.strategies.decisions import decide
from mts_dagster.strategies.errors import LookAheadError, StrategyError
from mts_dagster.strategies.market import Market
from mts_dagster.strategies.registry import load_strategies, load_strategy

__all__ = [
    "FEATURES",
    "LookAheadError",
    "Market",
    "Parameter",
    "Rule",
    "Strategy",
    "StrategyConfig",
    "StrategyError",
    "Tunable",
    "configured_coins",
    "decide",
    "load_strategies",
    "load_strategy",
]
