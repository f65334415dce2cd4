"""The tables of strategies: named after the strategy, and never one of the market's."""

from __future__ import annotations

import pytest

from mts_dagster.defs.signals.assets import signal_key, signal_table
from mts_dagster.strategies import StrategyConfig, StrategyError
from mts_dagster.strategies.buy_hold import BuyHold, BuyHoldConfig


def test_a_table_is_named_after_its_strategy() -> None:
    """With an ending, so that a strategy may be called like the table that it reads."""
    strategy = BuyHold(BuyHoldConfig())
    assert signal_table(strategy).qualified == "signals.buy_hold_signals"
    assert signal_key(strategy).to_user_string() == "signals/buy_hold_signals"


def test_a_strategy_cannot_take_the_table_of_all_strategies() -> None:
    """A strategy called ``trading`` would write over the union."""

    class Trading(BuyHold):
        name = "trading"
        config_type = StrategyConfig

    with pytest.raises(StrategyError, match=r"trading needs another name: the table signals\.trading_signals"):
        signal_table(Trading(BuyHoldConfig()))
