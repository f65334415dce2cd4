"""The rules of funding_arbitrage, each with numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest

from mts_dagster.errors import ConfigError
from mts_dagster.strategies import FEATURES, Market, decide
from mts_dagster.strategies.config import build_config
from mts_dagster.strategies.funding_arbitrage import FundingArbitrage, FundingArbitrageConfig

DecideOne = Callable[..., "pd.Series[Any]"]
Rows = Callable[..., pd.DataFrame]
TableRows = Callable[..., pd.DataFrame]

STRATEGY = FundingArbitrage(FundingArbitrageConfig())
LAST = date(2024, 3, 1)


def days(*differences: float | None, **more: object) -> list[dict[str, object]]:
    """Rows of the days up to 2024-03-01: positive where Binance is cheaper, None for a day without a row."""
    return [
        {
            "date": (LAST - timedelta(days=len(differences) - 1 - number)).isoformat(),
            "long_venue": "binance" if difference >= 0 else "bybit",
            "short_venue": "bybit" if difference >= 0 else "binance",
            "differential_pct_per_year": abs(difference),
            **more,
        }
        for number, difference in enumerate(differences)
        if difference is not None
    ]


def decided(decide_one: DecideOne, table_rows: TableRows, given: list[dict[str, object]]) -> pd.Series[Any]:
    return decide_one(STRATEGY, {"funding_daily": table_rows("funding_daily", *given)})


def test_a_lasting_difference_is_held(decide_one: DecideOne, table_rows: TableRows) -> None:
    """12.775 % a year are 3.5 bps a day, 73.5 in 21 days; less 21 bps of fees, 52.5: half way from 5 to 100."""
    signal = decided(decide_one, table_rows, days(*[12.775] * 7))
    assert signal["direction"] == "long"
    assert signal["confidence"] == pytest.approx(0.5)
    assert (signal["position_size"], signal["risk_level"], signal["price"]) == (0.1, "low", 100.0)
    assert signal["reason"] == (
        "buy binance, sell bybit: funding differed by 12.8 % a year over 7 days, +52.5 bps expected in 21 days after "
        "fees, fees are earned in 6.0 days"
    )


def test_the_cheaper_side_is_bought(decide_one: DecideOne, table_rows: TableRows) -> None:
    """The legs are those of the window's mean, also on a day on which they were the other way round."""
    signal = decided(decide_one, table_rows, days(-20, -20, -20, -20, -20, -20, 1))
    assert signal["reason"].startswith("buy bybit, sell binance: funding differed by 17.0 % a year over 7 days")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "no funding of two exchanges is known for 2024-03-01"),
        (days(*[20.0] * 6, None), "no funding of two exchanges is known for 2024-03-01"),
        (days(20, short_hours_covered=16.0), "funding is known for 16 hours only, less than 20"),
        (days(20, None, None, None, 20, 20, 20), "4 of 7 days are known, fewer than 5"),
        (days(20, 20, 20, 20, -1, -1, 20), "binance was the cheaper side on 71% of 7 days only"),
        (
            days(*[4.5] * 7),
            "funding differed by 4.5 % a year over 7 days, +4.9 bps expected in 21 days after fees, not above +5.0",
        ),
    ],
)
def test_a_flat_decision_says_why(
    decide_one: DecideOne, table_rows: TableRows, given: list[dict[str, object]], reason: str
) -> None:
    """What is not known, not steady or not enough: 4.5 % a year are 25.9 bps in 21 days, less 21."""
    signal = decided(decide_one, table_rows, given)
    assert signal["direction"] == "flat"
    assert signal["reason"] == reason


def test_a_day_that_is_not_covered_does_not_count(decide_one: DecideOne, table_rows: TableRows) -> None:
    """A day of 16 hours is no day of the window: the mean is that of the six others."""
    given = days(12.775, 12.775, 900, 12.775, 12.775, 12.775, 12.775)
    given[2]["long_hours_covered"] = 16.0
    assert "12.8 % a year over 6 days" in decided(decide_one, table_rows, given)["reason"]


def test_the_pair_that_differs_most_is_taken(decide_one: DecideOne, table_rows: TableRows) -> None:
    """Of three exchanges two pairs are worth it; one decision comes of it."""
    wide = days(*[30.0] * 7, short_venue="okx", fees_bps=20.0)
    signal = decided(decide_one, table_rows, [*days(*[20.0] * 7), *wide])
    assert signal["reason"].startswith("buy binance, sell okx: funding differed by 30.0 % a year")


def test_older_days_do_not_count(decide_one: DecideOne, table_rows: TableRows) -> None:
    """The window is 7 days with the newest; the wild day before it is out."""
    assert "12.8 % a year over 7 days" in decided(decide_one, table_rows, days(900, *[12.775] * 7))["reason"]


def test_every_day_has_its_own_window(rows: Rows, table_rows: TableRows) -> None:
    """Days before enough are known are flat, then held until the difference has gone."""
    given = days(*[20.0] * 8, *[0.0] * 6)
    features = rows("2024-02-17", close_usd=[100.0] * 14)
    market = Market({FEATURES: features, "funding_daily": table_rows("funding_daily", *given)})
    decisions = decide(STRATEGY, market, date(2024, 2, 17), date(2024, 3, 2))
    # 4 days too few are known; 20 % over k of 7 days expect 115 * k / 7 bps: enough from 2 on.
    assert decisions["direction"].tolist() == ["flat"] * 4 + ["long"] * 9 + ["flat"]


def test_the_lookback_is_the_window() -> None:
    """Seven days with the newest are six before it."""
    assert STRATEGY.lookback_days == 6
    assert STRATEGY.tuned({"window_days": 3}).lookback_days == 2


def test_full_confidence_has_to_lie_beyond_the_threshold() -> None:
    """The config says which two values contradict each other."""
    with pytest.raises(ConfigError, match=r"full_confidence_net_bps \(5.0\) must be above net_above_bps \(5.0\)"):
        build_config(FundingArbitrageConfig, {"full_confidence_net_bps": 5.0})
