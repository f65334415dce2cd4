"""Segments on their way into the lake: which ones an hour has, which of them are sound, and where damaged ones go.

What belongs here: the landing folder as the reader sees it. A damaged segment is moved out of the way with its reason
beside it, so that one bad file never holds up an hour, and nobody reads it twice.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mts_dagster.errors import LakeError
from mts_dagster.lake.slices import Slice
from mts_dagster.live.pieces import SECONDS, second_of_hour
from mts_dagster.settings import Settings
from mts_realtime.errors import LandingError
from mts_realtime.landing import Segment, list_segments, read_segment

REASON_SUFFIX = ".reason.txt"


@dataclass(frozen=True)
class Inspected:
    """The segments of one hour of one dataset, after each was read once.

    Attributes:
        sound: complete segments that fit the contract.
        symbols: symbols that occur in them.
        rows_a_second: how many rows they have for each second of the hour.
        damaged: what was moved to the quarantine, one line each.
    """

    sound: tuple[Segment, ...]
    symbols: tuple[str, ...]
    rows_a_second: NDArray[np.int64]
    damaged: tuple[str, ...]


def segments_of(settings: Settings, dataset: str, window: Slice) -> list[Segment]:
    """Complete segments of a dataset within a window of whole hours."""
    return list_segments(settings.landing_dir, dataset, since=window.start, until=window.end)


def digest_of(segments: Iterable[Segment]) -> str:
    """Hash of the segments' names: equal for the same content, since a name holds the hash of its rows."""
    names = sorted(f"{segment.dataset}/{segment.hour}/{segment.name}" for segment in segments)
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def inspect(settings: Settings, segments: Sequence[Segment]) -> Inspected:
    """Read every segment once; move damaged ones to the quarantine.

    Raises:
        LakeError: a segment may not be read or moved by this user.
    """
    sound, damaged = [], []
    symbols: set[str] = set()
    rows_a_second = np.zeros(SECONDS, np.int64)
    for segment in segments:
        try:
            table = read_segment(segment)
        except LandingError as error:
            if isinstance(error.__cause__, PermissionError):
                raise LakeError(f"{error}; give the user that runs Dagster access to the landing folder") from error
            if not isinstance(error.__cause__, FileNotFoundError):  # deleted since it was listed
                _put_aside(settings, segment, str(error))
                damaged.append(str(error))
            continue
        sound.append(segment)
        rows_a_second += np.bincount(second_of_hour(table["timestamp"]), minlength=SECONDS)
        if "symbol" in table.column_names:
            symbols |= set(table["symbol"].unique().to_pylist())
    return Inspected(tuple(sound), tuple(sorted(symbols)), rows_a_second, tuple(damaged))


def quarantined(settings: Settings, dataset: str) -> list[Path]:
    """Damaged segments of a dataset that nobody has looked after yet, by hour and name."""
    return sorted((settings.segment_quarantine / dataset).glob("date=*/hour=*/*.parquet"))


def _put_aside(settings: Settings, segment: Segment, reason: str) -> None:
    place = Path(segment.path)
    target = settings.segment_quarantine / segment.dataset / place.parent.parent.name / place.parent.name / place.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.move(place, target)
        target.with_name(target.name + REASON_SUFFIX).write_text(reason + "\n", encoding="utf-8")
    except OSError as error:
        raise LakeError(f"cannot move the damaged segment {place} to {target}: {error.strerror}") from error
