"""The command line as a real process: addresses on stdout, clean exits, one-line errors."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-m", "mts_simulator")
LAST_LINE = "Ctrl-C stops"


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A simulator process and the environment lines it printed."""
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = {}
        for line in process.stdout:
            found = re.fullmatch(r"(MTS_\w+)=(\S+)\n", line)
            if found:
                printed[found[1]] = found[2]
            if LAST_LINE in line:
                break
        try:
            yield process, printed
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_addresses_serves_and_stops(number: signal.Signals) -> None:
    """The printed addresses answer; SIGTERM and SIGINT end it with 0 and without noise."""
    with started("--seed", "3") as (process, printed):
        reply = requests.get(f"{printed['MTS_BINANCE_URL']}/fapi/v1/ping", timeout=20)
        assert reply.status_code == 200
        assert {"MTS_COINGECKO_URL", "MTS_FRED_URL", "MTS_BYBIT_URL"} <= set(printed)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


def test_it_replays_a_folder_at_its_time(shared_data: Path) -> None:
    """``--replay`` serves the recordings, with the clock inside the newest open candle."""
    with started("--replay", str(shared_data)) as (_, printed):
        reply = requests.get(f"{printed['MTS_BINANCE_URL']}/fapi/v1/time", timeout=20)
        assert 0 <= reply.json()["serverTime"] - 1_773_946_800_000 < 600_000


def test_now_moves_the_clock() -> None:
    """``--now`` is what the clock shows at the start."""
    with started("--now", "2024-02-29T12:00:00+00:00") as (_, printed):
        reply = requests.get(f"{printed['MTS_BINANCE_URL']}/fapi/v1/time", timeout=20)
        assert 0 <= reply.json()["serverTime"] - 1_709_208_000_000 < 600_000


def failing(*arguments: str) -> str:
    """Stderr of a process that must end with exit code 2."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


def test_a_missing_folder_is_one_line() -> None:
    """No traceback, the folder by name."""
    assert failing("--replay", "/no/such/folder") == (
        "mts_simulator: the folder to replay does not exist: /no/such/folder\n"
    )


def test_a_taken_port_is_one_line() -> None:
    """No traceback, the port by number."""
    with started() as (_, printed):
        port = printed["MTS_FRED_URL"].split(":")[2].split("/")[0]
        errors = failing("--port", port)
    assert errors.count("\n") == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in errors


def test_a_time_without_offset_is_refused() -> None:
    """The message says what is missing."""
    assert "needs an offset" in failing("--now", "2026-03-01T00:00:00")
