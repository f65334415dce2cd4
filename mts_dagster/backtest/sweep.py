"""Many parameter sets over one market, as fast as the machine allows.

What belongs here: the loop over trials. Each trial goes through the same kernel and the same rules as any
backtest; only the derived tables are left out. Threads work on their own tables, and compiled code runs
outside the interpreter lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mts_dagster.backtest.layout import COMMAND, MOMENTS, EventKind, rows
from mts_dagster.backtest.metrics import growth_of, sharpe_per_bar
from mts_dagster.backtest.moments import measure
from mts_dagster.backtest.signals import Decided, Targets, commands_from_targets
from mts_dagster.backtest.simulation import Simulation, terms_of
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.market import MarketData

Params: TypeAlias = Mapping[str, Any]
Decide: TypeAlias = Callable[[Params], Decided]
Progress: TypeAlias = Callable[[int, int], None]  # trials done, trials in all

WORKERS: Final = 2


class Trial:
    """Runs one parameter set after the other on its own tables."""

    def __init__(self, market: MarketData, assumptions: Assumptions) -> None:
        """Make the tables once."""
        terms = terms_of(assumptions, market.assets, market.interval_ns)
        self._simulation = Simulation(market, terms, assumptions.initial_capital_usd)
        self._moments = np.zeros(1, MOMENTS)
        self._interval_ns = market.interval_ns

    def run(self, decided: Decided) -> dict[str, float]:
        """Trade it; return the metrics of equity, the Sharpe ratio per bar and the number of fills.

        Raises:
            UsageError: there is not one target for each bar.
        """
        simulation = self._simulation
        simulation.restart(commands_of(decided, simulation.market.bars))
        simulation.run(simulation.market.bars)
        measure(simulation.equity, rows(self._moments))
        moments = self._moments[0]
        return {
            **asdict(growth_of(moments, self._interval_ns)),
            "sharpe_per_bar": sharpe_per_bar(moments),
            "fills": int((simulation.events["kind"] == EventKind.FILL).sum()),
        }


def commands_of(decided: Decided, bars: int) -> NDArray[np.void]:
    """Return what is decided as commands.

    Raises:
        UsageError: there is not one target for each of the bars.
    """
    if decided.dtype == COMMAND:
        return cast("NDArray[np.void]", decided)
    if len(decided) != bars:
        raise UsageError(f"{len(decided)} targets for {bars} bars: a strategy owes one for each")
    return commands_from_targets(cast("Targets", decided))


def sweep(
    market: MarketData,
    decide: Decide,
    parameter_sets: Sequence[Params],
    assumptions: Assumptions,
    *,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> pd.DataFrame:
    """Run every parameter set and return one row each: the parameters, then the metrics of ``Trial.run``.

    Args:
        market: Bars and funding.
        decide: Makes targets or commands from a parameter set; called from several threads.
        parameter_sets: What to try.
        assumptions: Costs, fills, limits.
        progress: Called after each trial.
        workers: Threads.
    """
    finished = count(1)
    stop = threading.Event()

    def work(offset: int) -> list[tuple[int, dict[str, float]]]:
        trial = Trial(market, assumptions)
        found = []
        for i, params in islice(enumerate(parameter_sets), offset, None, workers):
            if stop.is_set():
                break
            found.append((i, trial.run(decide(params))))
            done = next(finished)
            if progress is not None:
                progress(done, len(parameter_sets))
        return found

    with ThreadPoolExecutor(workers) as pool:
        try:
            parts = list(pool.map(work, range(min(workers, len(parameter_sets)))))
        except BaseException:  # Ctrl-C, or a set that failed: the other thread does not go on to the end
            stop.set()
            raise
    ordered = sorted((row for part in parts for row in part), key=lambda row: row[0])
    return pd.DataFrame([{**parameter_sets[i], **metrics} for i, metrics in ordered])
