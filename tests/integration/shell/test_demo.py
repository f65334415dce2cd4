"""The demo as a newcomer runs it: a process of its own, from nothing to a summary."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mts_dagster.errors import MtsError
from mts_dagster.processes import sidecar, sidecar_log, simulator
from mts_dagster.settings import REPOSITORY, load_settings
from mts_realtime.landing import list_segments, read_segments

MTS = str(Path(sys.executable).parent / "mts")
FEWEST_DAYS = "120"


def demo(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MTS, "demo", "--days", FEWEST_DAYS],
        env={**os.environ, "MTS_HOME": str(home), **variables},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_ends_with_a_summary(tmp_path: Path) -> None:
    """Code 0, each step told, rows of every table, the newest signals with their reasons, arbitrage, backtests."""
    home = tmp_path / "home"
    done = demo(home)
    assert done.returncode == 0, done.stderr
    for step in ("macro_data of VIXCLS", "price_points, klines, funding_rates of bitcoin", "trading_signals"):
        assert f"ok {step}" in done.stderr or step in done.stderr
    for told in ("raw.klines", "signals.trading_signals", "mean_reversion", "long_days", "signals of ", "make up"):
        assert told in done.stdout
    for told in ("live.order_book", "arbitrage opportunities", "edge_gone", "backtests: all strategies", "buy_hold"):
        assert told in done.stdout
    assert (home / "signals" / "latest.json").exists()
    assert (home / "origin.txt").read_text() == "simulated\n"
    assert list((home / "reports" / "backtests").rglob("*.html"))


def test_the_sidecar_of_the_demo_brings_all_to_disk(tmp_path: Path) -> None:
    """It ends with what used it, in order: no temporary file, no open gap that nobody declared."""
    settings = load_settings(home=tmp_path / "home")
    with simulator() as addresses, pytest.MonkeyPatch.context() as patch:
        for name, value in {**addresses, "MTS_HOME": str(settings.home)}.items():
            patch.setenv(name, value)
        with sidecar(settings):
            deadline = time.monotonic() + 60
            while not list_segments(settings.landing_dir, "order_book") and time.monotonic() < deadline:
                time.sleep(0.05)
    books = read_segments(list_segments(settings.landing_dir, "order_book"), "order_book")
    assert set(books["exchange"].to_pylist()) <= {"binance", "bybit"}
    assert books.num_rows > 0
    assert list(settings.landing_dir.rglob(".*.tmp")) == []
    assert (settings.landing_dir / "origin.txt").read_text() == "simulated\n"


def test_a_sidecar_that_cannot_run_is_told(tmp_path: Path) -> None:
    """It ends by itself, with a wrong setting; the error names its log."""
    settings = load_settings(home=tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTS_HOME", str(settings.home))
        patch.setenv("MTS_EXCHANGES", "nowhere")
        told = r"the sidecar ended with code 2; its log is .*sidecar\.log"
        with pytest.raises(MtsError, match=told), sidecar(settings) as process:
            process.wait(60)
    assert "allowed are binance and bybit" in sidecar_log(settings).read_text()


def test_a_fault_is_one_line_and_no_success(tmp_path: Path) -> None:
    """A code that is not 0, so that a script notices, and what was wrong."""
    done = demo(tmp_path / "home", MTS_MACRO_INDICATORS="NOSUCHSERIES")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").splitlines()[-1]
    assert last.startswith("mts: ")
    assert "NOSUCHSERIES" in last


def test_the_simulator_ends_with_what_used_it() -> None:
    """Also when that failed."""
    ports: list[str] = []

    def fail() -> None:
        with simulator() as addresses:
            ports.append(addresses["MTS_BINANCE_URL"].split(":")[2].split("/")[0])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(ports[0]))) == errno.ECONNREFUSED
