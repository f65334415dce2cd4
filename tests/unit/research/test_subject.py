"""Who can be backtested, and under which config."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import pandas as pd
import pytest
from pydantic import Field, model_validator

from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.research.subject import Subject, all_subjects, subject_named, subjects_of, tunable
from mts_dagster.research.tuning import Bench, longest_lookback, space_of, values_of
from mts_dagster.research.version import code_version
from mts_dagster.settings import load_settings
from mts_dagster.strategies.aggregate import AggregationConfig
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import StrategyConfig, Tunable
from mts_dagster.strategies.market import Market

SETTINGS = load_settings(strategy_folders=())


class WidthConfig(StrategyConfig):
    """Two parameters of which one counts days."""

    days: Annotated[int, Tunable(10, 30, 10)] = 10
    share: Annotated[float, Tunable(0.1, 0.3, 0.1)] = Field(0.1, le=0.25)


class Width(Strategy[WidthConfig]):
    """Never decides anything."""

    name: ClassVar[str] = "width"

    @property
    def lookback_days(self) -> int:
        return self.config.days

    def analyse(self, market: Market) -> pd.DataFrame:
        raise NotImplementedError

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        raise NotImplementedError


class Paired(Width):
    """Holds two legs."""

    name: ClassVar[str] = "paired"
    hedged: ClassVar[bool] = True


class CrossingConfig(StrategyConfig):
    """Two windows, one shorter than the other."""

    fast: Annotated[int, Tunable(5, 50, 5)] = 10
    slow: Annotated[int, Tunable(10, 200, 10)] = 20

    @model_validator(mode="after")
    def _fast_is_shorter(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError("fast must be shorter than slow")
        return self


class Crossing(Strategy[CrossingConfig]):
    """Never decides anything, over both windows one after the other."""

    name: ClassVar[str] = "crossing"

    @property
    def lookback_days(self) -> int:
        return self.config.fast + self.config.slow

    def analyse(self, market: Market) -> pd.DataFrame:
        raise NotImplementedError

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        raise NotImplementedError


def test_hedged_pairs_are_left_out_and_the_portfolio_is_there() -> None:
    """Bars of one price cannot tell what a pair of legs earns."""
    subjects = subjects_of([Width(WidthConfig()), Paired(WidthConfig())], AggregationConfig())
    assert list(subjects) == ["aggregate", "width"]
    assert tunable(subjects) == ["width"]


def test_a_hedged_strategy_is_refused_with_its_reason() -> None:
    """It exists, so the message is another one than for a typing error."""
    with pytest.raises(UsageError, match="'funding_arbitrage' holds hedged pairs on two venues"):
        subject_named("funding_arbitrage", SETTINGS)


def test_an_unknown_strategy_is_suggested() -> None:
    """The nearest name, and all that are allowed."""
    with pytest.raises(UsageError, match=r"no strategy 'momentun': did you mean 'momentum'\? allowed: aggregate, buy"):
        subject_named("momentun", SETTINGS)


def test_the_benchmark_has_no_vote_in_the_portfolio_as_delivered() -> None:
    """Buy-and-hold is always long; its vote would turn every conflict into a purchase."""
    config = all_subjects(SETTINGS)["aggregate"].config
    assert isinstance(config, AggregationConfig)
    assert config.weight("buy_hold") == 0.0
    assert config.weight("momentum") == 1.0


def test_other_assets_are_another_config() -> None:
    """Two coins of buy-and-hold are halves, not thirds."""
    two = subject_named("buy_hold", SETTINGS).on(["bitcoin", "ethereum"])
    assert two.assets == ("bitcoin", "ethereum")
    assert two.strategy is not None
    assert two.strategy.config.assets == two.assets


def test_a_kept_config_makes_the_same_subject() -> None:
    """Whatever today's file says."""
    tuned = subject_named("momentum", SETTINGS).tuned({"window_days": 40, "long_above_pct": 7.5})
    again = subject_named("momentum", SETTINGS).restored(tuned.stored_config)
    assert again.config == tuned.config
    assert again.stored_config == tuned.stored_config


def test_the_portfolio_cannot_be_tuned() -> None:
    """Its decisions are stored ones."""
    with pytest.raises(UsageError, match="aggregate has no parameters to tune"):
        subject_named("aggregate", SETTINGS).tuned({"min_margin": 0.1})


def test_the_version_of_the_code_knows_the_strategy() -> None:
    """Two strategies in two files differ, the same one twice does not."""
    momentum, hold = subject_named("momentum", SETTINGS), subject_named("buy_hold", SETTINGS)
    assert code_version(momentum) == code_version(momentum)
    assert code_version(momentum) != code_version(hold)
    assert code_version(Subject("aggregate", AggregationConfig(), None)).startswith("0.")


def test_values_go_from_low_to_high() -> None:
    """0.1, 0.2, 0.3 without the dust of binary fractions; whole numbers stay whole."""
    days, share = Width(WidthConfig()).parameters()
    assert values_of(days) == [10, 20, 30]
    assert values_of(share) == [0.1, 0.2, 0.3]


def test_the_space_is_what_is_named() -> None:
    """All parameters, or some of them."""
    strategy = Width(WidthConfig())
    assert space_of(strategy) == {"days": [10, 20, 30], "share": [0.1, 0.2, 0.3]}
    assert list(space_of(strategy, ["share"])) == ["share"]


def test_an_unknown_parameter_is_suggested() -> None:
    """The nearest name."""
    with pytest.raises(UsageError, match=r"no tunable parameter 'shares': did you mean 'share'\?"):
        space_of(Width(WidthConfig()), ["shares"])


def test_a_strategy_without_parameters_is_said() -> None:
    """Buy-and-hold has nothing to tune."""
    strategy = subject_named("buy_hold", SETTINGS).strategy
    assert strategy is not None
    with pytest.raises(UsageError, match="buy_hold has no parameters to tune"):
        space_of(strategy)


def test_features_are_read_for_the_longest_lookback() -> None:
    """A trial with 30 days must not miss the days that 10 need not; days that are not searched stay at 10."""
    strategy = Width(WidthConfig())
    assert longest_lookback(strategy, space_of(strategy)).lookback_days == 30
    assert longest_lookback(strategy, space_of(strategy, ["share"])).lookback_days == 10


def test_the_longest_lookback_is_that_of_a_whole_set() -> None:
    """50 and 200 look back 250 days, though a fast window of 50 is refused beside the slow one of 20 as configured."""
    strategy = Crossing(CrossingConfig())
    assert longest_lookback(strategy, space_of(strategy)).lookback_days == 250


def test_sets_that_the_config_refuses_are_left_out() -> None:
    """0.3 lies beyond what the config allows."""
    strategy = Width(WidthConfig())
    bench = Bench.__new__(Bench)
    object.__setattr__(bench, "subject", Subject("width", strategy.config, strategy))
    assert [bench.valid({"share": share}) for share in (0.1, 0.2, 0.3)] == [True, True, False]
    with pytest.raises(ConfigError):
        bench.tuned({"share": 0.3})
