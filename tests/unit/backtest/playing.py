"""Spreadsheet-sized markets for the engine's rules: a few bars, a script of decisions, the fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from mts_dagster.backtest.layout import EventKind, Reason
from mts_dagster.backtest.python_strategy import Broker, Strategy

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.simulation import Simulation

START = pd.Timestamp("2024-01-01", tz="UTC")
HOUR = pd.Timedelta("1h")

Bar = tuple[float, ...]
Step = Callable[[Broker], object]
Steps = Mapping[int, Step]


@dataclass(frozen=True)
class Played:
    """What came of a script."""

    simulation: Simulation

    def log(self, kind: EventKind) -> list[dict[str, Any]]:
        """Return the events of one kind as dictionaries."""
        events = self.simulation.events
        chosen = events[events["kind"] == kind]
        names = self.simulation.market.assets
        return [
            {name: row[name].item() for name in chosen.dtype.names or ()}
            | {"asset": names[row["asset"]], "reason": Reason(row["reason"]).name.lower()}
            for row in chosen
        ]

    @property
    def fills(self) -> list[tuple[int, Any, Any]]:
        """Return (bar, signed quantity, price) of every fill."""
        return [(row["bar"], row["quantity"], row["price"]) for row in self.log(EventKind.FILL)]

    @property
    def reasons(self) -> list[str]:
        """Return why each fill happened."""
        return [row["reason"] for row in self.log(EventKind.FILL)]

    @property
    def rejected(self) -> list[str]:
        """Return why something was rejected."""
        return [row["reason"] for row in self.log(EventKind.REJECT)]

    @property
    def cancelled(self) -> list[str]:
        """Return why something was cancelled."""
        return [row["reason"] for row in self.log(EventKind.CANCEL)]

    @property
    def cash(self) -> float:
        """Return cash at the end."""
        return self.simulation.cash

    @property
    def equity(self) -> list[float]:
        """Return equity at each close."""
        return [float(value) for value in self.simulation.equity]

    def position(self, asset: str = "BTC") -> float:
        """Return the position at the end."""
        return float(self.simulation.positions["quantity"][self.simulation.market.assets.index(asset)])


class Script(Strategy):
    """Does what a dictionary says at each bar."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def on_bar(self, broker: Broker) -> None:
        step = self.steps.get(broker.bar)
        if step is not None:
            step(broker)


class Assume(Protocol):
    """Make assumptions that are free of costs, except for the fields given."""

    def __call__(self, **changes: Any) -> Assumptions: ...  # noqa: ANN401 - the fields of five models


class Play(Protocol):
    """Run a script over bars, see ``play``."""

    def __call__(
        self,
        bars: Sequence[Bar] | Mapping[str, Sequence[Bar | None]],
        steps: Steps,
        assumptions: Assumptions | None = None,
        funding: Sequence[tuple[float, str, float]] = (),
    ) -> Played: ...


def frame_of(bars: Mapping[str, Sequence[Bar | None]]) -> pd.DataFrame:
    """Return hourly bars from (open, high, low, close[, volume]); ``None`` is a bar that is not there."""
    rows = [
        (START + HOUR * i, asset, *bar[:4], bar[4] if len(bar) > 4 else 1e9)
        for asset, column in bars.items()
        for i, bar in enumerate(column)
        if bar is not None
    ]
    return pd.DataFrame(rows, columns=["open_time", "asset", "open", "high", "low", "close", "volume_base"])
