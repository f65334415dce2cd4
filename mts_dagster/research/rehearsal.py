"""Decisions of a strategy with thousands of parameter sets over one market.

What belongs here: what the sets share, so that a set costs its own rules alone. An analysis is kept for all sets that
agree in what it read of the config, late rows are looked for once, and so is the place of each decision among the bars.
The decisions are those of ``strategies.decisions.decide``, without its audit and without reasons in words.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from mts_dagster.backtest.layout import FloatArray
from mts_dagster.backtest.market import MarketData
from mts_dagster.backtest.signals import Places, places_of, signed_sizes, targets_at
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import StrategyConfig
from mts_dagster.strategies.decisions import analysed, on_days, signalled
from mts_dagster.strategies.market import Market

MOST_KEPT = 128  # analyses; a grid varies its last parameter first, so few are needed at a time
ROW = ["date", "timestamp", "asset"]

Read: TypeAlias = tuple[tuple[str, str], ...]  # fields of a config with their values


class Rehearsal:
    """One strategy over one window, to be asked with any config of its class, by one thread at a time."""

    def __init__(self, tables: Market, market: MarketData, start: date, end: date, decision_delay_s: float) -> None:
        """Take what the strategy is shown, the bars that it trades, and the days ``[start, end)`` that it decides."""
        self._tables = tables.between(date.min, end)
        self._market = market
        self._days = start, end
        self._decision_delay_s = decision_delay_s
        self._kept: OrderedDict[Read, _Shared] = OrderedDict()

    def targets(self, strategy: Strategy[Any]) -> FloatArray:
        """Return what to hold from each close on, shape (bars, assets).

        Raises:
            StrategyError: the strategy failed.
            UsageError: its signals make no sense.
        """
        brief = copy.copy(strategy)
        brief.worded = False
        shared = self._found(brief)
        said = shared.signals(brief) if shared else None
        if shared is None or said is None or not shared.decides(said):  # ``signals`` too may choose its rows by config
            shared, said = self._share(brief)
        return targets_at(shared.places, signed_sizes(said, shared.places.rows), self._market)

    def _found(self, strategy: Strategy[Any]) -> _Shared | None:
        """What a set left whose analysis read the same; with the same values read, it would go the same way."""
        for names in {tuple(name for name, _ in read) for read in self._kept}:
            read = _values(strategy.config, names)
            if read in self._kept:
                self._kept.move_to_end(read)
                return self._kept[read]
        return None

    def _share(self, strategy: Strategy[Any]) -> tuple[_Shared, pd.DataFrame]:
        """Analyse and decide: all that is shown, and what was known at each moment at which a row was late."""
        witness = _Witness(strategy.config)
        watched = copy.copy(strategy)
        watched.config = witness
        analyses = [analysed(watched, self._tables)]
        decisions = [_signals(strategy, analyses[0])]
        late = self._tables.incomplete_at(decisions[0]["timestamp"])
        inside = on_days(decisions[0], *self._days)
        counted = [inside & ~late]
        for moment in decisions[0].loc[inside & late, "timestamp"].unique():
            analyses.append(analysed(watched, self._tables.known_at(moment)))
            decisions.append(_signals(strategy, analyses[-1]))
            counted.append(on_days(decisions[-1], *self._days) & (decisions[-1]["timestamp"] == moment))
        said = _joined(decisions)
        rows = np.flatnonzero(np.concatenate(counted) & said["asset"].isin(self._market.assets).to_numpy())
        places = places_of(said.iloc[rows], self._market, self._decision_delay_s)
        shared = _Shared(tuple(analyses), said[ROW], places._replace(rows=rows[places.rows]))
        derived = vars(strategy).keys() - {"config", "worded"}  # made of the config before anybody watched
        self._kept[_values(strategy.config, _fields(strategy.config) if derived else sorted(witness.read))] = shared
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return shared, said


@dataclass(frozen=True)
class _Shared:
    """What parameter sets share that agree in all that the analysis reads.

    Attributes:
        analyses: Of everything shown, then of what was known at each late moment.
        decided: Time and asset of each decision on them.
        places: The decisions that count, and their bars.
    """

    analyses: tuple[pd.DataFrame, ...]
    decided: pd.DataFrame
    places: Places

    def signals(self, strategy: Strategy[Any]) -> pd.DataFrame:
        """What a strategy says about all of them."""
        return _joined([_signals(strategy, analysis) for analysis in self.analyses])

    def decides(self, said: pd.DataFrame) -> bool:
        """Whether signals are about the same times and assets, in the same order."""
        return all(said[name].equals(self.decided[name]) for name in ROW)


class _Witness:
    """Stands for a config, and notes which of its fields are read; a method or property may read any of them."""

    def __init__(self, config: StrategyConfig) -> None:
        self._config = config
        self.read: set[str] = set()

    # For a strategy that asks what it is given.
    __class__ = property(lambda self: type(self._config))

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401 - object's own signature
        """A copy is the config itself, and is read where nobody watches."""
        self.read.update(_fields(self._config))
        return self._config.__reduce_ex__(protocol)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the config holds
        fields = _fields(self._config)
        self.read.update((name,) if name in fields else fields)
        return getattr(self._config, name)


def _fields(config: StrategyConfig) -> list[str]:
    return list(type(config).model_fields)


def _values(config: StrategyConfig, names: Iterable[str]) -> Read:
    return tuple((name, repr(getattr(config, name))) for name in names)


def _signals(strategy: Strategy[Any], analysis: pd.DataFrame) -> pd.DataFrame:
    """What a strategy says about a frame of its own, for it may write into it."""
    return signalled(strategy, analysis.copy(deep=False))


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
