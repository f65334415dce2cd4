"""Budgets, pauses and circuits that several processes share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrate_limiter import Rate

from mts_dagster.errors import MtsError
from mts_dagster.sources.hosts import Cost, Host, HostFile, budget

from .loopback import FakeTime

SPENDER = """
import sys, time
from pathlib import Path
from pyrate_limiter import Rate
from mts_dagster.sources.hosts import Cost, Host, HostFile
file = HostFile(Path(sys.argv[1]))
host = Host(file, "shop", budgets={"requests": Rate(1, 10, burst=1)}, circuit_reset_s=30, now=time.time)
print("ready", flush=True)
sys.stdin.readline()
print(time.time())
for _ in range(int(sys.argv[2])):
    while (verdict := host.admit((Cost("requests"),))).wait_s:
        time.sleep(verdict.wait_s)
file.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HostFile]:
    file = HostFile(tmp_path / "home" / "sources.sqlite")
    yield file
    file.close()


def host(file: HostFile, time_: FakeTime, name: str = "shop", **budgets: Rate) -> Host:
    return Host(file, name, budgets=budgets, circuit_reset_s=30, now=lambda: time_.now)


def spend_all(shop: Host, time_: FakeTime, weights: list[int]) -> list[float]:
    """Admit every weight, waiting as told; the moments at which they went out."""
    moments = []
    for weight in weights:
        while wait_s := shop.admit((Cost("requests", weight),)).wait_s:
            time_.sleep(wait_s)
        moments.append(time_.now)
    return moments


def test_burst_then_even_pace(file: HostFile, time_: FakeTime) -> None:
    """100 a minute: 20 at once, then one every 0.75 s (80 a minute)."""
    shop = host(file, time_, requests=budget(100, 60))
    moments = spend_all(shop, time_, [1] * 23)
    assert [round(moment - moments[0], 2) for moment in moments[18:]] == [0, 0, 0.75, 1.5, 2.25]


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(5, 200), weights=st.lists(st.integers(1, 10), min_size=1, max_size=80))
def test_no_interval_holds_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, limit: int, weights: list[int]
) -> None:
    """Whatever comes, any interval of 60 s spends at most the limit."""
    time_ = FakeTime()
    file = HostFile(tmp_path_factory.mktemp("hosts") / "sources.sqlite")
    shop = host(file, time_, requests=budget(limit, 60))
    fitting = [min(weight, budget(limit, 60).burst) for weight in weights]
    moments = spend_all(shop, time_, fitting)
    file.close()
    for start in moments:
        inside = sum(weight for weight, moment in zip(fitting, moments, strict=True) if start <= moment < start + 60)
        assert inside <= limit


def test_costs_of_several_budgets_are_spent_together_or_not_at_all(file: HostFile, time_: FakeTime) -> None:
    """A request that one budget refuses costs nothing of the other."""
    shop = host(file, time_, weight=Rate(1, 1000, burst=1), funding=Rate(1, 60_000, burst=1))
    assert shop.admit((Cost("funding"),)).wait_s == 0
    assert shop.admit((Cost("weight"), Cost("funding"))).wait_s == 60
    assert shop.admit((Cost("weight"),)).wait_s == 0


def test_hosts_do_not_share_budgets(file: HostFile, time_: FakeTime) -> None:
    """Two services with a budget of the same name have one each."""
    rate = Rate(1, 60_000, burst=1)
    assert host(file, time_, "a", requests=rate).admit((Cost("requests"),)).wait_s == 0
    assert host(file, time_, "b", requests=rate).admit((Cost("requests"),)).wait_s == 0


def test_a_clock_set_back_does_not_freeze_the_budget(file: HostFile, time_: FakeTime) -> None:
    """After the clock went back by a day, the wait is one interval at most."""
    shop = host(file, time_, requests=Rate(1, 10_000, burst=1))
    shop.admit((Cost("requests"),))
    time_.now -= 86_400
    assert shop.admit((Cost("requests"),)).wait_s == 10


def test_a_weight_that_never_fits_is_our_mistake(file: HostFile, time_: FakeTime) -> None:
    """Waiting would never end; it says so at once."""
    with pytest.raises(ValueError, match="never fits"):
        host(file, time_, requests=Rate(10, 1000, burst=2)).admit((Cost("requests", 3),))


def test_pauses_and_bans_only_grow(file: HostFile, time_: FakeTime) -> None:
    """A shorter pause does not cut a longer one."""
    shop = host(file, time_, requests=Rate(1000, 1000))
    shop.pause(time_.now + 20)
    shop.pause(time_.now + 5)
    assert shop.admit((Cost("requests"),)).wait_s == 20
    shop.block(time_.now + 900, "banned")
    shop.block(time_.now + 60, "limited")
    assert shop.admit((Cost("requests"),)).blocked_until == time_.now + 900


def test_two_processes_spend_one_budget(tmp_path: Path) -> None:
    """Two processes at once: all that both spend is counted, and neither meets a lock error.

    Each request moves the budget's state at least 10 ms on, so a lost one shows in the final state.
    """
    path = tmp_path / "sources.sqlite"
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(path), "40"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for spender in spenders:
        assert spender.stdout is not None
        assert spender.stdout.readline() == "ready\n"
    answers = [spender.communicate("go\n", timeout=60) for spender in spenders]
    assert [errors for _, errors in answers] == ["", ""]
    file = HostFile(path)
    with file.transaction() as rows:
        (state_us,) = rows.execute("select cast(state as integer) from budget").fetchone()
    file.close()
    first_begin = min(float(begin) for begin, _ in answers)
    assert state_us / 1e6 >= first_begin + 80 * 0.010 - 0.001


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that is no database: one line that says what it holds and that it may be deleted."""
    path = tmp_path / "sources.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(MtsError, match=r"sources\.sqlite.*delete this file"):
        HostFile(path)
