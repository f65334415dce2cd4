"""A plain in-memory DuckDB with the raw tables, and the SQL models built in it the way the lake does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pandas as pd
import pytest

from mts_dagster.live.tables import LIVE_TABLES
from mts_dagster.schemas import TABLES
from mts_dagster.settings import REPOSITORY
from mts_dagster.sql_models import Project, Window, load_project

Rows = list[dict[str, Any]]
DELAY = timedelta(seconds=60)
WRITTEN = {**{name: table for name, table in TABLES.items() if table.schema == "raw"}, **LIVE_TABLES}
PRICES = ("open", "high", "low", "close")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def empty_lake(project: Project) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 2})
    con.execute(
        "set timezone = 'UTC'; create schema raw; create schema live; create schema staging; create schema marts"
    )
    for table in WRITTEN.values():
        columns = ", ".join(f'"{column.name}" {column.sql_type}' for column in table.columns)
        con.execute(f"create table {table.qualified} ({columns})")
    for model in project.models.values():
        if model.kind == "view":
            con.execute(f"create view {model.schema}.{model.name} as {project.render(model)}")
        else:
            columns = ", ".join(f"{column.name} {column.sql_type}" for column in model.columns)
            con.execute(f"create table {model.schema}.{model.name} ({columns})")
    return con


def insert_rows(con: duckdb.DuckDBPyConnection, table: str, rows: Rows) -> None:
    """Put rows, all with the same columns, into a table that Python writes."""
    if rows:
        frame = pd.DataFrame(rows)
        con.register("given", frame)
        con.execute(f"insert into {WRITTEN[table].qualified} by name from given")
        con.unregister("given")


def build_models(con: duckdb.DuckDBPyConnection, project: Project, window: Window) -> None:
    for model in project.models.values():
        if model.kind == "incremental":
            table = model.table()
            assert model.event_time is not None
            slice_ = window.condition(model.event_time, table.column(model.event_time).sql_type)
            con.execute(f"delete from {table.qualified} where {slice_}")
            con.execute(f"insert into {table.qualified} {project.render(model, window)}")


@pytest.fixture(scope="session")
def project() -> Project:
    return load_project(REPOSITORY / "dbt_like_sql")


@pytest.fixture
def lake(project: Project) -> Iterator[duckdb.DuckDBPyConnection]:
    con = empty_lake(project)
    yield con
    con.close()


@pytest.fixture
def new_lake(project: Project) -> Iterator[Callable[[], duckdb.DuckDBPyConnection]]:
    """More than one lake, for comparing them."""
    opened: list[duckdb.DuckDBPyConnection] = []

    def make() -> duckdb.DuckDBPyConnection:
        opened.append(empty_lake(project))
        return opened[-1]

    yield make
    for con in opened:
        con.close()


@pytest.fixture
def build(lake: duckdb.DuckDBPyConnection, project: Project) -> Callable[[str, str], None]:
    """Build all models for the days from the first up to, not including, the second."""
    return lambda start, end: build_models(lake, project, Window(utc(start), utc(end)))


@pytest.fixture
def build_in(project: Project) -> Callable[[duckdb.DuckDBPyConnection, date, date], None]:
    """The same in a lake that is given."""

    def run(con: duckdb.DuckDBPyConnection, start: date, end: date) -> None:
        build_models(con, project, Window(utc(start.isoformat()), utc(end.isoformat())))

    return run


@pytest.fixture
def insert() -> Callable[[duckdb.DuckDBPyConnection, str, Rows], None]:
    """Put rows into a raw table, whole or with some columns only."""
    return insert_rows


@pytest.fixture
def kline(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add a closed candle; what is not given is the close, or 1."""

    def add(open_time: str, close: float, *, interval: str = "1h", **given: Any) -> None:  # noqa: ANN401
        opened = utc(open_time)
        closed = opened + (timedelta(days=1) if interval == "1d" else timedelta(hours=1))
        row = {"coin": "bitcoin", "venue": "binance", "symbol": "BTCUSDT", "trades": 1}
        row |= {"interval": interval, "open_time": opened, "close_time": closed, "available_at": closed + DELAY}
        row |= dict.fromkeys(PRICES, close) | {"volume_base": 1.0, "volume_quote_usd": 1.0}
        insert_rows(lake, "klines", [row | given])

    return add


@pytest.fixture
def sample(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add a price point, known ten seconds after it was taken."""

    def add(sampled_at: str, price_usd: float, volume_24h_usd: float = 5.0, coin: str = "bitcoin") -> None:
        moment = utc(sampled_at)
        row = {"coin": coin, "sampled_at": moment, "price_usd": price_usd, "volume_24h_usd": volume_24h_usd}
        row |= {"source_tier": "demo", "available_at": moment + timedelta(seconds=10)}
        insert_rows(lake, "price_points", [row])

    return add


@pytest.fixture
def observe(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add a vintage of a macro value, known at 22:00 UTC of its vintage day."""

    def add(day: str, value: float | None, vintage: str, *, indicator: str = "VIXCLS", known: str = "") -> None:
        row = {"indicator": indicator, "date": date.fromisoformat(day), "value": value}
        row |= {"vintage_date": date.fromisoformat(vintage), "pit_quality": "vintage"}
        insert_rows(lake, "macro_data", [row | {"available_at": utc(known or f"{vintage} 22:00")}])

    return add


@pytest.fixture
def settle(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add a settlement of bitcoin, known a minute later."""

    def add(venue: str, settled_at: str, rate: float, hours: float | None = 8.0, **given: Any) -> None:  # noqa: ANN401
        moment = utc(settled_at)
        row = {"coin": "bitcoin", "venue": venue, "symbol": "BTCUSDT", "settled_at": moment, "stamped_at": moment}
        row |= {"funding_rate": rate, "interval_hours": hours, "kind": "regular", "available_at": moment + DELAY}
        insert_rows(lake, "funding_rates", [row | given])

    return add


@pytest.fixture
def book(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add what a sampled book of bitcoin says, known a second later, and its spread of 2 bps."""

    def add(exchange: str, timestamp: str, imbalance: float = 0.0, **given: Any) -> None:  # noqa: ANN401
        moment = utc(timestamp)
        row = {"timestamp": moment, "exchange": exchange, "symbol": "BTCUSDT", "coin": "bitcoin"}
        row |= {"available_at": moment + timedelta(seconds=1)}
        measures = {
            "imbalance": imbalance,
            "liquidity_score": 40.0,
            "bid_depth_10bps_usd": 1e6,
            "ask_depth_10bps_usd": 2e6,
        }
        insert_rows(lake, "market_structure", [row | measures | given])
        insert_rows(lake, "bid_ask_spreads", [row | {"spread_bps": 2.0}])

    return add


@pytest.fixture
def opportunity(lake: duckdb.DuckDBPyConnection) -> Callable[..., None]:
    """Add an opportunity on bitcoin that lived for a second: bought on Bybit, sold on Binance, feasible."""

    def add(opened_at: str, net_bps: float, net_usd: float, **given: Any) -> None:  # noqa: ANN401
        opened = utc(opened_at)
        row: dict[str, Any] = {"opportunity_id": opened_at, "kind": "spread", "symbol": "BTCUSDT", "coin": "bitcoin"}
        row |= {"buy_exchange": "bybit", "sell_exchange": "binance", "opened_at": opened, "lifetime_ms": 1000.0}
        row |= {"peak_net_bps": net_bps, "peak_net_usd": net_usd, "feasible": True}
        row |= {"available_at": opened + timedelta(seconds=1)}
        insert_rows(lake, "arbitrage_opportunities", [row | given])

    return add


@pytest.fixture
def select(lake: duckdb.DuckDBPyConnection) -> Callable[[str], Rows]:
    """Rows of a query as dictionaries."""

    def run(sql: str) -> Rows:
        cursor = lake.execute(sql)
        names = [entry[0] for entry in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return run
