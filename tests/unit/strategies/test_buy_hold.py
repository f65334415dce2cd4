"""The benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies.buy_hold import BuyHold, BuyHoldConfig

DecideOne = Callable[..., "pd.Series[Any]"]


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (BuyHoldConfig(), 1 / 3),
        (BuyHoldConfig(assets=("bitcoin",)), 1.0),
        (BuyHoldConfig(assets=("bitcoin", "ethereum"), invested_fraction=0.5), 0.25),
    ],
)
def test_every_asset_is_held_in_equal_parts(decide_one: DecideOne, config: BuyHoldConfig, size: float) -> None:
    """The invested fraction is divided by the number of assets."""
    signal = decide_one(BuyHold(config))
    assert (signal["direction"], signal["confidence"]) == ("long", 1.0)
    assert signal["position_size"] == pytest.approx(size)


def test_the_reason_names_the_part(decide_one: DecideOne) -> None:
    """A third of equity reads 33.3%."""
    assert decide_one(BuyHold(BuyHoldConfig()))["reason"] == "held in equal parts, 33.3% of equity each"


@pytest.mark.parametrize(("volatility_pct", "risk"), [(49.9, "low"), (50.0, "medium"), (80.0, "high"), (None, "high")])
def test_risk_follows_volatility(decide_one: DecideOne, volatility_pct: float | None, risk: str) -> None:
    """Unknown volatility is high risk, but the benchmark holds all the same."""
    signal = decide_one(BuyHold(BuyHoldConfig()), volatility_30d_ann_pct=volatility_pct)
    assert (signal["direction"], signal["risk_level"]) == ("long", risk)
