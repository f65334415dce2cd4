"""The rules of market_structure, each with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.errors import ConfigError
from mts_dagster.strategies.config import build_config
from mts_dagster.strategies.market_structure import MarketStructure, MarketStructureConfig

DecideOne = Callable[..., "pd.Series[Any]"]
TableRows = Callable[..., pd.DataFrame]

STRATEGY = MarketStructure(MarketStructureConfig())
BIDS: dict[str, object] = {"imbalance_mean": 0.375, "hours_bid_heavy": 18, "hours_ask_heavy": 6}
ASKS: dict[str, object] = {"imbalance_mean": -0.375, "hours_bid_heavy": 6, "hours_ask_heavy": 18}


def decided(
    decide_one: DecideOne, table_rows: TableRows, *given: dict[str, object], **more: float | None
) -> pd.Series[Any]:
    return decide_one(STRATEGY, {"market_structure_daily": table_rows("market_structure_daily", *given)}, **more)


@pytest.mark.parametrize(("row", "direction", "sign"), [(BIDS, "long", "+"), (ASKS, "short", "-")])
def test_a_lasting_imbalance_is_followed(
    decide_one: DecideOne, table_rows: TableRows, row: dict[str, object], direction: str, sign: str
) -> None:
    """0.375 is half way from 0.15 to 0.6, and 18 of 24 hours leaned to that side."""
    signal = decided(decide_one, table_rows, row)
    assert signal["direction"] == direction
    assert signal["confidence"] == pytest.approx(0.5)
    assert signal["position_size"] == pytest.approx(0.1)
    assert signal["reason"].startswith(f"imbalance of the books {sign}0.3")
    assert "on this side in 75% of the hours" in signal["reason"]


def test_exchanges_are_weighed_by_their_samples(decide_one: DecideOne, table_rows: TableRows) -> None:
    """0.6 of 60,000 books and -0.2 of 20,000 are 0.4; 20 + 4 of 48 hours are only half of them."""
    rows = [
        {"exchange": "binance", "samples": 60_000, "imbalance_mean": 0.6, "hours_bid_heavy": 20},
        {"exchange": "bybit", "samples": 20_000, "imbalance_mean": -0.2, "hours_bid_heavy": 4},
    ]
    signal = decided(decide_one, table_rows, *rows)
    assert signal["direction"] == "flat"
    assert signal["reason"] == "imbalance of the books +0.40, on this side in 50% of the hours, less than 65%"


@pytest.mark.parametrize(
    ("imbalance", "direction"),
    [(0.15, "flat"), (math.nextafter(0.15, 1), "long"), (-0.15, "flat"), (math.nextafter(-0.15, -1), "short")],
)
def test_the_threshold_itself_is_flat(
    decide_one: DecideOne, table_rows: TableRows, imbalance: float, direction: str
) -> None:
    """The imbalance has to exceed it; one book as weight leaves the value as it is."""
    strategy = MarketStructure(MarketStructureConfig(min_samples=1))
    row = {**(BIDS if imbalance > 0 else ASKS), "imbalance_mean": imbalance, "samples": 1}
    tables = {"market_structure_daily": table_rows("market_structure_daily", row)}
    assert decide_one(strategy, tables)["direction"] == direction


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"date": "2024-02-29"}, "no books were sampled on 2024-03-01"),
        ({"hours_covered": 12.25}, "books were sampled for 12.2 hours only, less than 20"),
        ({"samples": 3599}, "3599 books were sampled only, fewer than 3600"),
        ({"liquidity_score_mean": 19.0}, "liquidity score 19 is below 20"),
        (
            {"imbalance_mean": 0.1},
            "imbalance of the books +0.10, on this side in 75% of the hours, within -0.15 and +0.15",
        ),
        ({"hours_bid_heavy": 15}, "imbalance of the books +0.38, on this side in 62% of the hours, less than 65%"),
    ],
)
def test_a_flat_decision_says_why(
    decide_one: DecideOne, table_rows: TableRows, row: dict[str, object], reason: str
) -> None:
    """Too little was seen, it was too thin, or the books did not lean for long."""
    signal = decided(decide_one, table_rows, {**BIDS, **row})
    assert signal["direction"] == "flat"
    assert signal["reason"] == reason


def test_nothing_is_held_that_cannot_be_sized(decide_one: DecideOne, table_rows: TableRows) -> None:
    """A coin whose volatility is unknown."""
    signal = decided(decide_one, table_rows, BIDS, volatility_30d_ann_pct=None)
    assert signal["reason"] == "30-day volatility is unknown, a position cannot be sized"


def test_volatility_reduces_the_position(decide_one: DecideOne, table_rows: TableRows) -> None:
    """At twice the target half of the position is held, at high risk."""
    signal = decided(decide_one, table_rows, BIDS, volatility_30d_ann_pct=100.0)
    assert (signal["position_size"], signal["risk_level"]) == (pytest.approx(0.05), "high")


def test_the_extreme_has_to_lie_beyond_the_threshold() -> None:
    """The config says which two values contradict each other."""
    with pytest.raises(ConfigError, match=r"extreme_imbalance \(0.1\) must be above imbalance_above \(0.15\)"):
        build_config(MarketStructureConfig, {"extreme_imbalance": 0.1})
