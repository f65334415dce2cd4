"""Checks of the live tables: whole books, no silent gap, no damaged segment left lying.

What belongs here: judging stored hours. Books and coverage are judged on the newest hour that is over: a table of books
grows by some hundred thousand rows an hour, and each hour is judged by the run that brings it in or the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import duckdb

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.lake.shared import session
from mts_dagster.live.derive import stream_settings_of
from mts_dagster.live.segments import REASON_SUFFIX, quarantined
from mts_dagster.live.tables import LANDED, LIVE_TICKERS, ORDER_BOOK, Landed
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings

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


def build_live_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the live tables."""
    return [
        books_are_whole,
        *(_coverage_check(landed) for landed in (ORDER_BOOK, LIVE_TICKERS)),
        _damage_checks(LANDED),
    ]


def _key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([table.schema, table.name])


def newest_ended_hour(con: duckdb.DuckDBPyConnection, table: Table, now: datetime) -> datetime | None:
    """Start of the newest stored hour that is over; None while there is none."""
    rows = con.execute(
        f"select max({table.time_column}) from {table.qualified} where {table.time_column} < ?",  # noqa: S608 - a contract
        [(now - RUN_TAKES).replace(minute=0, second=0, microsecond=0)],
    ).fetchall()
    newest: datetime | None = rows[0][0]
    return None if newest is None else newest.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


@dg.asset_check(
    asset=_key(ORDER_BOOK.table),
    description="Books of the newest ended hour, a sample of them, are sorted, uncrossed and positive.",
)
@ends_in_failure
def books_are_whole(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Count books that the sidecar should never have published."""
    with session(settings) as con:
        hour = newest_ended_hour(con, ORDER_BOOK.table, datetime.now(UTC))
        if hour is None:
            return _nothing_yet()
        broken = con.execute(BROKEN_BOOKS, [hour, hour + ONE_HOUR]).fetchall()
    shown = "; ".join(f"{exchange} {symbol} at {moment}" for moment, exchange, symbol in broken[:SHOWN])
    return dg.AssetCheckResult(
        passed=not broken,
        description=f"crossed, unsorted or not positive: {shown}" if broken else None,
        metadata={"hour": str(hour), "broken_books": len(broken)},
    )


def _coverage_check(landed: Landed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_key(landed.table),
        name="every_sample_is_stored_or_declared_missing",
        description="Each market has a row for every grid time of the newest ended hour, or a gap in stream_gaps.",
    )
    @ends_in_failure
    def coverage(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        with session(settings) as con:
            hour = newest_ended_hour(con, landed.table, datetime.now(UTC))
            if hour is None:
                return _nothing_yet()
            step = timedelta(seconds=stream_settings_of(settings).sample_interval_s)
            missing = uncovered(con, landed, hour, step)
        shown = "; ".join(f"{row[0]} {row[1]}: {row[2]} from {row[3]} to {row[4]}" for row in missing[:SHOWN])
        return dg.AssetCheckResult(
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"samples neither stored nor declared missing: {shown}" if missing else None,
            metadata={"hour": str(hour), "missing_samples": sum(row[2] for row in missing), "markets": len(missing)},
        )

    return coverage


def uncovered(
    con: duckdb.DuckDBPyConnection, landed: Landed, hour: datetime, step: timedelta
) -> list[tuple[str, str, int, datetime, datetime]]:
    """Exchange, symbol, and number, first and last of the grid times that are neither stored nor declared."""
    statement = UNCOVERED.format(table=landed.table.qualified)
    return con.execute(statement, [hour, hour + ONE_HOUR, landed.dataset, step]).fetchall()


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


def _nothing_yet() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description="no hour that is over is stored yet")
