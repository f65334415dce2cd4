"""The rules of spread_arbitrage, each with numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from mts_dagster.errors import ConfigError
from mts_dagster.strategies.config import build_config
from mts_dagster.strategies.spread_arbitrage import SpreadArbitrage, SpreadArbitrageConfig

DecideOne = Callable[..., "pd.Series[Any]"]
TableRows = Callable[..., pd.DataFrame]

STRATEGY = SpreadArbitrage(SpreadArbitrageConfig())
GOOD: dict[str, object] = {"opportunities": 60, "lasting_opportunities": 55, "peak_net_median_bps": 2.5}


def test_a_day_of_lasting_spreads_is_traded(decide_one: DecideOne, table_rows: TableRows) -> None:
    """55 spreads are half way from 10 to 100; the legs stand in the reason, the price is the coin's close."""
    signal = decide_one(STRATEGY, {"arbitrage_daily": table_rows("arbitrage_daily", GOOD)})
    assert signal["direction"] == "long"
    assert signal["confidence"] == pytest.approx(0.5)
    assert (signal["position_size"], signal["risk_level"], signal["price"]) == (0.1, "low", 100.0)
    assert signal["reason"] == (
        "buy bybit, sell binance: 55 of 60 spreads left an edge after a second, the median one 2.5 bps net at its "
        "best, median lifetime 900 ms"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"hours_covered": 19.5}, "two exchanges were seen for 19.5 hours only, less than 20"),
        (
            {"lasting_opportunities": 10},
            "10 of 60 spreads left an edge after a second, not more than 10",
        ),
        (
            {"peak_net_median_bps": 1.0},
            "55 of 60 spreads left an edge after a second, the median one 1.0 bps net at its best, not above 1.0",
        ),
        ({"kind": "funding"}, "no two exchanges were seen on 2024-03-01"),
        ({"coin": "ethereum"}, "no two exchanges were seen on 2024-03-01"),
        ({"date": "2024-02-29"}, "no two exchanges were seen on 2024-03-01"),
    ],
)
def test_a_flat_decision_says_why(
    decide_one: DecideOne, table_rows: TableRows, row: dict[str, object], reason: str
) -> None:
    """What was not seen or not enough; another day, coin or kind does not stand in."""
    signal = decide_one(STRATEGY, {"arbitrage_daily": table_rows("arbitrage_daily", {**GOOD, **row})})
    assert signal["direction"] == "flat"
    assert signal["reason"] == reason


def test_a_day_that_nobody_saw_is_flat(decide_one: DecideOne) -> None:
    """The sidecar did not run: the table has no row."""
    assert decide_one(STRATEGY)["reason"] == "no two exchanges were seen on 2024-03-01"


def test_confidence_ends_at_one(decide_one: DecideOne, table_rows: TableRows) -> None:
    """From 100 such spreads on."""
    row = {**GOOD, "opportunities": 900, "lasting_opportunities": 500}
    assert decide_one(STRATEGY, {"arbitrage_daily": table_rows("arbitrage_daily", row)})["confidence"] == 1.0


def test_a_day_that_came_late_is_not_used(decide_one: DecideOne, table_rows: TableRows) -> None:
    """The books of the day were known an hour after the decision only."""
    late = table_rows("arbitrage_daily", GOOD)
    late["available_at"] += pd.Timedelta(hours=1)
    assert decide_one(STRATEGY, {"arbitrage_daily": late})["direction"] == "flat"


def test_full_confidence_has_to_lie_beyond_the_threshold() -> None:
    """The config says which two values contradict each other."""
    with pytest.raises(ConfigError, match=r"full_confidence_lasting \(10\) must be above lasting_above \(10\)"):
        build_config(SpreadArbitrageConfig, {"full_confidence_lasting": 10})
