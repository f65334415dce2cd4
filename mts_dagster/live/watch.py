"""Which hours of the landing folder have to be ingested now: the decision of the landing sensor.

What belongs here: looking at the folder, remembering what was asked for, and choosing the next hours. Nothing is read
but names and times of folders, so a look is fast however many segments there are:

* A folder's time changes when a segment appears in it or goes. Only hours whose folders changed since the last look are
  listed, so that a segment that comes late, after a full disk or a clock set back, is found wherever it lands. A time
  younger than ``UNSETTLED_NS`` is not trusted: a second segment in the same tick of the file system's clock would not
  change it again.
* An hour is asked for when the names of its complete segments are other ones than at the last time. An hour that has
  ended is asked for at once, after ``SETTLE`` for the last flush; the running hour, whose segments come every few
  seconds, no more often than the pause that the settings give.
* Oldest hours first, a few at a time. What is left over is not remembered as seen, so the next look finds it again.
* An hour whose run failed is asked for again, later each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from mts_dagster.live.segments import digest_of
from mts_dagster.live.tables import LANDED
from mts_realtime.landing import HOUR, HourFolder, hour_folders, segments_in

ONE_HOUR = timedelta(hours=1)
SETTLE = timedelta(seconds=20)
"""After this an ended hour counts as complete: several of the sidecar's flush intervals."""
UNSETTLED_NS = 3_000_000_000
"""A folder changed this short a time ago is listed again: file systems count in steps of up to 2 s."""
RETRY_AFTER = timedelta(minutes=10)
"""Pause after the first failed run of an hour; it doubles with each further one."""


class Known(Struct, array_like=True):
    """What is remembered of an hour.

    Attributes:
        folders: hash of its folders' times at the last look; empty when they have to be listed again.
        asked: digest of the segments that were asked for.
    """

    folders: str
    asked: str


class Memory(Struct):
    """What the sensor keeps from tick to tick.

    Attributes:
        hours: by ``YYYY-MM-DD-HH``; hours without a folder are forgotten.
        running_asked_s: when the running hour was last asked for, seconds since 1970.
    """

    hours: dict[str, Known] = {}
    running_asked_s: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> Memory:
        """Read a cursor; what cannot be read is forgotten, which asks for every hour once more and loses nothing."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except msgspec.MsgspecError:
            return cls()

    def text(self) -> str:
        """The cursor."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class Rules:
    """How eager a look is.

    Attributes:
        most: hours to ask for at most.
        pause: least time between two runs of the running hour.
        settle: time after an hour's end in which it is left alone.
        first: hours before this one have no partition.
    """

    most: int
    pause: timedelta
    settle: timedelta
    first: datetime


@dataclass(frozen=True)
class Failure:
    """Failed runs of one content of one hour: how many, and when the newest ended."""

    attempts: int
    ended: datetime


@dataclass(frozen=True)
class Due:
    """An hour to ingest.

    Attributes:
        hour: its start, aware UTC.
        content: hour and digest of its segments: the same for the same segments.
        run_key: the content, and the attempt when earlier ones failed.
        segments: how many there are.
    """

    hour: datetime
    content: str
    run_key: str
    segments: int


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        due: hours to ingest now, oldest first.
        memory: what to remember.
        waiting: further hours with changes, left for a later look.
        outside: hours that have no partition: before the first, or in the future.
    """

    due: tuple[Due, ...]
    memory: Memory
    waiting: int
    outside: int


def look(
    landing_dir: Path, memory: Memory, now: datetime, rules: Rules, failures: Mapping[str, Failure] | None = None
) -> Look:
    """Choose the next hours.

    Args:
        landing_dir: the landing folder.
        memory: what the look before remembered.
        now: aware UTC.
        rules: how eager to be.
        failures: failed runs by content, for hours that no later run brought in.
    """
    failures = failures or {}
    due: list[Due] = []
    hours: dict[str, Known] = {}
    waiting = outside = 0
    running_asked_s = memory.running_asked_s
    for name, folders in _by_hour(landing_dir).items():
        start = datetime.strptime(name, HOUR).replace(tzinfo=UTC)
        if not rules.first <= start <= now:
            outside += 1
            continue
        known = memory.hours.get(name, Known("", ""))
        hours[name] = known
        failure = failures.get(f"{name}-{known.asked}")
        retries = failure is not None and now >= failure.ended + RETRY_AFTER * 2 ** (failure.attempts - 1)
        times = _times_of(folders)
        if known.folders == times and not retries:
            continue
        is_running = now < start + ONE_HOUR
        is_early = is_running and now.timestamp() < running_asked_s + rules.pause.total_seconds()
        if len(due) == rules.most or is_early or start + ONE_HOUR <= now < start + ONE_HOUR + rules.settle:
            waiting += 1
            continue
        segments = [segment for folder in folders for segment in segments_in(folder)]
        digest = digest_of(segments)
        hours[name] = Known(times if _settled(folders, now) else "", digest if segments else known.asked)
        if segments and (digest != known.asked or retries):
            content = f"{name}-{digest}"
            again = failure is not None and retries and digest == known.asked
            attempt = f"-{failure.attempts + 1}" if failure is not None and again else ""
            due.append(Due(start, content, content + attempt, len(segments)))
            running_asked_s = now.timestamp() if is_running else running_asked_s
    return Look(tuple(due), Memory(hours, running_asked_s), waiting, outside)


def _by_hour(landing_dir: Path) -> dict[str, list[HourFolder]]:
    """Folders of all datasets by hour, oldest hour first."""
    found: dict[str, list[HourFolder]] = {}
    for landed in LANDED:
        for folder in hour_folders(landing_dir, landed.dataset):
            found.setdefault(folder.hour, []).append(folder)
    return dict(sorted(found.items()))


def _times_of(folders: Iterable[HourFolder]) -> str:
    text = " ".join(f"{folder.dataset}:{folder.changed_ns}" for folder in folders)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _settled(folders: Iterable[HourFolder], now: datetime) -> bool:
    return now.timestamp() * 1e9 - max(folder.changed_ns for folder in folders) > UNSETTLED_NS
