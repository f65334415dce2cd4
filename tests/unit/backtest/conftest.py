"""Fixtures of the engine's tests: assumptions without costs, and a player of scripts over a few bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Limits, Protection, Venue
from mts_dagster.backtest.market import market_from_frames
from mts_dagster.backtest.python_strategy import run_bars
from mts_dagster.backtest.reconcile import reconcile
from tests.unit.backtest.playing import HOUR, START, Assume, Bar, Play, Played, Script, Step, frame_of


@pytest.fixture(scope="session")
def assume() -> Assume:
    """Return a maker of assumptions: free of costs unless told otherwise, fields given by name."""

    def make(**changes: Any) -> Assumptions:  # noqa: ANN401 - the fields of five models
        parts: dict[str, type[BaseModel]] = {
            "fills": Fills,
            "limits": Limits,
            "protection": Protection,
            "default_instrument": InstrumentRules,
        }
        venue: dict[str, Any] = {"maker_fee_bps": 0.0, "taker_fee_bps": 0.0, "kind": "perpetual"}
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
        return Assumptions.model_validate({"venues": {"test": Venue(**venue)}, **fields, **own})

    return make


@pytest.fixture(scope="session")
def play(assume: Assume) -> Play:
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
