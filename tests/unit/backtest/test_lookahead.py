"""Strategies that know the future are found, honest ones are not accused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.lookahead import find_lookahead
from mts_dagster.backtest.market import MarketData, market_from_arrays
from mts_dagster.backtest.python_strategy import Broker, Strategy

HOUR_NS = 3_600_000_000_000


class Average(Strategy):
    """Long above an average over the last five closes, or, dishonestly, over the five around."""

    def __init__(self, *, centred: bool) -> None:
        self.centred = centred

    def start(self, market: MarketData) -> None:
        close = pd.Series(market.arrays.mark[:, 0])
        self.above = (close > close.rolling(5, center=self.centred).mean()).tolist()

    def on_bar(self, broker: Broker) -> None:
        broker.target("asset", 1.0 if self.above[broker.bar] else 0.0)


@pytest.fixture(scope="module")
def walk() -> MarketData:
    """Return a random walk of 200 hours."""
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 200)))
    return market_from_arrays(np.arange(200) * HOUR_NS, close, close, close, close)


def test_a_centred_average_is_found(walk: MarketData) -> None:
    """The last bars before a cut decide differently when the bars after it are gone."""
    found = find_lookahead(lambda: Average(centred=True), walk, Assumptions(), cuts=[50, 100, 150])
    assert found is not None
    assert pd.Timestamp(0, tz="UTC") + pd.Timedelta(hours=48) <= found


def test_a_trailing_average_is_not_accused(walk: MarketData) -> None:
    """What rests on the past alone does not change."""
    assert find_lookahead(lambda: Average(centred=False), walk, Assumptions(), cuts=[50, 100, 150]) is None
