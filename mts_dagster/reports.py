"""What the reporting commands print: queries, signals, the state of the lake, the health of the installation.

What belongs here: turning typed facts into tables for people and JSON for programs. The facts come from
``lake.status``, ``sources.probe`` and queries.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from importlib.metadata import version
from itertools import chain, count
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table as RichTable

from mts_dagster.errors import LakeNotFoundError, UsageError
from mts_dagster.lake.shared import session
from mts_dagster.lake.status import LockState, TableStatus, lock_state, table_statuses
from mts_dagster.settings import Settings, get_settings
from mts_dagster.sources.probe import Reachability, reachability

MOST_ROWS_SHOWN = 200
PIPED_WIDTH = 200  # letters in a line where no terminal says how many there are
NO_VALUE = "-"
MILLION = 1e6
VERSIONS = ("mts", "dagster", "duckdb", "pandas", "pandera", "fredapi")
NEWEST_SIGNALS = """
    select date::varchar as day, strategy, asset, direction, round(confidence, 2) as confidence,
        round(position_size, 3) as position_size, risk_level, reason
    from signals.trading_signals
    where date = (select max(date) from signals.trading_signals)
    order by strategy, asset
"""

OPPORTUNITY_COUNTS = "select kind, count(*) from live.arbitrage_opportunities group by kind order by kind"
BEST_OPPORTUNITIES = """
    select kind, symbol, buy_exchange, sell_exchange, opened_at, round(lifetime_ms / 1000, 1) as lifetime_s,
        round(peak_net_bps, 2) as peak_net_bps, round(peak_net_usd, 2) as peak_net_usd, expired_reason
    from live.arbitrage_opportunities
    qualify row_number() over (partition by kind order by peak_net_bps desc, opened_at desc) <= 5
    order by kind, peak_net_bps desc, opened_at desc
"""
BACKTESTS = """
    select base.strategy, base.started_at::date::varchar as "from", base.ended_at::date::varchar as until,
        round(base.total_return_pct, 2) as "return %", round(base.sharpe, 2) as "Sharpe",
        round(base.max_drawdown_pct, 2) as "drawdown %", base.trades,
        round(base.commission_usd + base.slippage_usd - base.funding_usd, 0) as "costs USD",
        round(worse.total_return_pct, 2) as "pessimistic %"
    from backtests.backtest_summary as base join backtests.backtest_summary as worse using (strategy)
    where base.variant = 'base' and worse.variant = 'pessimistic'
    order by base.strategy <> 'buy_hold', base.total_return_pct desc
"""


def print_query(query: str, *, as_json: bool) -> None:
    """Run one query and print its rows.

    Raises:
        UsageError: DuckDB does not accept the query.
    """
    with session(get_settings()) as con:
        try:
            result = con.execute(query)
            columns = [column[0] for column in result.description or []]
            rows = result.fetchall()
        except duckdb.Error as error:
            raise UsageError(" ".join(str(error).split())) from None
    if as_json:
        print_json([dict(zip(_distinct(columns), row, strict=True)) for row in rows])
        return
    print_rows(columns, rows[:MOST_ROWS_SHOWN])
    if len(rows) > MOST_ROWS_SHOWN:
        sys.stdout.write(f"{len(rows)} rows, the first {MOST_ROWS_SHOWN} shown; --json prints all\n")


def print_signals(settings: Settings) -> None:
    """Print the newest day's signals of all strategies."""
    with session(settings) as con:
        result = con.execute(NEWEST_SIGNALS)
        columns = [column[0] for column in result.description or []]
        rows = result.fetchall()
    if not rows:
        sys.stdout.write("no signals yet\n")
        return
    print_rows(columns[1:], [row[1:] for row in rows], title=f"signals of {rows[0][0]}")


def print_opportunities(settings: Settings) -> None:
    """Print the best arbitrage opportunities of each kind, newest first among equals."""
    with session(settings) as con:
        counts = con.execute(OPPORTUNITY_COUNTS).fetchall()
        result = con.execute(BEST_OPPORTUNITIES)
        columns = [column[0] for column in result.description or []]
        rows = result.fetchall()
    if not rows:
        sys.stdout.write("no arbitrage opportunities yet\n")
        return
    told = ", ".join(f"{count} of kind {kind}" for kind, count in counts)
    print_rows(columns, rows, title=f"arbitrage opportunities: {told}; the best of each")


def print_backtests(settings: Settings) -> None:
    """Print the yearly folds of all strategies joined, buy-and-hold first, and where their tear sheets are."""
    with session(settings) as con:
        result = con.execute(BACKTESTS)
        columns = [column[0] for column in result.description or []]
        rows = result.fetchall()
    if not rows:
        sys.stdout.write("no backtests yet\n")
        return
    print_rows(columns, rows, title="backtests: all strategies against buy-and-hold, years joined")
    sys.stdout.write(f"tear sheets: {settings.report_folder / 'backtests'}\n")


def print_status(*, as_json: bool) -> None:
    """Print tables, rows, freshness and coverage."""
    statuses = table_statuses(get_settings())
    if as_json:
        print_json([asdict(status) for status in statuses])
        return
    print_rows(
        ["table", "rows", "first", "last", "known until", "days", "missing days"],
        [_status_row(status) for status in statuses],
    )


def print_doctor(*, as_json: bool) -> int:
    """Print what could keep MTS from working; 1 if something does, else 0."""
    settings = get_settings()
    sources = reachability(settings)
    lock = _lock_or_none(settings)
    versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    if as_json:
        print_json(
            {
                "settings": json.loads(settings.model_dump_json()),
                "versions": versions,
                "sources": [asdict(source) for source in sources],
                "lock": asdict(lock) if lock else None,
            }
        )
    else:
        print_rows(["component", "version"], list(versions.items()))
        print_rows(
            ["setting", "value"], [("home", settings.home), ("catalog", settings.catalog), ("data", settings.data_path)]
        )
        print_rows(
            ["source", "host", "state", "latency", "plan", "key", "detail"], [_source_row(source) for source in sources]
        )
        sys.stdout.write(f"writer lock: {lock or 'no lake yet'}\n")
    return 0 if all(source.is_ok for source in sources) else 1


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; a long text goes on in the next line."""
    table = RichTable(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        numeric = any(isinstance(row[position], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=width).print(table)


def _status_row(status: TableStatus) -> tuple[Any, ...]:
    return (
        status.table,
        status.rows,
        status.first,
        status.last,
        status.newest_available_at,
        status.days_covered,
        len(status.missing_days),
    )


def _source_row(source: Reachability) -> tuple[Any, ...]:
    latency = None if source.latency_ms is None else f"{source.latency_ms:.0f} ms"
    key = None if source.has_key is None else ("set" if source.has_key else "none")
    return source.source, source.host, "ok" if source.is_ok else "FAILED", latency, source.plan, key, source.detail


def _lock_or_none(settings: Settings) -> LockState | None:
    try:
        return lock_state(settings)
    except LakeNotFoundError:
        return None


def _shown(value: Any) -> str:  # noqa: ANN401 - a value of a query
    if value is None:
        return NO_VALUE
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < MILLION else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def print_json(value: object) -> None:
    """Print JSON that a strict parser takes."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: object) -> object:
    """A value in what JSON has: it has no NaN and no infinity, and a strict parser would refuse the whole answer."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value if isinstance(value, (int, str, type(None))) else str(value)


def _distinct(columns: Sequence[str]) -> list[str]:
    """Column names without repeats: the second ``a`` becomes ``a_1``."""
    names: list[str] = []
    for column in columns:
        tries = chain([column], (f"{column}_{number}" for number in count(1)))
        names.append(next(name for name in tries if name not in names))
    return names
