"""Spreadsheet-sized markets for the engine's rules: a few bars, a script of decisions, the fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Limits, Protection, Venue
from mts_dagster.backtest.layout import EventKind, Reason
from mts_dagster.backtest.market import market_from_frames
from mts_dagster.backtest.python_strategy import Broker, Strategy, run_bars
from mts_dagster.backtest.reconcile import reconcile

if TYPE_CHECKING:
    from mts_dagster.backtest.simulation import Simulation

START = pd.Timestamp("2024-01-01", tz="UTC")
HOUR = pd.Timedelta("1h")

Bar = tuple[float, ...]
Step = Callable[[Broker], object]


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
    def fills(self) -> list[tuple[int, float, float]]:
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

    def __init__(self, steps: Mapping[int, Step]) -> None:
        self.steps = steps

    def on_bar(self, broker: Broker) -> None:
        step = self.steps.get(broker.bar)
        if step is not None:
            step(broker)


class Play(Protocol):
    """Run a script over bars, see ``play``."""

    def __call__(
        self,
        bars: Sequence[Bar] | Mapping[str, Sequence[Bar | None]],
        steps: Mapping[int, Step],
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


@pytest.fixture(scope="session")
def bars_of() -> Callable[[Mapping[str, Sequence[Bar | None]]], pd.DataFrame]:
    """Return the function that makes a bar frame."""
    return frame_of


@pytest.fixture(scope="session")
def assume() -> Callable[..., Assumptions]:
    """Return a maker of assumptions: free of costs unless told otherwise, fields given by name."""

    def make(**changes: Any) -> Assumptions:  # noqa: ANN401 - the fields of five models
        parts = {
            "fills": Fills,
            "limits": Limits,
            "protection": Protection,
            "default_instrument": InstrumentRules,
        }
        venue = {"maker_fee_bps": 0.0, "taker_fee_bps": 0.0, "kind": "perpetual"}
        fields: dict[str, Any] = {
            "fills": {"slippage_bps": 0.0},
            "limits": {"maintenance_margin_pct": 0.0, "liquidation_fee_bps": 0.0},
            "protection": {},
            "default_instrument": {"venue": "test"},
        }
        own: dict[str, Any] = {"initial_capital_usd": 1000.0}
        for name, value in changes.items():
            if name in venue:
                venue[name] = value
                continue
            part = next((part for part, model in parts.items() if name in model.model_fields), None)
            (own if part is None else fields[part])[name] = value
        built = {part: parts[part](**values) for part, values in fields.items()}
        return Assumptions(venues={"test": Venue(**venue)}, **built, **own)

    return make


@pytest.fixture(scope="session")
def play(assume: Callable[..., Assumptions]) -> Play:
    """Return the function that runs a script over bars and checks the books of every run."""

    def run(
        bars: Sequence[Bar] | Mapping[str, Sequence[Bar | None]],
        steps: Mapping[int, Step],
        assumptions: Assumptions | None = None,
        funding: Sequence[tuple[float, str, float]] = (),
    ) -> Played:
        columns = bars if isinstance(bars, Mapping) else {"BTC": bars}
        settled = pd.DataFrame(
            {
                "settled_at": pd.DatetimeIndex([START + HOUR * hours for hours, _, _ in funding], tz="UTC"),
                "asset": [asset for _, asset, _ in funding],
                "funding_rate": [rate for _, _, rate in funding],
            }
        )
        market = market_from_frames(frame_of(columns), settled, perpetuals=tuple(columns))
        simulation = run_bars(Script(steps), market, assumptions or assume())
        marks = market.arrays.mark[-1]
        capital = simulation.capital
        reconcile(capital, simulation.events, simulation.cash, float(simulation.equity[-1]), marks).require()
        assert np.isfinite(simulation.equity).all()
        return Played(simulation)

    return run
