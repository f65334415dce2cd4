"""Deleting segments that are stored and old.

What belongs here: the proof that a segment's rows are in the lake, and the deletion of those that have it. A segment
that cannot be proven stored stays, however old it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import duckdb

from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.text import listed, quoted
from mts_dagster.live.ingest import literally
from mts_dagster.live.tables import LANDED, Landed
from mts_dagster.settings import Settings
from mts_realtime.landing import HOUR, Segment, expire_segments, list_segments


@dataclass(frozen=True)
class Expired:
    """What an expiry did.

    Attributes:
        deleted: segments deleted.
        kept: old segments with rows that are not stored, by dataset and hour.
    """

    deleted: int
    kept: tuple[str, ...]


def expire(settings: Settings, now: datetime) -> Expired:
    """Delete segments of hours older than ``landing_keep_days`` whose rows are stored."""
    before = now - timedelta(days=settings.landing_keep_days)
    old = [
        (hour, landed, list(group))
        for landed in LANDED
        for hour, group in groupby(
            list_segments(settings.landing_dir, landed.dataset, until=before), key=lambda segment: segment.hour
        )
    ]
    deleted, kept = 0, []
    with session(settings) as con:
        # Hour by hour: one that is half deleted looks to the sensor like one with other segments than before.
        for hour, landed, segments in sorted(old, key=lambda part: part[0]):
            if _are_stored(con, landed, segments):
                deleted += expire_segments(settings.landing_dir, segments)
            else:
                kept.append(f"{landed.dataset} {hour}")
    return Expired(deleted, tuple(kept))


def _are_stored(con: duckdb.DuckDBPyConnection, landed: Landed, segments: Sequence[Segment]) -> bool:
    """Whether the key of every row of these segments of an hour is stored; a file that cannot be read has no proof."""
    table = landed.table
    start = datetime.strptime(segments[0].hour, HOUR).replace(tzinfo=UTC)
    hour = literally(table, Slice(start, start + timedelta(hours=1)))
    files = ", ".join(quoted(segment.path) for segment in segments)
    key = listed(table.key)
    statement = f"""
        select count(*) from (select {key} from read_parquet([{files}])) as landed
        anti join (select {key} from {table.qualified} where {hour}) as stored using ({key})
    """  # noqa: S608 - identifiers of contracts, names of files that we wrote
    try:
        ((missing,),) = con.execute(statement).fetchall()
    except duckdb.Error:
        return False
    return bool(missing == 0)
