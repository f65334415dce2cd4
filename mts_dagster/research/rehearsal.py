"""Decisions of a strategy with thousands of parameter sets over one market.

What belongs here: what the sets share, so that a set costs its own rules alone. An analysis is kept for all sets that
agree in what it read of the config, late rows are looked for once, and so is the place of each decision among the bars.
The decisions are those of ``strategies.decisions.decide``, without its audit and without reasons in words. A strategy
whose parts talk to each other in a way that cannot be seen through shares nothing: each set is then analysed alone.
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
from numpy.typing import NDArray

from mts_dagster.backtest.market import MarketData
from mts_dagster.backtest.signals import Places, commands_at, commands_from_signals, places_of
from mts_dagster.research.witness import watching
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import StrategyConfig
from mts_dagster.strategies.decisions import analysed, decide, on_days, signalled
from mts_dagster.strategies.errors import StrategyError
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
        self._worded = False

    def commands(self, strategy: Strategy[Any]) -> NDArray[np.void]:
        """Return what it decides, as ``backtest.signals.commands_from_signals`` does of ``decide``.

        Raises:
            StrategyError: the strategy failed.
            UsageError: its signals make no sense.
        """
        actor = copy.copy(strategy)
        shared = self._found(actor.config)
        said = None if shared is None else _joined([self._signals(actor, analysis) for analysis in shared.analyses])
        if shared is None or said is None or not shared.decides(said):  # ``signals`` too may choose its rows by config
            shared, said = self._share(actor)
        return commands_at(shared.places, said)

    def check(self, strategy: Strategy[Any]) -> None:
        """Compare with what the strategy decides by itself.

        Raises:
            StrategyError: it decides something else.
        """
        signals = decide(strategy, self._tables, *self._days, checked=False)
        traded = signals[signals["asset"].isin(self._market.assets)]
        alone, _ = commands_from_signals(traded, self._market, self._decision_delay_s)
        if not np.array_equal(alone, self.commands(strategy)):
            raise StrategyError(
                f"strategy {strategy.name} decides otherwise among other parameter sets than alone: it keeps something "
                f"outside of itself from one call to the next, and a search of its parameters cannot be trusted"
            )

    def _found(self, config: StrategyConfig) -> _Shared | None:
        """What a set left whose analysis read the same; with the same values read, it would go the same way."""
        for names in {tuple(name for name, _ in read) for read in self._kept}:
            read = _values(config, names)
            if read in self._kept:
                self._kept.move_to_end(read)
                return self._kept[read]
        return None

    def _share(self, actor: Strategy[Any]) -> tuple[_Shared, pd.DataFrame]:
        """Analyse and decide: all that is shown, and what was known at each moment at which a row was late."""
        views = [self._view(actor, self._tables)]
        decisions = views[0].decisions
        late = self._tables.incomplete_at(decisions["timestamp"])
        inside = on_days(decisions, *self._days)
        counted = [inside & ~late]
        for moment in decisions.loc[inside & late, "timestamp"].unique():
            views.append(self._view(actor, self._tables.known_at(moment)))
            alone = views[-1].decisions
            counted.append(on_days(alone, *self._days) & (alone["timestamp"] == moment))
        said = _joined([view.decisions for view in views])
        rows = np.flatnonzero(np.concatenate(counted) & said["asset"].isin(self._market.assets).to_numpy())
        places = places_of(said, rows, self._market, self._decision_delay_s)
        shared = _Shared(tuple(view.analysis for view in views), said[ROW], places)
        if all(view.is_open for view in views):
            self._keep(_values(actor.config, sorted(set[str]().union(*(view.read for view in views)))), shared)
        return shared, said

    def _view(self, actor: Strategy[Any], tables: Market) -> _View:
        """Analyse under watch, then decide."""
        config, before = actor.config, dict(vars(actor))
        with watching(config) as (watched, read):
            actor.config = watched
            try:
                analysis = analysed(actor, tables)
            finally:
                actor.config = config
        unchanged = before.keys() == vars(actor).keys() and all(vars(actor)[name] is before[name] for name in before)
        made_alike = type(actor).__init__ is Strategy.__init__
        plain = not analysis.attrs and not (analysis.dtypes == np.object_).any()
        is_open = unchanged and made_alike and plain
        return _View(analysis, self._signals(actor, analysis), frozenset(read), is_open=is_open)

    def _signals(self, actor: Strategy[Any], analysis: pd.DataFrame) -> pd.DataFrame:
        """What a strategy says about a frame of its own, for it may write into it.

        Without reasons at first: a strategy that cannot do without them gets them from then on.
        """
        actor.worded = self._worded
        try:
            return signalled(actor, analysis.copy())
        except StrategyError:
            if self._worded:
                raise
        self._worded = actor.worded = True
        return signalled(actor, analysis.copy())

    def _keep(self, read: Read, shared: _Shared) -> None:
        self._kept[read] = shared
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)


@dataclass(frozen=True)
class _View:
    """What a strategy made of some tables.

    Attributes:
        analysis: The analysis.
        decisions: What it says about it.
        read: Fields of the config that the analysis read.
        is_open: Whether the analysis hands on nothing but itself, and depends on nothing but the tables and ``read``:
            nothing was made of the config at construction, nothing was left in the strategy or in ``attrs`` of the
            frame, no cell is an object that could be written into.
    """

    analysis: pd.DataFrame
    decisions: pd.DataFrame
    read: frozenset[str]
    is_open: bool


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

    def decides(self, said: pd.DataFrame) -> bool:
        """Whether signals are about the same times and assets, in the same order."""
        return all(said[name].equals(self.decided[name]) for name in ROW)


def _values(config: StrategyConfig, names: Iterable[str]) -> Read:
    return tuple((name, repr(getattr(config, name))) for name in names)


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
