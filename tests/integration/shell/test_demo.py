"""The demo as a newcomer runs it: a process of its own, from nothing to a summary."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mts_dagster.processes import simulator
from mts_dagster.settings import REPOSITORY

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
    """Code 0, each step told, rows of every table, and the newest signals with their reasons."""
    done = demo(tmp_path / "home")
    assert done.returncode == 0, done.stderr
    for step in ("macro_data of VIXCLS", "price_points, klines, funding_rates of bitcoin", "trading_signals"):
        assert f"ok {step}" in done.stderr or step in done.stderr
    for told in ("raw.klines", "signals.trading_signals", "mean_reversion", "long_days", "signals of ", "make up"):
        assert told in done.stdout
    assert (tmp_path / "home" / "signals" / "latest.json").exists()
    assert (tmp_path / "home" / "origin.txt").read_text() == "simulated\n"


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
