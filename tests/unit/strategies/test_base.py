"""The interface: rule tables, parameters, and what a strategy class must state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from mts_dagster.errors import ConfigError
from mts_dagster.strategies import Market, Parameter, Rule, Strategy, StrategyConfig, StrategyError, Tunable
from mts_dagster.strategies.base import Direction
from mts_dagster.strategies.buy_hold import BuyHoldConfig
from mts_dagster.strategies.momentum import Momentum, MomentumConfig

Rows = Callable[..., pd.DataFrame]


class SampleConfig(StrategyConfig):
    threshold_pct: Annotated[float, Tunable(1.0, 9.0, 2.0)] = Field(5.0, gt=0, le=10, description="Percent.")
    window_days: Annotated[int, Tunable(10, 50, 10)] = Field(30, ge=1, description="Days.")
    label: str = "x"


class Sample(Strategy[SampleConfig]):
    """First line.

    Second line.
    """

    name = "sample"

    def analyse(self, market: Market) -> pd.DataFrame:
        return market.table("features_daily")

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        raise NotImplementedError


SAMPLE = Sample(SampleConfig())


def matched(
    analysis: pd.DataFrame, *rules: Rule, otherwise: str = "nothing", risk: pd.Series[str] | None = None
) -> pd.DataFrame:
    some = pd.Series(0.5, index=analysis.index)
    risk = pd.Series("high", index=analysis.index) if risk is None else risk
    return SAMPLE.first_match(
        analysis, rules, otherwise=otherwise, confidence=some, position_size=some, risk_level=risk
    )


def rule(when: list[bool | None], direction: Direction, reason: str) -> Rule:
    return Rule(pd.Series(when, dtype="boolean"), direction, reason)


def test_the_first_rule_that_holds_decides(rows: Rows) -> None:
    """Later rules do not overrule earlier ones; null is not true."""
    signals = matched(
        rows(close_usd=[1.0, 2.0, 3.0, 4.0]),
        rule([True, False, False, None], "short", "first"),
        rule([True, True, False, None], "long", "second"),
    )
    assert signals["direction"].tolist() == ["short", "long", "flat", "flat"]
    assert signals["reason"].tolist() == ["first", "second", "nothing", "nothing"]


def test_flat_rows_hold_nothing(rows: Rows) -> None:
    """Confidence, size and risk given for a flat row are not taken over."""
    signals = matched(rows(close_usd=[1.0, 2.0]), rule([True, False], "long", "up"))
    assert signals["confidence"].tolist() == [0.5, 0.0]
    assert signals["position_size"].tolist() == [0.5, 0.0]
    assert signals["risk_level"].tolist() == ["high", "low"]


@pytest.mark.parametrize("dtype", ["str", "object", pd.CategoricalDtype(["medium", "high"])])
def test_risk_may_come_as_any_text(rows: Rows, dtype: str) -> None:
    """As categories too, such as ``pandas.cut`` gives them, also if low is none of them; what came stays as it was."""
    risk = pd.Series(["high", "medium"], dtype=dtype)
    signals = matched(rows(close_usd=[1.0, 2.0]), rule([True, False], "long", "up"), risk=risk)
    assert signals["risk_level"].tolist() == ["high", "low"]
    assert risk.tolist() == ["high", "medium"]


def test_reasons_are_filled_from_columns_and_config(rows: Rows) -> None:
    """A reason is a format string over both."""
    signals = matched(rows(vix=[21.5]), otherwise="{coin}: VIX {vix:.1f}, limit {config.threshold_pct:.0f} %")
    assert signals["reason"].tolist() == ["bitcoin: VIX 21.5, limit 5 %"]


def test_decisions_without_words_are_the_same(rows: Rows) -> None:
    """In a search nobody reads the reasons."""
    market = rows(close_usd=[100.0] * 31 + [120.0])
    strategy = Momentum(MomentumConfig())
    worded = strategy.signals(strategy.analyse(Market({"features_daily": market})))
    strategy.worded = False
    brief = strategy.signals(strategy.analyse(Market({"features_daily": market})))
    assert worded["direction"].iloc[-1] == "long"
    pd.testing.assert_frame_equal(brief, worded.drop(columns="reason"))


def test_an_analysis_without_rows_gives_no_signals(rows: Rows) -> None:
    """The columns are there all the same."""
    signals = matched(rows().iloc[:0], otherwise="VIX {vix}")
    assert signals.empty
    assert "direction" in signals


def test_parameters_are_the_tunable_fields() -> None:
    """With value, bounds, step, and whether only whole numbers count."""
    assert SAMPLE.parameters() == (
        Parameter("threshold_pct", 5.0, 1.0, 9.0, 2.0, integer=False, description="Percent."),
        Parameter("window_days", 30, 10, 50, 10, integer=True, description="Days."),
    )


def test_a_tuned_strategy_has_another_config_and_hash() -> None:
    """The original stays as it was."""
    tuned = SAMPLE.tuned({"window_days": 40})
    assert (tuned.config.window_days, SAMPLE.config.window_days) == (40, 30)
    assert tuned.config.threshold_pct == 5.0
    assert tuned.config_hash != SAMPLE.config_hash


def test_numbers_of_numpy_are_taken() -> None:
    """Optimisers hand arrays over, where 20 is 20.0; half a day is still refused."""
    tuned = SAMPLE.tuned(dict(zip(("window_days", "threshold_pct"), np.array([20, 2.5]), strict=True)))
    assert tuned.config_hash == SAMPLE.tuned({"window_days": 20, "threshold_pct": 2.5}).config_hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window_days": 0}, "field 'window_days': got 0, allowed: a whole number >= 1"),
        ({"window_days": 20.5}, "field 'window_days': got 20.5, allowed: a whole number >= 1"),
        ({"windowdays": 5}, "unknown field 'windowdays' .value 5.: did you mean 'window_days'?"),
    ],
)
def test_tuning_refuses_what_the_config_refuses(values: dict[str, float], message: str) -> None:
    """The same words as for a file."""
    with pytest.raises(ConfigError, match=message):
        SAMPLE.tuned(values)


def test_lookback_follows_the_parameter() -> None:
    """A longer window needs more history."""
    assert Momentum(MomentumConfig()).tuned({"window_days": 90}).lookback_days == 90


def test_the_description_is_the_first_line_of_the_docstring() -> None:
    """It is shown in the catalogue."""
    assert SAMPLE.description == "First line."


def test_a_config_of_another_strategy_is_refused() -> None:
    """Mixing two strategies up fails where it happens."""
    with pytest.raises(StrategyError, match="strategy sample takes a SampleConfig, got a BuyHoldConfig"):
        Sample(BuyHoldConfig())  # type: ignore[arg-type]
