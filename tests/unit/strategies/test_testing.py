"""The test kit finds each kind of bad strategy, and says nothing about a good one."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from pydantic import ConfigDict, Field

from mts_dagster.strategies import FEATURES, Market, Rule, Strategy, StrategyConfig, StrategyError, Tunable
from mts_dagster.strategies.momentum import Momentum, MomentumConfig
from mts_dagster.strategies.testing import Finding, assert_sound, examine

WINDOW = (date(2024, 3, 1), date(2024, 8, 1))


class GoodConfig(StrategyConfig):
    move_above_pct: Annotated[float, Tunable(0.0, 4.0, 1.0)] = Field(1.0, ge=0, description="Percent.")


class Good(Strategy[GoodConfig]):
    """Long after a rise. The bad strategies below spoil one thing each."""

    name = "good"

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "return_pct"))
        return frame.assign(score=self.score(frame))

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["return_pct"]

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        score = analysis["score"]
        size = (score / 100).clip(0.001, 0.1).fillna(0.001)
        return self.first_match(
            analysis,
            [Rule(score > self.config.move_above_pct, "long", "score {score:.4f}")],
            otherwise="score {score:.4f} too low",
            confidence=size,
            position_size=size,
            risk_level=pd.Series("low", index=analysis.index),
        )


class Tomorrow(Good):
    """Knows the next day's return."""

    name = "tomorrow"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame.groupby("coin")["return_pct"].shift(-1)


class WholeSample(Good):
    """Scales by the deviation of the whole history."""

    name = "whole_sample"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["return_pct"] / frame["return_pct"].std()


class FilledBackwards(Good):
    """Fills a gap with the next known value."""

    name = "filled_backwards"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        gaps = frame["return_pct"].where(frame["date"].dt.day % 5 != 0)
        return gaps.groupby(frame["coin"]).bfill()


class TooEarly(Good):
    """Claims to have decided when the day began."""

    name = "too_early"

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = super().analyse(market)
        return frame.assign(available_at=frame["date"].dt.tz_localize("UTC"))


class Demanding(Good):
    """Fails while history is short."""

    name = "demanding"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        if len(frame) < 400:
            raise ValueError("needs 400 rows")
        return frame["return_pct"]


class Forgetful(Good):
    """Averages ten days, but asks for none."""

    name = "forgetful"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame.groupby("coin")["return_pct"].transform(lambda r: r.rolling(10, min_periods=1).mean())


class Remembering(Forgetful):
    """The same with its lookback declared: this one is sound."""

    name = "remembering"
    lookback_days = 9


class Lucky(Good):
    """Throws dice."""

    name = "lucky"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["return_pct"] + np.random.default_rng().normal(size=len(frame))


class Growing(Good):
    """Remembers how often it was asked."""

    name = "growing"
    asked = 0

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        self.asked += 1
        return frame["return_pct"] * self.asked


class Vandal(Good):
    """Writes into its input."""

    name = "vandal"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["return_pct"]

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = market.frames[FEATURES]
        frame["return_pct"] = frame["return_pct"].round(3)
        return super().analyse(market)


class Overconfident(Good):
    """Is surer than sure."""

    name = "overconfident"

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        return super().signals(analysis).assign(confidence=2.0)


class HeldOnly(Good):
    """Leaves flat days out."""

    name = "held_only"

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        signals = super().signals(analysis)
        return signals[signals["direction"] != "flat"]


class LooseConfig(GoodConfig):
    model_config = ConfigDict(extra="ignore")


class ChangeableConfig(GoodConfig):
    model_config = ConfigDict(frozen=False)


class WideConfig(StrategyConfig):
    move_above_pct: Annotated[float, Tunable(-5.0, 4.0, 1.0)] = Field(1.0, ge=0, description="Percent.")


class OutsideConfig(StrategyConfig):
    move_above_pct: Annotated[float, Tunable(2.0, 4.0, 5.0)] = Field(1.0, ge=0, description="Percent.")


class BoundedConfig(StrategyConfig):
    move_above_pct: Annotated[float, Tunable(0.0, 4.0, 1.0)] = Field(1.0, ge=0, description="Percent.")


class Loose(Good, Strategy[LooseConfig]):
    """Accepts any field."""

    name = "loose"


class Changeable(Good, Strategy[ChangeableConfig]):
    """Its config can be changed after loading."""

    name = "changeable"


class Wide(Good, Strategy[WideConfig]):
    """Offers a value that its config refuses."""

    name = "wide"


class Outside(Good, Strategy[OutsideConfig]):
    """Stands outside its own bounds, with a step larger than they are."""

    name = "outside"


class WeakAtTheEnd(Good, Strategy[BoundedConfig]):
    """Breaks the contract when its parameter is at the lower bound."""

    name = "weak_at_the_end"

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        signals = super().signals(analysis)
        return signals if self.config.move_above_pct else signals.assign(confidence=-1.0)


def found(kind: type[Strategy[GoodConfig]], market: Market) -> tuple[Finding, ...]:
    return examine(kind(kind.config_type()), market, *WINDOW, cuts=15)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Good, Remembering])
def test_a_good_strategy_is_sound(kind: type[Good], market: Market) -> None:
    """Nothing is found, and the assertion passes."""
    assert found(kind, market) == ()
    assert_sound(kind(GoodConfig()), market, *WINDOW, cuts=3)


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (Tomorrow, "look_ahead", "the decision on "),
        (WholeSample, "look_ahead", "the decision on "),
        (FilledBackwards, "look_ahead", "the decision on "),
        (TooEarly, "look_ahead", " is missing"),
        (Demanding, "look_ahead", "it fails: strategy demanding failed with ValueError: needs 400 rows"),
        (Forgetful, "lookback", "with lookback_days = 0 alone before 2024-"),
        (Lucky, "determinism", "with a second run the decision on "),
        (Growing, "determinism", "with a second run the decision on "),
        (Vandal, "determinism", "a run changes its input table features_daily"),
        (Overconfident, "schema", "column confidence fails less_than_or_equal_to(1)"),
        (HeldOnly, "schema", " days have no decision, first "),
        (Loose, "config", "LooseConfig accepts an unknown field"),
        (Changeable, "config", "ChangeableConfig can be changed after loading"),
        (Wide, "config", "parameter move_above_pct cannot take its own bound -5.0: "),
        (Outside, "config", "parameter move_above_pct is 1.0, outside its bounds 2.0..4.0"),
        (Outside, "config", "parameter move_above_pct: step 5.0 does not fit its bounds"),
        (WeakAtTheEnd, "config", "with move_above_pct = 0.0: signals of strategy weak_at_the_end break their"),
    ],
)
def test_each_kind_of_bad_strategy_is_caught(
    kind: type[Strategy[GoodConfig]], check: str, message: str, market: Market
) -> None:
    """The check that it fails is named, with the first case."""
    assert any(finding.check == check and message in finding.message for finding in found(kind, market))


def test_a_config_that_does_not_survive_json_is_caught(market: Market) -> None:
    """What is written must be readable again."""

    class AliasConfig(GoodConfig):
        model_config = ConfigDict(validate_by_name=True)
        window_days: int = Field(3, validation_alias="windowDays", ge=1, description="Days.")

    class Alias(Good, Strategy[AliasConfig]):
        """Its JSON has another name for a field."""

        name = "alias"

        @property
        def config_hash(self) -> str:
            return super().config_hash

    AliasConfig.model_config["validate_by_name"] = False
    AliasConfig.model_rebuild(force=True)
    messages = [finding.message for finding in found(Alias, market) if finding.check == "config"]
    assert any("does not survive being written to JSON and read again" in message for message in messages)


def test_the_assertion_names_every_finding(market: Market) -> None:
    """A failing test of a user shows what to repair."""
    with pytest.raises(StrategyError, match=r"strategy outside is not sound: config: .*; config: .*"):
        assert_sound(Outside(OutsideConfig()), market, *WINDOW, cuts=3)  # type: ignore[arg-type]


def test_late_rows_are_no_look_ahead(market: Market) -> None:
    """A sound strategy stays sound on a history in which some rows came two days late."""
    frame = market.frames[FEATURES]
    late = frame.index % 67 == 0
    known = frame["available_at"].mask(late, frame["available_at"] + pd.Timedelta(hours=50))
    late_market = Market({FEATURES: frame.assign(available_at=known)})
    assert examine(Momentum(MomentumConfig()), late_market, date(2024, 4, 1), date(2024, 6, 1), cuts=6) == ()
