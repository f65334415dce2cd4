"""One replay of the recordings through the whole chain, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pytest

from mts_dagster.lake import connect
from mts_dagster.runs import Days
from mts_dagster.settings import Settings
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals
from mts_simulator.simulator import SimulatorConfig, running_simulator
from tests.conftest import simulated_settings

MARKET = Days(date(2024, 1, 1), date(2025, 6, 30))
# Lookback of the features: 90 days of prices and about 45 of VIX observations.
MACRO = Days(date(2023, 9, 1), date(2025, 6, 30))
LAST_RECORDED = Days(date(2026, 3, 17), date(2026, 3, 19))


@dataclass(frozen=True)
class Chain:
    """The filled lake.

    Attributes:
        settings: where it is.
        con: a read-only connection, open the whole time, as a notebook's would be.
    """

    settings: Settings
    con: duckdb.DuckDBPyConnection


@pytest.fixture(scope="session")
def chain(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The recordings, served over HTTP, pulled, modelled and turned into signals."""
    with running_simulator(SimulatorConfig(replay=shared_data)) as simulator:
        settings = simulated_settings(simulator, tmp_path_factory.mktemp("real"))
        with pytest.MonkeyPatch.context() as patch, Workbench.open(settings) as bench:
            patch.setattr(bench.console, "quiet", True)
            collect_macro(bench, MACRO)
            collect_market(bench, MARKET)
            collect_market(bench, LAST_RECORDED)
            compute_signals(bench, MARKET)
    con = connect(settings=settings)
    yield Chain(settings, con)
    con.close()
