"""The small parts of the shell: clock, backoff, histogram, inbox, quarantine, disk thread, capture files, settings."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mts_realtime.backoff import Backoff
from mts_realtime.capture import Capture, read_capture
from mts_realtime.clock import Clock
from mts_realtime.disk import DiskThread
from mts_realtime.errors import FrameError, LandingError, SettingsError
from mts_realtime.events import Feed, Instrument
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.histogram import Histogram
from mts_realtime.inbox import Inbox
from mts_realtime.pipeline import Pipeline
from mts_realtime.quarantine import Quarantine
from mts_realtime.sessions import Session
from mts_realtime.settings import RealtimeSettings, load_settings

START = 1_795_176_000_000_000_000


def test_clock_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is set back by an hour: ours goes on, and says how far they are apart."""
    clock = Clock()
    first = clock.now_ns()
    behind = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: behind)
    clock.follow()
    assert clock.now_ns() >= first
    assert clock.drift_ns() < -3599 * 10**9


def test_clock_follows_a_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is an hour ahead, as after a suspend: ours jumps with it."""
    clock = Clock()
    ahead = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: ahead)
    clock.follow()
    assert abs(clock.drift_ns()) < 10**9


def test_backoff_doubles_up_to_its_cap() -> None:
    """Each wait lies between the base and a ceiling that doubles: 0.5, 1, 2, 4, 5, 5."""
    backoff = Backoff(0.5, 5.0, random.Random(3))  # noqa: S311 - reproducible jitter
    waits = [backoff.next_s() for _ in range(200)]
    for wait, ceiling in zip(waits, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0], strict=False):
        assert 0.5 <= wait <= ceiling
    assert max(waits) <= 5.0
    assert len({round(wait, 6) for wait in waits[10:]}) > 100


def test_backoff_respects_the_exchange_and_forgets_after_success() -> None:
    """A pause that was asked for is a lower bound; after success the first wait is the base again."""
    backoff = Backoff(0.5, 5.0)
    assert backoff.next_s(120.0) == 120.0
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_histogram_quantiles() -> None:
    """Ninety-nine fast ones and one slow one: p50 in the first bucket, p99 too, p100 in the slow one's."""
    histogram = Histogram()
    assert histogram.quantile_s(0.99) == 0.0
    for _ in range(99):
        histogram.add(0.0001)
    histogram.add(0.03)
    assert histogram.quantile_s(0.5) == histogram.quantile_s(0.99) == 0.0005
    assert histogram.quantile_s(1.0) == 0.05
    assert histogram.cumulative()[-1] == ("+Inf", 100.0)


class Desk:
    """A pipeline with one session of each exchange, and an inbox in front of it."""

    def __init__(self, settings: RealtimeSettings, make_instrument: Callable[..., Instrument]) -> None:
        self.pipeline = Pipeline(settings, build_exchanges(settings), START)
        self.inbox = Inbox(settings, self.pipeline, lambda: START)
        self.sessions: dict[str, Session] = {}
        for number, name in enumerate(settings.exchanges):
            feeds = frozenset({Feed.ORDER_BOOK})
            (plan,) = self.pipeline.exchanges[name].plan([make_instrument(name)], feeds)
            self.sessions[name] = self.pipeline.open_session(number, plan, START)


def picture(update: int) -> bytes:
    data = {"E": 1, "T": 1, "U": update, "u": update, "pu": update - 1, "b": [["1", "1"]], "a": [["2", "1"]]}
    return json.dumps({"stream": "btcusdt@depth20@100ms", "data": data}).encode()


def delta(update: int, kind: str = "delta") -> bytes:
    data = {"s": "BTCUSDT", "b": [["1", "1"]], "a": [["2", "1"]], "u": update, "seq": update}
    return json.dumps({"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": 1, "cts": 1, "data": data}).encode()


@pytest.fixture
def desk(make_settings: Callable[..., RealtimeSettings], make_instrument: Callable[..., Instrument]) -> Desk:
    return Desk(make_settings(conflate_frames=10, inbox_frames=100), make_instrument)


async def test_inbox_handles_frames_in_order(desk: Desk) -> None:
    """Below the threshold every frame is handled."""
    for update in range(1, 10):
        desk.inbox.push(desk.sessions["binance"], picture(update), START + update)
    await asyncio.sleep(0)
    assert desk.pipeline.counters.frames == 9
    assert desk.inbox.conflated == 0
    assert desk.pipeline.detector.markets["binance", "BTCUSDT"].book is not None


async def test_inbox_keeps_the_latest_picture_under_overload(desk: Desk) -> None:
    """Of fifty waiting pictures one is handled, the newest; deltas in between all are."""
    desk.inbox.push(desk.sessions["bybit"], delta(1, "snapshot"), START)
    for update in range(1, 51):
        desk.inbox.push(desk.sessions["binance"], picture(update), START + update)
        desk.inbox.push(desk.sessions["bybit"], delta(update + 1), START + update)
    await asyncio.sleep(0)
    assert desk.inbox.conflated == 49
    assert desk.pipeline.counters.frames == 52
    books = {name: desk.pipeline.detector.markets[name, "BTCUSDT"].book for name in ("binance", "bybit")}
    assert [book.last_id for book in books.values() if book is not None] == [50, 51]


async def test_inbox_gives_up_books_whose_deltas_pile_up(desk: Desk) -> None:
    """Above the bound the topic's frames go, its book is broken, and the pipeline has declared why."""
    desk.pipeline.handle(desk.sessions["bybit"], delta(1, "snapshot"), START)
    for update in range(2, 203):
        desk.inbox.push(desk.sessions["bybit"], delta(update), START + update)
    await asyncio.sleep(0)
    assert desk.inbox.shed == 201
    assert desk.pipeline.broken == {("bybit", "overload"): 1}
    assert [gap.reason for gap in desk.pipeline.ledger.still_open()] == ["starting", "overload"]


async def test_inbox_ignores_frames_of_a_closed_connection(desk: Desk) -> None:
    """What still waited when the connection ended means nothing any more."""
    desk.inbox.push(desk.sessions["binance"], picture(1), START)
    desk.sessions["binance"].closed = True
    await asyncio.sleep(0)
    assert desk.pipeline.counters.frames == 0


def test_quarantine_is_bounded(desk: Desk, tmp_path: Path) -> None:
    """Two half files at most, the newest frames among them; long frames are cut."""
    quarantine = Quarantine(tmp_path / "aside" / "frames.jsonl", 4000)
    for number in range(50):
        error = FrameError("binance", f"problem {number}")
        quarantine.add(desk.sessions["binance"], b"\xff" + b"x" * 100, error, START + number)
        quarantine.write(quarantine.take())
    files = sorted((tmp_path / "aside").iterdir())
    assert sum(path.stat().st_size for path in files) <= 4000
    assert json.loads(files[0].read_text().splitlines()[-1])["problem"] == "problem 49"


async def test_disk_thread_works_in_order_and_carries_errors() -> None:
    """Results come back to the loop; an error reaches whoever awaits it and nobody else."""
    disk = DiskThread()
    done: list[int] = []

    def fail() -> None:
        raise OSError(5, "broken")

    futures = [disk.submit(lambda number=number: done.append(number)) for number in range(5)]  # type: ignore[misc]
    failing = disk.submit(fail)
    await asyncio.gather(*futures)
    with pytest.raises(OSError, match="broken"):
        await failing
    assert done == [0, 1, 2, 3, 4]
    assert disk.waiting == 0
    disk.stop()


def test_capture_keeps_frames_that_are_no_json(desk: Desk, tmp_path: Path) -> None:
    """Broken and multi-line frames become texts; readable ones stay as they were sent."""
    capture = Capture(tmp_path)
    session = desk.sessions["binance"]
    capture.frame(session, b'{"a": 1.50}', START, readable=True)
    capture.frame(session, b'{"a":\n1}', START + 1, readable=True)
    capture.frame(session, b"{broken", START + 2, readable=False)
    capture.write(capture.take(), START)
    entries = list(read_capture(tmp_path))
    assert [(bytes(entry.frame), entry.text) for entry in entries] == [
        (b'{"a": 1.50}', ""),
        (b"", '{"a":\n1}'),
        (b"", "{broken"),
    ]
    assert {(entry.venue, entry.route) for entry in entries} == {("binance", "public")}


def test_capture_of_a_killed_writer_is_read_up_to_its_end(desk: Desk, tmp_path: Path) -> None:
    """The last piece is torn: what came before counts."""
    capture = Capture(tmp_path)
    for number in range(3):
        capture.frame(desk.sessions["binance"], b"{}", START + number, readable=True)
        capture.write(capture.take(), START)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    assert [entry.ts for entry in read_capture(tmp_path)] == [START, START + 1]


def test_capture_begins_a_file_every_hour(desk: Desk, tmp_path: Path) -> None:
    """Files can be moved away while the capture goes on."""
    capture = Capture(tmp_path)
    for hour in range(2):
        at = START + hour * 3600 * 10**9
        capture.frame(desk.sessions["binance"], b"{}", at, readable=True)
        capture.write(capture.take(), at)
    assert len(list(tmp_path.iterdir())) == 2


def test_capture_with_a_foreign_line_is_named(tmp_path: Path) -> None:
    """The error says file and line."""
    (tmp_path / "capture-1.jsonl.gz").write_bytes(gzip.compress(b'{"ts":1}\nnonsense\n'))
    with pytest.raises(LandingError, match="line 2 is not an entry"):
        list(read_capture(tmp_path))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lists as text, places below home, everything else with its default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTS_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MTS_SYMBOLS", "btcusdt, ETHUSDT")
    settings = load_settings(exchanges=("bybit",))
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.exchanges == ("bybit",)
    assert settings.landing_dir == tmp_path / "state" / "landing"
    assert settings.sample_interval_ns == 1_000_000_000


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MTS_EXCHANGES", "kraken"), ("MTS_BINANCE_ROTATE_S", "90000"), ("MTS_BYBIT_DEPTH", "51"), ("MTS_SYMBOLS", ",")],
)
def test_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str) -> None:
    """The message begins with the variable to correct."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"setting {variable}: "):
        load_settings()
