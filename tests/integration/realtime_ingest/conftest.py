"""Segments written by hand in a home of the test's own, and real Dagster runs over them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from mts_dagster.definitions import build_definitions
from mts_dagster.defs.resources import prepare_lake
from mts_dagster.defs.sql_models.assets import project_of
from mts_dagster.instance.home import open_instance
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.transaction import Origin
from mts_dagster.live.derive import Derived, derive_arbitrage, derive_spreads, derive_structure
from mts_dagster.live.ingest import Ingested, ingest
from mts_dagster.live.tables import LANDED, LIVE_TABLES
from mts_dagster.runs import run_hour
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings, load_settings
from mts_realtime.datasets import SCHEMAS
from mts_realtime.landing import write_segments

HOUR = datetime(2026, 11, 20, 13, tzinfo=UTC)
ONE_HOUR = timedelta(hours=1)
LATER = HOUR + timedelta(days=1)
ORIGIN = Origin(asset="test", run_id="", code_version="", partitions="")
COMPUTED = {
    "bid_ask_spreads": derive_spreads,
    "market_structure": derive_structure,
    "arbitrage_opportunities": derive_arbitrage,
}
Level = tuple[float, float]
Rows = list[tuple[Any, ...]]


def at(seconds: float) -> datetime:
    """A moment of the hour."""
    return HOUR + timedelta(seconds=seconds)


def book_row(
    seconds: float,
    exchange: str,
    bids: Sequence[Level],
    asks: Sequence[Level],
    symbol: str = "BTCUSDT",
    age_ms: float = 100.0,
) -> dict[str, Any]:
    """A sampled book; its newest update is ``age_ms`` old."""
    newest = at(seconds) - timedelta(milliseconds=age_ms)
    return {
        "timestamp": at(seconds),
        "exchange": exchange,
        "symbol": symbol,
        "venue_symbol": symbol,
        "exchange_time": newest,
        "received_at": newest,
        "sequence_id": round(seconds * 10),
        "cross_sequence_id": None,
        "update_count": 3,
        "bid_prices": [price for price, _ in bids],
        "bid_sizes": [size for _, size in bids],
        "ask_prices": [price for price, _ in asks],
        "ask_sizes": [size for _, size in asks],
    }


def funding_row(seconds: float, exchange: str, rate: float, mark: float = 100.0) -> dict[str, Any]:
    """A funding estimate; the settlement is at 16:00, every 8 hours."""
    return {
        "timestamp": at(seconds),
        "exchange": exchange,
        "symbol": "BTCUSDT",
        "venue_symbol": "BTCUSDT",
        "exchange_time": at(seconds),
        "change": "sample",
        "mark_price": mark,
        "index_price": None,
        "funding_rate": rate,
        "next_funding_time": HOUR + 3 * ONE_HOUR,
        "funding_interval_hours": 8.0,
    }


def ticker_row(seconds: float, exchange: str, turnover: float, symbol: str = "BTCUSDT") -> dict[str, Any]:
    """A sampled ticker."""
    return {
        "timestamp": at(seconds),
        "exchange": exchange,
        "symbol": symbol,
        "venue_symbol": symbol,
        "exchange_time": at(seconds),
        "received_at": at(seconds),
        "last_price": 100.0,
        "volume_24h_base": turnover / 100.0,
        "turnover_24h_quote": turnover,
        "open_interest_base": None,
    }


def gap_row(start_s: float, end_s: float, topic: str = "t", dataset: str = "order_book") -> dict[str, Any]:
    """A declared gap of binance BTCUSDT."""
    return {
        "timestamp": at(end_s) - timedelta(microseconds=1),
        "dataset": dataset,
        "exchange": "binance",
        "symbol": "BTCUSDT",
        "topic": topic,
        "gap_start": at(start_s),
        "gap_end": at(end_s),
        "reason": "silence",
    }


@dataclass(frozen=True)
class World:
    """A home with a landing folder, a lake and a Dagster instance."""

    settings: Settings

    @cached_property
    def definitions(self) -> dg.Definitions:
        """What Dagster loads."""
        return build_definitions(self.settings)

    @property
    def landing(self) -> Path:
        """The landing folder."""
        return self.settings.landing_dir

    def land(self, dataset: str, rows: list[dict[str, Any]], exchange: str | None = None) -> list[Path]:
        """Write segments as the sidecar does."""
        table = pa.Table.from_pylist(rows, schema=SCHEMAS[dataset])
        return write_segments(self.landing, dataset, exchange or rows[0].get("exchange", "cross"), table)

    def run(self, hour: datetime = HOUR) -> str:
        """A Dagster run of all live assets of an hour."""
        with open_instance(self.settings) as instance:
            return run_hour(self.definitions, instance, hour, "by hand")

    def bring_in(self, *names: str, hour: datetime = HOUR, now: datetime = LATER) -> list[Ingested | Derived]:
        """What such a run does for these tables, the order book by default, without Dagster's bookkeeping."""
        windows = [Slice(hour, hour + ONE_HOUR)]
        done: list[Ingested | Derived] = []
        for name in names or ("order_book",):
            if name in COMPUTED:
                done += COMPUTED[name](self.settings, windows, now, ORIGIN)
            else:
                landed = next(landed for landed in LANDED if landed.table.name == name)
                done += ingest(self.settings, landed, windows, ORIGIN)
        return done

    def materialisation(self, table: str) -> dict[str, Any]:
        """Metadata of the newest materialisation of a live table."""
        with open_instance(self.settings) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey(["live", table]))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def rows(self, query: str, parameters: list[Any] | None = None) -> Rows:
        """Answer of a query on the lake; opening it once more to read would cost a third of a second."""
        with session(self.settings, read_only=False) as con:
            return con.execute(query, parameters or []).fetchall()

    def stored(self) -> dict[str, Rows]:
        """All rows of all live tables, in a fixed order."""
        return {name: self.rows(f"from live.{name} order by all") for name in LIVE_TABLES}


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty lake and an empty instance, to be copied: making one takes a second."""
    home = tmp_path_factory.mktemp("furnished") / "home"
    settings = load_settings(home=home)
    prepare_lake(settings, project_of(settings), {**TABLES, **LIVE_TABLES})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE", "MTS_HOME"):
            patch.setenv(name, "")
        with open_instance(settings):
            pass
    return home


@pytest.fixture
def own_world(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A home of the test's own, for tests of runs and of spoiled lakes; untouched by a ``.env`` file."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    shutil.copytree(furnished, home)
    return World(load_settings(home=home))


@pytest.fixture(scope="session")
def shared_home(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for most tests: opening a lake anew for each would take longer than the tests."""
    home = tmp_path_factory.mktemp("shared") / "home"
    shutil.copytree(furnished, home)
    return home


@pytest.fixture
def world(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nothing landed, nothing stored."""
    monkeypatch.chdir(shared_home.parent)
    found = World(load_settings(home=shared_home))
    for folder in (found.landing, found.settings.segment_quarantine):
        shutil.rmtree(folder, ignore_errors=True)
    with session(found.settings, read_only=False) as con:
        con.execute("begin")
        for name in ("raw.coin_universe", *(f"live.{name}" for name in LIVE_TABLES)):
            con.execute(f"delete from {name}")
        con.execute("commit")
    return found
