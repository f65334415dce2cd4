"""Decisions on history that was cut off are the decisions on the whole of it: nothing later ever entered."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pandas as pd
import pytest

from mts_dagster.defs.resources import prepare_lake
from mts_dagster.defs.signals.assets import signal_table
from mts_dagster.defs.sql_models.assets import project_of
from mts_dagster.lake import write
from mts_dagster.lake.shared import session
from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.runs import Days
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings
from mts_dagster.strategies.registry import load_strategies
from mts_dagster.workbench import Workbench, compute_signals

from .conftest import MARKET, Chain

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real"), pytest.mark.timeout(600)]

# A Tuesday noon, the day after a crash: the VIX close of that Monday was not out yet.
CUT = datetime(2024, 8, 6, 12, tzinfo=UTC)
DECIDED = Days(MARKET.first, date(2024, 8, 6))
RAW = [table for table in TABLES.values() if table.schema == "raw"]


@pytest.fixture(scope="module")
def cut_off(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake that holds what was known at the cut, with models and signals computed from that alone."""
    home = tmp_path_factory.mktemp("cut") / "home"
    settings = chain.settings.model_copy(
        update={"home": home, "catalog": f"sqlite:{home}/lake.sqlite", "data_path": f"{home}/lake/"}
    )
    strategies = load_strategies(settings).values()
    prepare_lake(
        settings,
        project_of(settings),
        {**TABLES, **LIVE_TABLES, **{table.name: table for table in map(signal_table, strategies)}},
    )
    with session(settings, read_only=False) as con, write(con):
        for table in RAW:
            known = chain.con.execute(f"from {table.qualified} where available_at <= ?", [CUT]).arrow()  # noqa: F841 - DuckDB finds it by its name
            con.execute(f"insert into {table.qualified} by name from known")
    with pytest.MonkeyPatch.context() as patch, Workbench.open(settings) as bench:
        patch.setattr(bench.console, "quiet", True)
        compute_signals(bench, DECIDED)
    return settings


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("signals.trading_signals", "strategy, asset"),
        ("marts.features_daily", "coin"),
        ("marts.ohlcv_daily", "coin"),
        ("marts.macro_daily", "indicator"),
    ],
)
def test_what_was_known_then_is_all_that_counts(chain: Chain, cut_off: Settings, table: str, key: str) -> None:
    """Every row that was available at the cut is the same, to 1e-9, in the cut lake and in the whole one."""
    query = f"from {table} where available_at <= ? and date >= ? order by date, {key}"
    whole = chain.con.execute(query, [CUT, MARKET.first]).df()
    with session(cut_off) as con:
        cut = con.execute(query, [CUT, MARKET.first]).df()
    assert len(cut) > 100
    pd.testing.assert_frame_equal(cut, whole, rtol=1e-9, atol=0)
