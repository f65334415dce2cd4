"""Thousands of parameter sets over one market: each decided as if it were the only one."""

from __future__ import annotations

import copy
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pydantic import Field

from mts_dagster.backtest.config import Assumptions
from mts_dagster.backtest.market import MarketData
from mts_dagster.backtest.run import Window, prepare
from mts_dagster.backtest.signals import commands_from_signals
from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.research import rehearsal as rehearsal_module
from mts_dagster.research.rehearsal import Rehearsal
from mts_dagster.research.tuning import space_of
from mts_dagster.settings import Settings
from mts_dagster.strategies import (
    FEATURES,
    Market,
    Rule,
    Strategy,
    StrategyConfig,
    StrategyError,
    Tunable,
    decide,
)
from mts_dagster.strategies.registry import load_strategies

FIRST_DAY, END = date(2024, 6, 1), date(2024, 8, 30)
DELAY_S = Assumptions().fills.decision_delay_s
TUNABLE = ("market_structure", "mean_reversion", "momentum", "vix_correlation", "volume_spike")


class ThresholdConfig(StrategyConfig):
    """Config of ``Threshold``."""

    days: Annotated[int, Tunable(1, 9, 1)] = Field(5, ge=1, description="Days of the move.")
    above_pct: Annotated[float, Tunable(0.0, 9.0, 1.0)] = Field(1.0, description="Long above it, percent.")

    @property
    def longest_days(self) -> float:
        """Hides which fields it reads."""
        return self.days + self.above_pct


class Threshold(Strategy[ThresholdConfig]):
    """Long after a rise; counts its analyses."""

    name = "threshold"
    analysed: ClassVar[list[ThresholdConfig]] = []

    def days(self) -> int:
        return self.config.days

    def analyse(self, market: Market) -> pd.DataFrame:
        self.analysed.append(self.config)
        frame = market.table(FEATURES, ("date", "coin", "available_at", "close_usd"))
        return frame.assign(move_pct=frame.groupby("coin")["close_usd"].pct_change(self.days()) * 100)

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        size = pd.Series(0.1, index=analysis.index)
        return self.first_match(
            analysis,
            [Rule(analysis["move_pct"] > self.config.above_pct, "long", "up")],
            otherwise="not up",
            confidence=size,
            position_size=size,
            risk_level=pd.Series("low", index=analysis.index),
        )


class Remembers(Threshold):
    """Hands a value from the analysis to the signals by the side."""

    limit_pct = 0.0

    def analyse(self, market: Market) -> pd.DataFrame:
        self.limit_pct = self.config.above_pct
        return super().analyse(market)

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        analysis["move_pct"] = analysis["move_pct"] - self.limit_pct
        return super().signals(analysis)


class RemembersInTheFrame(Threshold):
    """Hands it over in the frame's attributes."""

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = super().analyse(market)
        frame.attrs["config"] = self.config
        return frame

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        analysis["move_pct"] = analysis["move_pct"] - analysis.attrs["config"].above_pct
        return super().signals(analysis)


class ByProperty(Threshold):
    """Reads its config by a property."""

    def days(self) -> int:
        return int(self.config.longest_days)


class ByComparison(Threshold):
    """Compares its config with another."""

    def days(self) -> int:
        return 2 if self.config == ThresholdConfig(days=2, above_pct=4.0) else 7


class ByDump(Threshold):
    """Takes its config to pieces."""

    def days(self) -> int:
        return int(dict(self.config)["days"]) + int(self.config.model_dump()["above_pct"])


class ByCopy(Threshold):
    """Copies its config, and looks what it is."""

    def days(self) -> int:
        assert isinstance(self.config, ThresholdConfig)
        return copy.deepcopy(self.config).days


class ByAnother(Threshold):
    """Leaves the analysis to another strategy."""

    def analyse(self, market: Market) -> pd.DataFrame:
        return Threshold(self.config).analyse(market)


class AtConstruction(Threshold):
    """Reads its config before anybody watches."""

    def __init__(self, config: ThresholdConfig) -> None:
        super().__init__(config)
        self.doubled = config.days * 2

    def days(self) -> int:
        return self.doubled


class InSlots(Threshold):
    """The same, where nobody looks."""

    __slots__ = ("window_days",)

    def __init__(self, config: ThresholdConfig) -> None:
        super().__init__(config)
        self.window_days = config.days

    def days(self) -> int:
        return self.window_days


class Writes(Threshold):
    """Changes the frame that it is given."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        analysis["move_pct"] = analysis["move_pct"] - self.config.above_pct
        return super().signals(analysis)


class WritesBelow(Threshold):
    """Changes the numbers below the frame."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        analysis["move_pct"].array[:] = analysis["move_pct"] - self.config.above_pct
        return super().signals(analysis)


class WritesIntoCells(Threshold):
    """Changes what the cells of the frame hold."""

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = super().analyse(market)
        return frame.assign(cell=pd.Series([[move] for move in frame["move_pct"]], index=frame.index))

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        for cell in analysis["cell"]:
            cell[0] -= self.config.above_pct
        analysis["move_pct"] = [cell[0] for cell in analysis["cell"]]
        return super().signals(analysis)


class Chooses(Threshold):
    """Says nothing about what fell."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        return super().signals(analysis[analysis["move_pct"] > self.config.above_pct - 3])


class ReadsReasons(Threshold):
    """Halves what it says for a reason of its own."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        said = super().signals(analysis)
        said.loc[said["reason"] == "up", "position_size"] /= 2
        return said


class Impure(Threshold):
    """Keeps what it saw for all that come after."""

    seen: ClassVar[list[float]] = []

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        self.seen.append(self.config.above_pct)
        analysis["move_pct"] = analysis["move_pct"] - len(self.seen)
        return super().signals(analysis)


class Fails(Threshold):
    """Cannot decide."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        raise ZeroDivisionError(len(analysis))


class Shouts(Threshold):
    """Gives a direction that there is not."""

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        return super().signals(analysis).assign(direction="LONG")


@pytest.fixture(autouse=True)
def _nothing_analysed() -> None:
    Threshold.analysed.clear()


@pytest.fixture(scope="module")
def traded(bars: pd.DataFrame) -> MarketData:
    """The bars of the three months."""
    opens = datetime.combine(FIRST_DAY + timedelta(days=1), time(), UTC), datetime.combine(END, time(), UTC)
    return prepare(bars, None, Assumptions(), Window(*opens))


def rehearsed(strategy: Strategy[Any], market: Market, traded: MarketData) -> Rehearsal:
    return Rehearsal(market.prepared(strategy.inputs, strategy.config.assets), traded, FIRST_DAY, END, DELAY_S)


def threshold(days: int, above_pct: float, kind: type[Threshold] = Threshold) -> Threshold:
    return kind(ThresholdConfig(days=days, above_pct=above_pct))


def alone(strategy: Strategy[Any], market: Market, traded: MarketData) -> NDArray[np.void]:
    """What a set of its own decides."""
    return commands_from_signals(decide(strategy, market, FIRST_DAY, END), traded, DELAY_S)[0]


def sets_of(strategy: Strategy[Any], count: int) -> list[Strategy[Any]]:
    """Some sets by chance, each parameter within its bounds."""
    generator = np.random.default_rng(3)
    found: list[Strategy[Any]] = []
    while len(found) < count:
        params = {name: generator.choice(values) for name, values in space_of(strategy).items()}
        with suppress(ConfigError):
            found.append(strategy.tuned(params))
    return found


def delayed(market: Market) -> Market:
    """One row of a hundred known up to three days late."""
    generator = np.random.default_rng(5)
    frames = {}
    for name, frame in market.frames.items():
        late = np.where(generator.random(len(frame)) < 0.01, generator.integers(1, 72, len(frame)), 0)
        known = frame["available_at"] + pd.to_timedelta(late, unit="h").astype("timedelta64[us]")
        frames[name] = frame.assign(available_at=known)
    return Market(frames)


@pytest.mark.parametrize("name", TUNABLE)
def test_each_set_is_decided_as_alone(name: str, market: Market, traded: MarketData, settings: Settings) -> None:
    """Every delivered strategy that can be searched, whatever sets came before."""
    strategy = load_strategies(settings)[name]
    sets = sets_of(strategy, 6)
    rehearsal = rehearsed(strategy, market, traded)
    for one in [*sets, sets[0]]:
        np.testing.assert_array_equal(rehearsal.commands(one), alone(one, market, traded))
    assert any(alone(one, market, traded)["value"].any() for one in sets)


@pytest.mark.parametrize("name", ["momentum", "market_structure"])
def test_late_rows_are_late_for_every_set(name: str, market: Market, traded: MarketData, settings: Settings) -> None:
    """The analysis of what was known at a late moment is kept too, and gives no other decision."""
    strategy = load_strategies(settings)[name]
    late = delayed(market)
    rehearsal = rehearsed(strategy, late, traded)
    sets = sets_of(strategy, 4)
    for one in sets:
        np.testing.assert_array_equal(rehearsal.commands(one), alone(one, late, traded))
    assert any(not np.array_equal(alone(one, late, traded), alone(one, market, traded)) for one in sets)


@pytest.mark.parametrize("kind", [Threshold, ByAnother, Writes, Chooses])
def test_sets_share_an_analysis_that_reads_the_same(kind: type[Threshold], market: Market, traded: MarketData) -> None:
    """The threshold is read by the signals alone, the days by the analysis."""
    rehearsal = rehearsed(threshold(5, 1.0), market, traded)
    for days, above in ((5, 1.0), (5, 2.0), (7, 2.0), (5, 3.0), (7, 1.0)):
        rehearsal.commands(threshold(days, above, kind))
    # Rows that depend on the threshold are looked for anew.
    assert len(Threshold.analysed) == (5 if kind is Chooses else 2)


@pytest.mark.parametrize(
    "kind",
    [
        Remembers,
        RemembersInTheFrame,
        ByProperty,
        ByComparison,
        ByDump,
        ByCopy,
        ByAnother,
        AtConstruction,
        InSlots,
        Writes,
        WritesBelow,
        WritesIntoCells,
        Chooses,
        ReadsReasons,
    ],
)
def test_a_strategy_may_do_with_its_config_and_its_analysis_what_it_likes(
    kind: type[Threshold], market: Market, traded: MarketData
) -> None:
    """Whatever way a value takes, each set is decided as alone."""
    rehearsal = rehearsed(threshold(5, 1.0), market, traded)
    found = []
    for days, above in ((2, 1.0), (2, 4.0), (2, 2.0), (4, 1.0), (2, 4.0)):
        found.append(rehearsal.commands(threshold(days, above, kind)))
        np.testing.assert_array_equal(found[-1], alone(threshold(days, above, kind), market, traded))
    assert not np.array_equal(found[0], found[1])


def test_a_strategy_that_remembers_what_it_saw_is_refused(market: Market, traded: MarketData) -> None:
    """Its sets cannot be compared with each other."""
    rehearsal = rehearsed(threshold(5, 1.0), market, traded)
    rehearsal.commands(threshold(5, 1.0, Impure))
    with pytest.raises(StrategyError, match="threshold decides otherwise among other parameter sets than alone"):
        rehearsal.check(threshold(5, 1.0, Impure))


def test_the_oldest_analysis_makes_room(market: Market, traded: MarketData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are kept: the third takes the place of the one not asked for the longest."""
    monkeypatch.setattr(rehearsal_module, "MOST_KEPT", 2)
    rehearsal = rehearsed(threshold(5, 1.0), market, traded)
    for days in (5, 6, 5, 7, 5):
        rehearsal.commands(threshold(days, 1.0))
    assert [config.days for config in Threshold.analysed] == [5, 6, 7]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [(Fails, StrategyError, "threshold failed with ZeroDivisionError"), (Shouts, UsageError, "'LONG' is none of")],
)
def test_what_makes_no_sense_is_refused(
    kind: type[Threshold], error: type[Exception], words: str, market: Market, traded: MarketData
) -> None:
    """A search stops with the words of a backtest."""
    with pytest.raises(error, match=words):
        rehearsed(threshold(5, 1.0), market, traded).commands(threshold(5, 1.0, kind))
