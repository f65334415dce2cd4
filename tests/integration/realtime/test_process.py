"""The sidecar as a process of its own: SIGTERM, ``kill -9``, a full disk, the command line."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mts_realtime.landing import list_segments, read_segments
from mts_realtime.settings import RealtimeSettings
from tests.integration.realtime.running import Row, assert_faithful
from tests.integration.realtime.venue import Venue


def environment(settings: RealtimeSettings) -> dict[str, str]:
    """The settings as environment variables of a process."""
    names = (
        "home",
        "binance_url",
        "bybit_url",
        "binance_ws_url",
        "bybit_ws_url",
        "binance_messages_per_s",
        "bybit_messages_per_s",
        "sample_interval_s",
        "flush_interval_s",
        "backoff_base_s",
        "backoff_cap_s",
        "landing_buffer_rows",
        "feed_port",
    )
    variables = {f"MTS_{name.upper()}": str(getattr(settings, name)) for name in names}
    return {**os.environ, **variables, "MTS_SYMBOLS": ",".join(settings.symbols)}


@contextlib.asynccontextmanager
async def process(
    settings: RealtimeSettings, *arguments: str, prefix: tuple[str, ...] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A sidecar process; killed at the end if it still runs."""
    child = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        "-m",
        "mts_realtime",
        *arguments,
        env=environment(settings),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - another process's files tell no event
            await asyncio.sleep(0.02)


def landed(settings: RealtimeSettings, dataset: str) -> list[Row]:
    folder = settings.landing_dir
    return read_segments(list_segments(folder, dataset), dataset).to_pylist()  # type: ignore[no-any-return]


async def test_sigterm_drains_within_ten_seconds(make_settings: Callable[..., RealtimeSettings], venue: Venue) -> None:
    """Everything that was collected is in segments, the exit code is 0, and the next start knows of the pause."""
    settings = make_settings()
    async with process(settings) as child:
        await until(lambda: len(landed(settings, "order_book")) > 20)
        began = time.monotonic()
        stopped = time.time()
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 10) == 0
        assert time.monotonic() - began < 10
    rows = landed(settings, "order_book")
    assert_faithful(rows, venue)
    newest = {(row["exchange"], row["symbol"]): row["timestamp"].timestamp() for row in rows}
    assert len(newest) == 4
    assert all(stopped - moment < 0.5 for moment in newest.values())
    async with process(settings) as child:
        await until(lambda: len(landed(settings, "order_book")) > len(rows) + 10)
    paused = [row for row in landed(settings, "gaps") if row["reason"] == "process_stopped"]
    assert {row["dataset"] for row in paused} == {"order_book", "funding", "tickers"}
    assert all(abs(row["gap_start"].timestamp() - stopped) < 1.0 for row in paused)


async def test_kill_loses_at_most_the_flush_interval_and_declares_it(
    make_settings: Callable[..., RealtimeSettings], venue: Venue
) -> None:
    """No partial file is visible; the restart declares the time from the last segment to the first new data."""
    settings = make_settings(flush_interval_s=1.0)
    async with process(settings) as child:
        await until(lambda: len(landed(settings, "order_book")) > 40)
        killed = time.time()
        child.send_signal(signal.SIGKILL)
        await child.wait()
    before = landed(settings, "order_book")
    newest: dict[tuple[str, str], float] = {}
    for row in before:
        key = (row["exchange"], row["symbol"])
        newest[key] = max(newest.get(key, 0.0), row["timestamp"].timestamp())
    assert len(newest) == 4
    assert all(killed - moment <= 1.0 + 0.5 for moment in newest.values())
    async with process(settings) as child:
        await until(lambda: len(landed(settings, "order_book")) > len(before) + 20)
        child.send_signal(signal.SIGTERM)
        await child.wait()
    assert not list(settings.landing_dir.glob("*/date=*/hour=*/.*"))
    rows = landed(settings, "order_book")
    assert_faithful(rows, venue)
    gaps = [row for row in landed(settings, "gaps") if row["reason"] == "process_killed"]
    assert {(row["exchange"], row["symbol"]) for row in gaps if row["dataset"] == "order_book"} == set(newest)
    for gap in gaps:
        if gap["dataset"] != "order_book":
            continue
        key = (gap["exchange"], gap["symbol"])
        later = [
            row["timestamp"].timestamp()
            for row in rows
            if (row["exchange"], row["symbol"]) == key and row["timestamp"].timestamp() > newest[key]
        ]
        assert gap["gap_start"].timestamp() - newest[key] < settings.sample_interval_s
        assert 0 <= min(later) - gap["gap_end"].timestamp() <= settings.sample_interval_s


def can_mount() -> bool:
    """Whether this machine lets a test mount a small file system in a name space of its own."""
    unshare = shutil.which("unshare")
    probe = "mount -t tmpfs -o size=64k none /mnt"
    return unshare is not None and subprocess.run([unshare, "-rm", "sh", "-c", probe], check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="unshare and mount are needed for a disk that really gets full")
async def test_full_disk_sheds_declares_and_recovers(
    make_settings: Callable[..., RealtimeSettings], venue: Venue, tmp_path: Path
) -> None:
    """A 400 kB disk fills up; books are shed, funding is kept; when room is made everything kept is written."""
    landing, outside = tmp_path / "home" / "landing", tmp_path / "outside"
    landing.mkdir(parents=True)
    outside.mkdir()
    settings = make_settings(landing_buffer_rows=300)
    script = f"""
        mount -t tmpfs -o size=400k none {landing}
        "$@" & child=$!
        ballast={landing}/.ballast
        until ls {landing}/order_book/*/*/*.parquet >/dev/null 2>&1; do sleep 0.05; done
        dd if=/dev/zero of=$ballast bs=1k 2>/dev/null
        touch {outside}/filled
        while [ ! -e {outside}/free ]; do sleep 0.05; done
        rm $ballast
        mount -o remount,size=64m {landing}
        while [ ! -e {outside}/stop ]; do sleep 0.05; done
        kill -TERM $child; wait $child; echo $? > {outside}/code
        cp -r {landing} {outside}/landing
        touch {outside}/copied
    """
    prefix = ("unshare", "-rm", "sh", "-c", script, "sh")
    async with process(settings, prefix=prefix) as child:
        await until((outside / "filled").exists)
        full = time.time()
        await until(lambda: time.time() - full > 4.0)
        (outside / "free").touch()
        freed = time.time()
        await until(lambda: time.time() - freed > 1.5)
        (outside / "stop").touch()
        await until((outside / "copied").exists)
        await child.wait()
    assert (outside / "code").read_text().strip() == "0"

    def rows(dataset: str) -> list[Row]:
        return read_segments(list_segments(outside / "landing", dataset), dataset).to_pylist()  # type: ignore[no-any-return]

    books = rows("order_book")
    assert_faithful(books, venue)
    shed = [gap for gap in rows("gaps") if gap["reason"] == "disk_full" and gap["dataset"] == "order_book"]
    assert {(gap["exchange"], gap["symbol"]) for gap in shed} == set(venue.books)
    assert all(full - 2 < gap["gap_start"].timestamp() < gap["gap_end"].timestamp() < freed + 1 for gap in shed)
    assert max(row["timestamp"].timestamp() for row in books) > freed
    for key in venue.books:
        times = sorted(
            row["timestamp"].timestamp() for row in rows("funding") if (row["exchange"], row["symbol"]) == key
        )
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.0
        grid = {round(row["timestamp"].timestamp(), 1) for row in books if (row["exchange"], row["symbol"]) == key}
        spans = [
            (gap["gap_start"].timestamp(), gap["gap_end"].timestamp())
            for gap in rows("gaps")
            if (gap["exchange"], gap["symbol"]) == key and gap["dataset"] == "order_book"
        ]
        first, last = round(min(grid) * 10), round(max(grid) * 10)
        missing = [
            tenth / 10
            for tenth in range(first, last)
            if tenth / 10 not in grid and not any(a - 1e-6 <= tenth / 10 <= b + 1e-6 for a, b in spans)
        ]
        assert missing == []


@pytest.mark.parametrize(
    ("variables", "code", "line"),
    [
        ({"MTS_EXCHANGES": "kraken"}, 2, "mts stream: setting MTS_EXCHANGES: "),
        ({"MTS_SAMPLE_LEVELS": "0"}, 2, "mts stream: setting MTS_SAMPLE_LEVELS: "),
        ({"MTS_LANDING_DIR": "/dev/null/landing"}, 1, "mts stream: /dev/null/landing cannot be used"),
        ({"MTS_SYMBOL_ALIASES": "A-B"}, 2, "mts stream: setting MTS_SYMBOL_ALIASES: "),
        ({"MTS_FEED_HOST": "203.0.113.1"}, 2, "mts stream: setting MTS_FEED_PORT: "),
        ({"MTS_REDIS_URL": "nonsense"}, 2, "mts stream: setting MTS_REDIS_URL: "),
    ],
)
async def test_users_mistakes_are_one_line(
    make_settings: Callable[..., RealtimeSettings], variables: dict[str, str], code: int, line: str
) -> None:
    """A wrong setting ends with its exit code and one line, no traceback."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mts_realtime",
        env={**environment(make_settings()), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == code
    assert output.decode().splitlines()[-1].startswith(line)
    assert "Traceback" not in output.decode()


async def test_capture_and_replay_by_command_line(
    make_settings: Callable[..., RealtimeSettings], tmp_path: Path
) -> None:
    """``--capture`` keeps what ``--replay`` turns into the same segments elsewhere."""
    settings = make_settings()
    async with process(settings, "--exchanges", "bybit", "--capture", str(tmp_path / "kept")) as child:
        await until(lambda: len(landed(settings, "order_book")) > 10)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 10) == 0
    again = make_settings(home=tmp_path / "again")
    async with process(again, "--replay", str(tmp_path / "kept")) as child:
        assert await asyncio.wait_for(child.wait(), 20) == 0
    for dataset in ("order_book", "funding", "tickers"):
        assert landed(again, dataset) == landed(settings, dataset)


async def test_replay_of_nothing_is_one_line(make_settings: Callable[..., RealtimeSettings], tmp_path: Path) -> None:
    """A folder without a capture is a user's mistake."""
    async with process(make_settings(), "--replay", str(tmp_path)) as child:
        _, output = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 1
    assert output.decode().strip().endswith("holds no capture (capture-*.jsonl.gz)")
