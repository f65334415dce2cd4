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

from mts_simulator.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mts_simulator import Simulator

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


def test_a_failing_process_exits_with_2() -> None:
    """The exit code and the single line reach the shell."""
    command = [*COMMAND, "--replay", "/no/such/folder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "mts_simulator: the folder to replay does not exist: /no/such/folder\n"


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Stderr of a command line that must end with exit code 2."""

    def run(*arguments: str) -> str:
        try:
            code = main(arguments)
        except SystemExit as stopped:  # how argparse refuses
            code = int(str(stopped.code))
        printed = capsys.readouterr()
        assert (code, printed.out) == (2, "")
        return printed.err

    return run


def test_a_taken_port_is_one_line(failing: Callable[..., str], simulator: Simulator) -> None:
    """No traceback, the port by number."""
    port = str(simulator.port)
    errors = failing("--port", port)
    assert errors.count("\n") == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in errors


def test_missing_frames_are_one_line(failing: Callable[..., str]) -> None:
    """No traceback, the path by name."""
    assert failing("--frames", "/no/such/file") == ("mts_simulator: there are no recorded frames at /no/such/file\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--now", "yesterday"), "'yesterday' is not a time such as"),
        (("--speed", "0"), "'0' is neither a number above 0 nor max"),
        (("--load-symbols", "-1"), "'-1' is not a whole number above 0"),
        (("--port", "70000"), "port 70000 on 127.0.0.1 cannot be used"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(failing: Callable[..., str], arguments: tuple[str, ...], part: str) -> None:
    """The last line names the argument's problem."""
    assert part in failing(*arguments).splitlines()[-1]


def test_load_is_announced_like_the_rest() -> None:
    """Synthetic load lists its symbols on both exchanges."""
    with started("--load-symbols", "3", "--load-frames", "10") as (_, printed):
        url = f"{printed['MTS_BYBIT_URL']}/v5/market/instruments-info"
        rows = requests.get(url, params={"category": "linear"}, timeout=20).json()["result"]["list"]
    assert [row["symbol"] for row in rows] == ["L0001USDT", "L0002USDT", "L0003USDT"]
    assert printed["MTS_BINANCE_WS_URL"].endswith("/binance-ws")
    assert printed["MTS_BYBIT_WS_URL"].endswith("/bybit-ws/v5/public/linear")


def test_a_time_without_offset_is_refused(failing: Callable[..., str]) -> None:
    """The message says what is missing."""
    assert "needs an offset" in failing("--now", "2026-03-01T00:00:00")
