"""Which hours of the landing folder are due: new segments are found once, late ones too, and nothing is forgotten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_dagster.live.watch import Failure, Known, Look, Memory, Rules, look

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=2)
RULES = Rules(most=4, pause=timedelta(minutes=10), settle=timedelta(seconds=20), first=datetime(2026, 1, 1, tzinfo=UTC))


class Landing:
    """A landing folder whose clock is the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memory = Memory()
        self.names = 0

    def add(self, hour: int, dataset: str = "order_book", *, at: datetime = LONG_AGO, name: str | None = None) -> Path:
        """A complete segment of an hour of the day, which appears at a moment."""
        folder = self.root / dataset / "date=2026-11-20" / f"hour={hour:02}"
        folder.mkdir(parents=True, exist_ok=True)
        self.names += 1
        path = folder / (name or f"binance-{self.names}-{self.names}-abc.parquet")
        path.touch()
        self.touch(folder, at)
        return path

    def touch(self, folder: Path, at: datetime) -> None:
        """Set when the folder changed last; a later change gives a later time."""
        stamp = int(at.timestamp() * 1e9) + self.names
        os.utime(folder, ns=(stamp, stamp))

    def look(self, now: datetime, rules: Rules = RULES, failures: Mapping[str, Failure] | None = None) -> Look:
        """A tick that remembers as the sensor does, through the cursor's text."""
        found = look(self.root, Memory.parse(self.memory.text()), now, rules, failures)
        self.memory = found.memory
        return found

    def due(self, now: datetime, rules: Rules = RULES) -> list[int]:
        """Hours that a tick asks for."""
        return [due.hour.hour for due in self.look(now, rules).due]


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def test_no_folder_is_no_hour(landing: Landing) -> None:
    """The sidecar never ran."""
    assert landing.look(NOON) == Look((), Memory(), 0, 0)


def test_an_ended_hour_is_asked_for_once(landing: Landing) -> None:
    """Again only when its segments change, with another key."""
    landing.add(8)
    (first,) = landing.look(NOON).due
    assert (first.hour.hour, first.segments) == (8, 1)
    assert first.run_key == first.content
    assert first.run_key.startswith("2026-11-20-08-")
    assert landing.due(NOON) == []
    landing.add(8, "gaps")
    (second,) = landing.look(NOON).due
    assert second.segments == 2
    assert second.run_key != first.run_key
    assert landing.due(NOON) == []


def test_the_key_is_the_content(landing: Landing, tmp_path: Path) -> None:
    """Another sensor, with no memory and another folder, gives the same segments the same key."""
    other = Landing(tmp_path / "other")
    for place in (landing, other):
        for name in ("binance-1-2-aa.parquet", "bybit-1-2-bb.parquet"):
            place.add(8, name=name)
    assert [due.run_key for due in landing.look(NOON).due] == [due.run_key for due in other.look(NOON).due]


def test_unfinished_files_are_not_segments(landing: Landing) -> None:
    """A temporary name, and a file that somebody put there."""
    landing.add(8, name=".binance-1-1-abc.parquet.tmp")
    landing.add(8, name="notes.txt")
    assert landing.due(NOON) == []
    landing.add(8)
    assert landing.due(NOON) == [8]


def test_a_late_segment_of_an_old_hour_is_found(landing: Landing) -> None:
    """Hours, in between ticks that found nothing, after a clock that was set back or a full disk."""
    for hour in (1, 2, 3):
        landing.add(hour)
    landing.due(NOON)
    assert landing.due(NOON + timedelta(hours=5)) == []
    landing.add(1, "funding", at=NOON + timedelta(hours=6))
    assert landing.due(NOON + timedelta(hours=7)) == [1]


def test_a_second_segment_within_one_tick_of_the_file_systems_clock_is_found(landing: Landing) -> None:
    """The folder's time is the same before and after: a young time is not trusted, so the hour is listed again."""
    now = NOON + timedelta(seconds=1)
    folder = landing.add(8, at=NOON).parent
    assert landing.due(now) == [8]
    before = folder.stat().st_mtime_ns
    landing.add(8)
    os.utime(folder, ns=(before, before))
    assert landing.due(now + timedelta(seconds=30)) == [8]
    assert landing.due(now + timedelta(seconds=60)) == []


def test_a_tick_asks_for_a_few_hours_oldest_first(landing: Landing) -> None:
    """Six hours, four a tick: the rest come next, none twice, and the skip says that some wait."""
    for hour in (5, 3, 1, 6, 2, 4):
        landing.add(hour)
    first = landing.look(NOON)
    assert ([due.hour.hour for due in first.due], first.waiting) == ([1, 2, 3, 4], 2)
    assert landing.due(NOON) == [5, 6]
    assert landing.due(NOON) == []


def test_a_full_queue_forgets_nothing(landing: Landing) -> None:
    """Nothing may be asked for now; the next tick finds it all the same."""
    landing.add(8)
    full = Rules(most=0, pause=RULES.pause, settle=RULES.settle, first=RULES.first)
    assert landing.look(NOON, full).waiting == 1
    assert landing.due(NOON) == [8]


def test_the_running_hour_waits_for_its_pause(landing: Landing) -> None:
    """Segments come every few seconds: asked for at once, then after ten minutes, and when it has ended."""
    asked = []
    for minute in range(62):
        now = NOON + timedelta(minutes=minute, seconds=5)
        if minute < 60:
            landing.add(12, at=now)
        if landing.due(now):
            asked.append(minute)
    assert asked == [0, 10, 20, 30, 40, 50, 61]


def test_an_ended_hour_waits_for_its_last_segments(landing: Landing) -> None:
    """They come up to a flush interval after its end: one run, not two."""
    landing.add(11, at=NOON)
    assert landing.due(NOON + timedelta(seconds=5)) == []
    landing.add(11, at=NOON + timedelta(seconds=6))
    (found,) = landing.look(NOON + timedelta(seconds=21)).due
    assert found.segments == 2


def test_hours_without_a_partition_are_counted(landing: Landing) -> None:
    """Before the first partition, and in the future of this clock."""
    landing.add(8)
    landing.add(13)
    late = Rules(most=4, pause=RULES.pause, settle=RULES.settle, first=NOON)
    found = landing.look(NOON, late)
    assert (found.due, found.outside) == ((), 2)


def test_deleted_hours_are_forgotten(landing: Landing) -> None:
    """The memory does not grow over the weeks; expiry starts no run."""
    path = landing.add(8)
    landing.due(NOON)
    path.unlink()
    landing.touch(path.parent, NOON)
    assert landing.due(NOON + timedelta(hours=1)) == []
    path.parent.rmdir()
    assert landing.look(NOON + timedelta(hours=1)).memory.hours == {}


def test_a_failed_run_is_asked_for_again(landing: Landing) -> None:
    """Ten minutes after the first failure, twenty after the second; with a key of its own, since keys run once."""
    landing.add(8)
    (first,) = landing.look(NOON).due
    failed = {first.content: Failure(1, NOON)}
    assert landing.look(NOON + timedelta(minutes=9), failures=failed).due == ()
    (again,) = landing.look(NOON + timedelta(minutes=10), failures=failed).due
    assert (again.content, again.run_key) == (first.content, f"{first.content}-2")
    failed = {first.content: Failure(2, NOON + timedelta(minutes=11))}
    assert landing.look(NOON + timedelta(minutes=30), failures=failed).due == ()
    assert len(landing.look(NOON + timedelta(minutes=31), failures=failed).due) == 1


def test_new_segments_do_not_wait_for_a_failure(landing: Landing) -> None:
    """Other content is another run."""
    landing.add(8)
    (first,) = landing.look(NOON).due
    landing.add(8)
    (second,) = landing.look(NOON, failures={first.content: Failure(3, NOON)}).due
    assert second.content != first.content
    assert second.run_key == second.content


@pytest.mark.parametrize("text", [None, "", "nonsense", '{"hours": 3}', "[]"])
def test_a_cursor_that_cannot_be_read_is_begun_anew(text: str | None) -> None:
    """Every hour is asked for once more, which changes nothing in the lake."""
    assert Memory.parse(text) == Memory()


def test_a_cursor_survives_its_text() -> None:
    """And stays small: some 50 bytes an hour."""
    memory = Memory({"2026-11-20-08": Known("0123456789ab", "0123456789abcdef")}, 1_795_000_000.5)
    assert Memory.parse(memory.text()) == memory
    assert len(memory.text()) < 120


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(["order_book", "funding"]), st.booleans()), max_size=25
    ),
    most=st.integers(1, 3),
)
def test_whatever_arrives_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, bool]], most: int
) -> None:
    """Segments of any hour in any order, ticks in between: in the end each hour was asked for with all it has."""
    landing = Landing(tmp_path_factory.mktemp("any") / "landing")
    rules = Rules(most=most, pause=RULES.pause, settle=RULES.settle, first=RULES.first)
    arrived: dict[int, int] = {}
    asked: dict[int, int] = {}
    now = NOON + timedelta(hours=1)
    for hour, dataset, tick in steps:
        landing.add(hour, dataset, at=now)
        arrived[hour] = arrived.get(hour, 0) + 1
        now += timedelta(seconds=1)
        if tick:
            asked |= {due.hour.hour: due.segments for due in landing.look(now, rules).due}
    for _ in range(20):
        now += timedelta(seconds=30)
        asked |= {due.hour.hour: due.segments for due in landing.look(now, rules).due}
    assert asked == arrived
    assert landing.look(now, rules).due == ()
