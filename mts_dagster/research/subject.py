"""Who decides in a backtest: a configured strategy, or ``aggregate``, the portfolio of all of them.

What belongs here: finding a subject by name, giving it other assets or parameters, and making it again from what a
stored run kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mts_dagster.errors import UsageError
from mts_dagster.settings import Settings
from mts_dagster.strategies.aggregate import NAME as AGGREGATE
from mts_dagster.strategies.aggregate import AggregationConfig
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import StrategyConfig, build_config, suggestion
from mts_dagster.strategies.registry import load_aggregation, load_strategies

BENCHMARK = "buy_hold"


@dataclass(frozen=True)
class Subject:
    """Who decides.

    Attributes:
        name: Name of the strategy, or ``aggregate``.
        config: Its config.
        strategy: The strategy; None for the portfolio, whose decisions are stored and not made again.
    """

    name: str
    config: StrategyConfig
    strategy: Strategy[Any] | None

    @property
    def assets(self) -> tuple[str, ...]:
        """CoinGecko ids that are decided on."""
        return self.config.assets

    @property
    def stored_config(self) -> str:
        """The config as JSON with sorted keys."""
        return json.dumps(self.config.model_dump(mode="json"), sort_keys=True)

    def on(self, assets: Sequence[str]) -> Subject:
        """The same subject deciding on these assets alone; the portfolio's stored decisions are only chosen from."""
        return self.configured({**self.config.model_dump(), "assets": tuple(assets)})

    def tuned(self, values: Mapping[str, float]) -> Subject:
        """The same strategy with some parameters changed."""
        if self.strategy is None:
            raise UsageError(f"{self.name} has no parameters to tune; tune a strategy")
        strategy = self.strategy.tuned(values)
        return Subject(self.name, strategy.config, strategy)

    def configured(self, values: Mapping[str, object]) -> Subject:
        """The same subject with another config.

        Raises:
            ConfigError: a value is not allowed, or there is no such field.
        """
        config = build_config(type(self.config), values)
        return Subject(self.name, config, None if self.strategy is None else type(self.strategy)(config))

    def restored(self, stored_config: str) -> Subject:
        """The same subject with the config that a stored run kept."""
        config = type(self.config).model_validate_json(stored_config)
        return self.configured(config.model_dump())


def subjects_of(strategies: Iterable[Strategy[Any]], aggregation: AggregationConfig) -> dict[str, Subject]:
    """All that can be backtested, by name, sorted: the directional strategies and the portfolio.

    A hedged pair earns the difference of two venues, which bars of one price cannot tell.
    """
    found = {strategy.name: Subject(strategy.name, strategy.config, strategy) for strategy in directional(strategies)}
    return dict(sorted({**found, AGGREGATE: Subject(AGGREGATE, aggregation, None)}.items()))


def tunable(subjects: Mapping[str, Subject]) -> list[str]:
    """Names of the subjects that have parameters."""
    return [name for name, subject in subjects.items() if subject.strategy and subject.strategy.parameters()]


def directional(strategies: Iterable[Strategy[Any]]) -> list[Strategy[Any]]:
    """The strategies whose positions are bets on the coin's price."""
    return [strategy for strategy in strategies if not strategy.hedged]


def all_subjects(settings: Settings) -> dict[str, Subject]:
    """Subjects of the installation."""
    return subjects_of(load_strategies(settings).values(), load_aggregation(settings))


def subject_named(name: str, settings: Settings) -> Subject:
    """One subject.

    Raises:
        UsageError: there is none of that name, or it holds hedged pairs.
    """
    subjects = all_subjects(settings)
    if name in subjects:
        return subjects[name]
    if name in load_strategies(settings):
        raise UsageError(
            f"strategy {name!r} holds hedged pairs on two venues; bars of one price cannot tell what they earn, so it "
            f"is not backtested; allowed: {', '.join(subjects)}"
        )
    raise UsageError(f"there is no strategy {name!r}: {suggestion(name, subjects)}")
