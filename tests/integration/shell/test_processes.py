"""Commands as processes of their own: what they leave when they are stopped, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from mts_dagster.runs import range_tags
from mts_dagster.settings import REPOSITORY
from mts_realtime.landing import list_segments, read_segments
from mts_simulator.faults import Fault
from mts_simulator.simulator import Simulator
from tests.conftest import simulated_settings

from .conftest import World, variables

MTS = str(Path(sys.executable).parent / "mts")
PATIENCE_S = 120.0
Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], what: str, told: Callable[[], object] = str) -> Found:
    """Poll; fail loudly, with what is known then."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {PATIENCE_S:.0f} s; {told()}")


def descendants(pid: int) -> set[int]:
    """All processes below a process, by Linux's own list."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= {int(child), *descendants(int(child))}
    return found


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running(*arguments: str, env: dict[str, str], cwd: Path = REPOSITORY) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own; whatever is left of it at the end is killed by pid."""
    process = subprocess.Popen(
        [MTS, *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            # Whoever holds the other end of a pipe has to go before this end can be closed.
            for pid in (*descendants(process.pid), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_mistake_in_a_real_process(tmp_path: Path, market: Simulator) -> None:
    """The console script is installed, ends with 2 and writes one line, and nothing else, to stderr."""
    env = variables(market, tmp_path / "home")
    done = subprocess.run(
        [MTS, "collect", "--start", "soon"], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mts: --start 'soon' is not a day; write it as YYYY-MM-DD, e.g. 2024-01-31\n"


def test_ctrl_c_leaves_a_usable_lake(market: Simulator, tmp_path: Path) -> None:
    """In the middle of a collection, while a venue is being asked: code 130, and the same command goes on later."""
    market.faults.add(Fault("timeout", "binance", "/fapi/v1/klines", times=None, delay_s=3.0))
    market.requests.clear()
    env = variables(market, tmp_path / "home")
    days = ["--start", "2024-02-19", "--end", "2024-02-20", "--coins", "bitcoin"]
    with running("collect", *days, env=env) as process:
        wait_until(lambda: market.requests.of("binance", "/fapi/v1/klines") or process.poll(), "asking for candles")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert err.endswith("\nmts: stopped; what was committed stays, nothing is half-written\n")
    assert "Traceback" not in err
    market.faults.clear()
    again = subprocess.run(
        [MTS, "collect", *days], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    world = World(market, simulated_settings(market, tmp_path / "home"))
    assert world.rows("select count(*) from raw.klines") == [(2 * 25,)]


def test_simulate_tells_its_addresses_and_stops_when_told(tmp_path: Path) -> None:
    """``--port 0`` picks a free port; the printed settings are those to export."""
    with running("simulate", "--port", "0", env={}) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        for line in iter(process.stdout.readline, ""):
            if line.startswith("MTS_"):
                name, _, value = line.strip().partition("=")
                told[name] = value
            if line.startswith("simulated time"):
                break
        host = told["MTS_BINANCE_URL"].removesuffix("/binance")
        assert requests.get(f"{host}/control/health", timeout=PATIENCE_S).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def ask_ui(port: int, query: str, **values: object) -> dict[str, Any]:
    """Ask the webserver's GraphQL."""
    asked = {"query": query, "variables": values}
    answer = requests.post(f"http://127.0.0.1:{port}/graphql", json=asked, timeout=PATIENCE_S)
    return dict(answer.json()["data"])


LOADED = (
    "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError "
    "{ ... on PythonError { message } } } } } }"
)


def launch(port: int, job: str, tags: dict[str, str]) -> str:
    """Start a run as the UI does; its id."""
    launched = ask_ui(
        port,
        "mutation($run: ExecutionParams!) { launchRun(executionParams: $run) "
        "{ ... on LaunchRunSuccess { run { runId } } } }",
        run={
            "selector": {"jobName": job, "repositoryName": "__repository__", "repositoryLocationName": "mts"},
            "runConfigData": "{}",
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        },
    )
    return str(launched["launchRun"]["run"]["runId"])


def test_stream_takes_lists_and_ends_in_order(tmp_path: Path, market: Simulator) -> None:
    """``mts stream --symbols A B`` writes segments of both; SIGTERM ends it with code 0 and nothing half-written."""
    env = {**market.env(), "MTS_HOME": str(tmp_path / "home"), "MTS_FEED_PORT": "0"}
    landing = tmp_path / "home" / "landing"
    with running("stream", "--exchanges", "bybit", "--symbols", "BTCUSDT", "ETHUSDT", env=env) as process:
        wait_until(lambda: list_segments(landing, "order_book") or process.poll() is not None, "a segment")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    books = read_segments(list_segments(landing, "order_book"), "order_book")
    assert set(books["symbol"].to_pylist()) == {"BTCUSDT", "ETHUSDT"}
    assert set(books["exchange"].to_pylist()) == {"bybit"}
    assert list(landing.rglob(".*.tmp")) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sybmols", "BTCUSDT"], "unrecognized arguments: --sybmols BTCUSDT"),
        (["--exchanges", "kraken"], "setting MTS_EXCHANGES: allowed are binance and bybit, not kraken"),
        (["--symbols"], "argument --symbols: expected at least one argument"),
    ],
)
def test_a_mistake_of_stream_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    """Code 2, one line on stderr."""
    env = {**os.environ, "MTS_HOME": str(tmp_path / "home")}
    done = subprocess.run([MTS, "stream", *arguments], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mts stream: {told}")
    assert done.stderr.count("\n") == 1


def test_up_serves_the_ui_and_stops_everything(tmp_path: Path) -> None:
    """Webserver, daemon, sidecar, simulator: the UI runs our jobs, books land; SIGTERM ends them all, with code 0.

    Settings come from the ``.env`` of the folder in which it was started, for all of them.
    """
    home = tmp_path / "home"
    (tmp_path / ".env").write_text("MTS_HOME=home\nMTS_FEED_PORT=0\nMTS_SYMBOLS=ETHUSDT\n")
    with running("up", "--simulated", "--port", "0", env={}, cwd=tmp_path) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("Dagster UI on http://127.0.0.1:")
        port = int(first.split("127.0.0.1:")[1].split()[0])
        # A pipe that nobody reads would block the processes that write to it.
        told: list[str] = []
        reader = threading.Thread(target=lambda lines=process.stdout: told.extend(lines))
        reader.start()

        def assets() -> list[str]:
            assert process.poll() is None, told
            with suppress(requests.ConnectionError):
                nodes = ask_ui(port, "{ assetNodes { assetKey { path } } }")["assetNodes"]
                return ["/".join(node["assetKey"]["path"]) for node in nodes]
            return []

        assert "signals/trading_signals" in wait_until(assets, "the UI's answer", lambda: (ask_ui(port, LOADED), told))
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S).status_code == 200
        daemons = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy } } } }"
        wait_until(
            lambda: any(
                status["healthy"] and status["daemonType"] == "SCHEDULER"
                for status in ask_ui(port, daemons)["instance"]["daemonHealth"]["allDaemonStatuses"]
            ),
            "the scheduler's heartbeat",
        )
        run = launch(port, "universe", range_tags("2024-02-19", "2024-02-20"))
        status = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        wait_until(lambda: ask_ui(port, status, run=run)["runOrError"]["status"] in ended, "the end of the run")
        assert ask_ui(port, status, run=run)["runOrError"]["status"] == "SUCCESS"
        below = descendants(process.pid)
        assert len(below) >= 5
        (segment, *_) = wait_until(lambda: list_segments(home / "landing", "order_book"), "a segment of order books")
        assert set(read_segments([segment], "order_book")["symbol"].to_pylist()) == {"ETHUSDT"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        reader.join()
        wait_until(lambda: not [pid for pid in below if is_alive(pid)], "the end of all processes")


def test_up_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    """Ctrl-C a moment after the start leaves nothing behind either."""
    env = {"MTS_HOME": str(tmp_path / "home"), "MTS_FEED_PORT": "0"}
    with running("up", "--simulated", "--port", "0", env=env) as process:
        below = wait_until(lambda: descendants(process.pid), "the simulator's start")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (0, 130)
        wait_until(lambda: not [pid for pid in below if is_alive(pid)], "the end of all processes")
