"""Checks of the live tables: whole books, no silent gap, no damaged segment left lying.

What belongs here: judging stored hours. Books and coverage are judged hour by hour, because a table of books grows by
some hundred thousand rows an hour: each hour that is over by the run that brings it in, else by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import dagster as dg
import duckdb

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.lake.shared import session
from mts_dagster.live.derive import stream_settings_of
from mts_dagster.live.ingest import hours_of
from mts_dagster.live.segments import REASON_SUFFIX, quarantined
from mts_dagster.live.tables import LANDED, LIVE_FUNDING, LIVE_TICKERS, ORDER_BOOK, STREAM_GAPS, Landed
from mts_dagster.partitions import slices_of
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings

Row = TypeVar("Row")

ONE_HOUR = timedelta(hours=1)
# The last segments of an hour come some seconds after its end, and a run takes its time.
RUN_TAKES = timedelta(minutes=5)
SHOWN = 5
SAMPLED_BOOKS = 50_000
BROKEN_BOOKS = f"""
    with books as (
        from live.order_book where timestamp >= $1 and timestamp < $2
        using sample reservoir({SAMPLED_BOOKS} rows) repeatable (1)
    )
    select timestamp, exchange, symbol from books
    where len(bid_prices) != len(bid_sizes) or len(ask_prices) != len(ask_sizes)
        or bid_prices != list_reverse_sort(list_distinct(bid_prices))
        or ask_prices != list_sort(list_distinct(ask_prices))
        or bid_prices[1] >= ask_prices[1]
        or least(list_min(bid_prices), list_min(bid_sizes), list_min(ask_prices), list_min(ask_sizes)) <= 0
    order by timestamp, exchange, symbol
"""  # noqa: S608 - a constant
# Markets that have rows or gaps in the hour or the one before, from then on: each grid time is stored or in a gap.
UNCOVERED = """
    with seen as (
        select exchange, symbol, min(since) as since from (
            select exchange, symbol, timestamp as since from {table}
            where timestamp >= $1 - interval 1 hour and timestamp < $2
            union all
            select exchange, symbol, gap_start from live.stream_gaps
            where dataset = $3 and gap_end > $1 - interval 1 hour and gap_start < $2
        ) group by exchange, symbol
    ),
    grid as (
        select exchange, symbol, moment
        from seen, (select unnest(generate_series($1, $2 - $4, $4)) as moment)
        where moment >= since
    ),
    missing as (
        select grid.exchange, grid.symbol, grid.moment
        from grid
        anti join (select * from {table} where timestamp >= $1 and timestamp < $2) as stored
            on stored.timestamp = grid.moment and stored.exchange = grid.exchange and stored.symbol = grid.symbol
    )
    select exchange, symbol, count(*) as samples, min(moment), max(moment)
    from missing
    anti join (select * from live.stream_gaps where dataset = $3 and gap_end > $1 and gap_start < $2) as gap
        on gap.exchange = missing.exchange and gap.symbol = missing.symbol
        and gap.gap_start <= missing.moment and missing.moment < gap.gap_end
    group by exchange, symbol order by samples desc, exchange, symbol
"""
# Stretches of an hour without any estimate of a market's funding that no gap declares. A stretch may begin in the hour
# before. A market that has books but neither estimates nor gaps owes them from its first book on.
UNDECLARED = """
    with heard as (
        select exchange, symbol, timestamp as since, timestamp as until from live.live_funding
        where timestamp >= $1 - interval 1 hour and timestamp < $2
        union all
        select exchange, symbol, gap_start, gap_end from live.stream_gaps
        where dataset = $3 and gap_end > $1 - interval 1 hour and gap_start < $2
    ),
    unheard as (
        select exchange, symbol, min(timestamp) as since, min(timestamp) as until
        from live.order_book anti join heard using (exchange, symbol)
        where timestamp >= $1 and timestamp < $2 group by exchange, symbol
    ),
    known as (from heard union all from unheard),
    bounded as (from known union all select distinct exchange, symbol, $2, $2 from known),
    stretches as (
        select exchange, symbol, since as ends, max(until) over (
            partition by exchange, symbol order by since, until rows between unbounded preceding and 1 preceding
        ) as begins
        from bounded
    )
    select exchange, symbol, begins, ends from stretches
    where ends > $1 and ends - begins > $4
    order by begins, exchange, symbol
"""


def build_live_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the live tables."""
    return [
        books_are_whole,
        *(_coverage_check(landed) for landed in (ORDER_BOOK, LIVE_TICKERS)),
        every_silence_is_declared,
        _damage_checks(LANDED),
    ]


def _key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([table.schema, table.name])


def hours_to_judge(
    con: duckdb.DuckDBPyConnection, table: Table, run_hours: Sequence[datetime], now: datetime
) -> list[datetime]:
    """Starts of the hours that a check of this run looks at, oldest first.

    They are the run's own hours that are over, and the newest stored one before them, which may not have been over when
    it was brought in. A run without hours, of the check alone, looks at the newest stored hour that is over.
    """
    running = _hour_of(now - RUN_TAKES)
    rows = con.execute(
        f"select max({table.time_column}) from {table.qualified} where {table.time_column} < ?",  # noqa: S608 - a contract
        [min([running, *run_hours])],
    ).fetchall()
    newest: datetime | None = rows[0][0]
    before = set() if newest is None else {_hour_of(newest)}
    return sorted(before | {hour for hour in run_hours if hour < running})


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _hours_of_run(context: dg.AssetCheckExecutionContext) -> list[datetime]:
    if not (context.has_partition_key or context.has_partition_key_range):
        return []
    return [hour.start for hour in hours_of(slices_of(context.partition_keys))]


def _judged(
    context: dg.AssetCheckExecutionContext,
    settings: Settings,
    table: Table,
    find: Callable[[duckdb.DuckDBPyConnection, datetime], list[Row]],
) -> tuple[list[datetime], list[Row]]:
    """The hours that were looked at, and what was found wrong in them."""
    with session(settings) as con:
        hours = hours_to_judge(con, table, _hours_of_run(context), datetime.now(UTC))
        return hours, [row for hour in hours for row in find(con, hour)]


def _told(hours: Sequence[datetime]) -> str:
    return ", ".join(f"{hour:%Y-%m-%d %H:00}" for hour in hours) or "no hour that is over is stored yet"


@dg.asset_check(
    asset=_key(ORDER_BOOK.table),
    description="Books of the run's hours that are over, a sample of each, are sorted, uncrossed and positive.",
)
@ends_in_failure
def books_are_whole(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Count books that the sidecar should never have published."""
    hours, broken = _judged(context, settings, ORDER_BOOK.table, _broken_books)
    shown = "; ".join(f"{exchange} {symbol} at {moment}" for moment, exchange, symbol in broken[:SHOWN])
    return dg.AssetCheckResult(
        passed=not broken,
        description=f"crossed, unsorted or not positive: {shown}" if broken else None,
        metadata={"hours": _told(hours), "broken_books": len(broken)},
    )


def _broken_books(con: duckdb.DuckDBPyConnection, hour: datetime) -> list[tuple[datetime, str, str]]:
    return con.execute(BROKEN_BOOKS, [hour, hour + ONE_HOUR]).fetchall()


def _coverage_check(landed: Landed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_key(landed.table),
        additional_deps=[_key(STREAM_GAPS.table)],
        name="every_sample_is_stored_or_declared_missing",
        description="Each market has a row for every grid time of the run's hours that are over, or a gap in "
        "stream_gaps.",
    )
    @ends_in_failure
    def coverage(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        step = timedelta(seconds=stream_settings_of(settings).sample_interval_s)
        hours, missing = _judged(context, settings, landed.table, lambda con, hour: uncovered(con, landed, hour, step))
        shown = "; ".join(f"{row[0]} {row[1]}: {row[2]} from {row[3]} to {row[4]}" for row in missing[:SHOWN])
        return dg.AssetCheckResult(
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"samples neither stored nor declared missing: {shown}" if missing else None,
            metadata={
                "hours": _told(hours),
                "missing_samples": sum(row[2] for row in missing),
                "markets": len({row[:2] for row in missing}),
            },
        )

    return coverage


def uncovered(
    con: duckdb.DuckDBPyConnection, landed: Landed, hour: datetime, step: timedelta
) -> list[tuple[str, str, int, datetime, datetime]]:
    """Exchange, symbol, and number, first and last of the grid times that are neither stored nor declared."""
    statement = UNCOVERED.format(table=landed.table.qualified)
    return con.execute(statement, [hour, hour + ONE_HOUR, landed.dataset, step]).fetchall()


@dg.asset_check(
    asset=_key(LIVE_FUNDING.table),
    additional_deps=[_key(ORDER_BOOK.table), _key(STREAM_GAPS.table)],
    description="In the run's hours that are over no market is without an estimate of its funding for longer than "
    "twice the sidecar's silence_s, or a gap in stream_gaps says so.",
)
@ends_in_failure
def every_silence_is_declared(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Count stretches in which funding was neither heard nor declared missing."""
    # Every message of a topic tells its funding, and after silence_s without one the sidecar declares a gap.
    most = timedelta(seconds=2 * stream_settings_of(settings).silence_s)
    hours, silent = _judged(
        context, settings, LIVE_FUNDING.table, lambda con, hour: undeclared_silences(con, hour, most)
    )
    shown = "; ".join(
        f"{exchange} {symbol} from {begins} to {ends}" for exchange, symbol, begins, ends in silent[:SHOWN]
    )
    return dg.AssetCheckResult(
        passed=not silent,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"no funding heard and no gap declared: {shown}" if silent else None,
        metadata={"hours": _told(hours), "silences": len(silent), "markets": len({row[:2] for row in silent})},
    )


def undeclared_silences(
    con: duckdb.DuckDBPyConnection, hour: datetime, most: timedelta
) -> list[tuple[str, str, datetime, datetime]]:
    """Exchange, symbol, begin and end of each stretch longer than ``most`` without funding that no gap declares."""
    return con.execute(UNDECLARED, [hour, hour + ONE_HOUR, LIVE_FUNDING.dataset, most]).fetchall()


def _damage_checks(all_landed: Sequence[Landed]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            name="no_damaged_segments",
            asset=_key(landed.table),
            description="The quarantine holds no segment of the dataset; look at the reason beside it, then delete it.",
        )
        for landed in all_landed
    ]

    @dg.multi_asset_check(name="segments_are_undamaged", specs=specs, can_subset=True)
    @ends_in_failure
    def segments_are_undamaged(
        context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        for landed in all_landed:
            key = _key(landed.table)
            if dg.AssetCheckKey(key, "no_damaged_segments") in context.selected_asset_check_keys:
                yield _damage_result(settings, landed, key)

    return segments_are_undamaged


def _damage_result(settings: Settings, landed: Landed, key: dg.AssetKey) -> dg.AssetCheckResult:
    found = quarantined(settings, landed.dataset)
    reasons = [path.with_name(path.name + REASON_SUFFIX) for path in found[-SHOWN:]]
    told = "; ".join(path.read_text(encoding="utf-8").strip() for path in reasons if path.exists())
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="no_damaged_segments",
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} damaged segments in {settings.segment_quarantine}: {told}" if found else None,
        metadata={"damaged_segments": len(found)},
    )
