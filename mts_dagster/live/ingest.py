"""From segments to stored hours: an hour is what is stored of it and what lies in the landing folder, each key once.

What belongs here: that one rule and its statement. It makes ingest idempotent: the same segments again, in any number
and order, change nothing, and an hour whose segments were deleted since keeps its rows. Rows of a segment that is
still there replace its stored ones. Where two segments have a row of the same key, the one of the greater name, which
is the later one of an exchange, is kept. Rows go from Parquet to the lake inside DuckDB, some minutes of a large hour
at a time, and are stored in one transaction. Simulated segments do not enter a lake of real data, nor the reverse.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from mts_dagster.errors import ConfigError, LakeError
from mts_dagster.lake.lock import hold_file
from mts_dagster.lake.read import count_rows
from mts_dagster.lake.replace import Replaced, replace_pieces
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.text import listed, quoted
from mts_dagster.lake.transaction import Origin
from mts_dagster.live.pieces import cut, stored_rows_a_second
from mts_dagster.live.segments import Inspected, digest_of, inspect, segments_of
from mts_dagster.live.tables import Landed
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings
from mts_dagster.sources.instruments import coin_of
from mts_realtime.landing import Segment
from mts_realtime.origin import claim, read_mark

ONE_HOUR = timedelta(hours=1)
ROWS_AT_ONCE = 100_000
"""Rows that are sorted and written in memory at a time: books of 20 levels have some 700 bytes."""
KEPT = "segment not in (select segment from mts_segments)"
NEWEST_TICKERS = """
    select symbol, arg_max(coin, row(date, -rank)) from raw.coin_universe where date <= ? group by symbol
"""


@dataclass(frozen=True)
class Ingested:
    """What the ingest of one hour of one dataset did.

    Attributes:
        segments: sound segments in the folder.
        digest: hash of their names.
        damaged: segments that were moved to the quarantine, one line each.
        rows_stored: rows of the hour afterwards.
        rows_replaced: rows of the hour before.
    """

    segments: int
    digest: str
    damaged: tuple[str, ...]
    rows_stored: int
    rows_replaced: int


def ingest(settings: Settings, landed: Landed, windows: Sequence[Slice], origin: Origin) -> list[Ingested]:
    """Bring the hours of ``windows`` up to what lies in the landing folder, each in a transaction of its own.

    Raises:
        ConfigError: the segments are simulated and the home holds real data, or the reverse.
        LakeLockedError: another run works on this table for longer than the bounded wait.
        LakeError: segments cannot be read, or nothing can be stored.
    """
    guard_segments(settings)
    with session(settings, read_only=False) as con:
        return [_ingest_hour(con, settings, landed, hour, origin) for hour in hours_of(windows)]


def guard_segments(settings: Settings) -> None:
    """Let segments into a home of their own kind alone; the first ones mark a home that has no mark yet.

    The sidecar marks the folder that it writes to. Segments without a mark were made by hand, and are let in.

    Raises:
        ConfigError: the segments are simulated and the home holds real data, or the reverse.
        LakeError: a mark cannot be read or written.
    """
    try:
        kind = read_mark(settings.landing_dir)
        held = kind and claim(settings.home, kind)
    except OSError as error:
        raise LakeError(f"cannot read or write {error.filename}: {error.strerror}") from error
    if held != kind:
        raise ConfigError(
            f"{settings.landing_dir} holds {kind} segments, but {settings.home} holds {held} data; nothing was taken: "
            "set MTS_LANDING_DIR to the folder of a sidecar that streams the same kind, or MTS_HOME to another folder"
        )


def hours_of(windows: Sequence[Slice]) -> Iterator[Slice]:
    """The single hours of windows of whole hours."""
    for window in windows:
        start = window.start
        while start < window.end:
            yield replace(window, start=start, end=start + ONE_HOUR)
            start += ONE_HOUR


@contextmanager
def alone(settings: Settings, table: Table) -> Iterator[Path]:
    """Let one run at a time work on a live table, from reading to storing, and give it an empty folder to work in.

    Without it, of two runs of the same hour the one that looked first could store last, without the newest segments.
    The folder is emptied before as well as after, so that what a killed run left is gone with the next one.

    Raises:
        LakeLockedError: another run took longer than the bounded wait.
    """
    settings.landing_dir.mkdir(parents=True, exist_ok=True)
    with hold_file(settings.landing_dir / f".{table.name}.lock", wait_s=settings.lock_wait_s):
        folder = settings.landing_dir / f".{table.name}.staged"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _ingest_hour(
    con: duckdb.DuckDBPyConnection, settings: Settings, landed: Landed, hour: Slice, origin: Origin
) -> Ingested:
    with alone(settings, landed.table) as folder:
        found = inspect(settings, segments_of(settings, landed.dataset, hour))
        if found.sound:
            replaced = _replace(con, landed, hour, found, folder, origin)
        else:
            stored = count_rows(con, landed.table, [hour])
            replaced = Replaced(stored, stored)
    return Ingested(
        segments=len(found.sound),
        digest=digest_of(found.sound),
        damaged=found.damaged,
        rows_stored=replaced.rows_inserted,
        rows_replaced=replaced.rows_deleted,
    )


def _replace(
    con: duckdb.DuckDBPyConnection, landed: Landed, hour: Slice, found: Inspected, folder: Path, origin: Origin
) -> Replaced:
    names = pa.table({"segment": [segment.name for segment in found.sound]})
    coins = coins_of(con, found.symbols, hour.start)
    con.register("mts_segments", names)
    con.register("mts_coins", pa.table({"symbol": list(coins), "coin": pa.array(coins.values(), pa.string())}))
    try:
        rows_a_second = found.rows_a_second + stored_rows_a_second(con, landed.table, hour, KEPT)
        pieces = cut(hour, rows_a_second, ROWS_AT_ONCE)
        statements = (_statement(landed, piece, found) for piece in pieces)
        return replace_pieces(con, landed.table, [hour], statements, folder, origin)
    finally:
        con.unregister("mts_segments")
        con.unregister("mts_coins")


def _statement(landed: Landed, piece: Slice, found: Inspected) -> str:
    """Rows of a piece of an hour: of its segments, and stored ones of segments that are gone.

    Which row of a key is kept is decided by keys and places alone, without the rest of the rows.
    """
    table = landed.table
    columns, key, inside = listed(column.name for column in table.columns), listed(table.key), literally(table, piece)
    kept = f"select {columns}, rowid as place from {table.qualified} where {inside} and {KEPT}"  # noqa: S608 - contracts
    files = [segment.path for segment in found.sound if _touches(segment, piece)]
    parts = [_fresh(landed, files, inside), kept] if files else [kept]
    return f"""
        with together as not materialized ({" union all ".join(parts)}),
        winners as materialized (
            select segment, place from together
            qualify row_number() over (partition by {key} order by segment desc, place) = 1
        )
        select {columns} from together semi join winners using (segment, place)
    """  # noqa: S608 - identifiers of contracts


def _fresh(landed: Landed, files: Sequence[str], inside: str) -> str:
    """Rows of segments, and the place of each in its file."""
    columns = listed(column.name for column in landed.table.columns)
    has_coin = any(column.name == "coin" for column in landed.table.columns)
    return f"""
        select {columns}, place from (
            select landed.*, parse_filename(filename) as segment, file_row_number as place,
                {landed.available} as available_at {", coin" if has_coin else ""}
            from read_parquet([{", ".join(quoted(file) for file in files)}], filename = true, file_row_number = true)
            as landed {"left join mts_coins using (symbol)" if has_coin else ""}
        ) where {inside}
    """  # noqa: S608 - identifiers of contracts, names of files that we wrote


def _touches(segment: Segment, piece: Slice) -> bool:
    return segment.first_ms < piece.end.timestamp() * 1000 and segment.last_ms >= piece.start.timestamp() * 1000


def literally(table: Table, window: Slice) -> str:
    """Condition that a row lies in a window, for statements that take no parameters."""
    return " and ".join(
        f"\"{table.time_column}\" {comparison} timestamptz '{moment}'"
        for comparison, moment in ((">=", window.start), ("<", window.end))
    )


def coins_of(con: duckdb.DuckDBPyConnection, symbols: Sequence[str], on: datetime) -> dict[str, str | None]:
    """CoinGecko id of each symbol, as of a day; a ticker is looked up in the newest ranking known then."""
    tickers = dict(con.execute(NEWEST_TICKERS, [on.date()]).fetchall())
    return {symbol: coin_of(symbol, on, tickers) for symbol in symbols}
