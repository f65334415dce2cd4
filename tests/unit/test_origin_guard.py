"""Simulated and real data never share a home."""

from __future__ import annotations

from pathlib import Path

import pytest

from mts_dagster.errors import ConfigError, LakeError
from mts_dagster.origin_guard import guard_origin, origin_of_settings
from mts_dagster.settings import Settings, load_settings

SERVICES = ("coingecko_url", "coingecko_pro_url", "fred_url", "binance_url", "bybit_url")
SIMULATED = {name: f"http://127.0.0.1:1/{name}" for name in SERVICES}
PRO = {"coingecko_plan": "pro"}


def settings(home: Path, **overrides: object) -> Settings:
    return load_settings(home=home, **overrides)


def test_the_services_as_they_come_are_real(tmp_path: Path) -> None:
    """Nothing set: the real hosts."""
    assert origin_of_settings(settings(tmp_path)) == "real"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_all_on_loopback_are_simulated(tmp_path: Path, host: str) -> None:
    """Whatever the loopback is called."""
    urls = {name: f"http://{host}:8000/{name}" for name in SERVICES}
    assert origin_of_settings(settings(tmp_path, **urls)) == "simulated"


@pytest.mark.parametrize("left_out", SERVICES)
def test_a_mixture_is_refused(tmp_path: Path, left_out: str) -> None:
    """One forgotten address would put real rows among invented ones; the error names it."""
    urls = {name: url for name, url in SIMULATED.items() if name != left_out}
    with pytest.raises(ConfigError, match=rf"; elsewhere: MTS_{left_out.upper()}; set all of them or none"):
        origin_of_settings(settings(tmp_path, **urls, **PRO))


def test_the_pro_host_counts_for_the_pro_plan_alone(tmp_path: Path) -> None:
    """Nothing is asked of it under the other plans."""
    urls = {name: url for name, url in SIMULATED.items() if name != "coingecko_pro_url"}
    assert origin_of_settings(settings(tmp_path, **urls)) == "simulated"


def test_a_home_remembers_its_kind(tmp_path: Path) -> None:
    """The first use marks it; the same kind goes on, the other is refused and changes nothing."""
    guard_origin(settings(tmp_path / "home", **SIMULATED))
    guard_origin(settings(tmp_path / "home", **SIMULATED))
    with pytest.raises(ConfigError, match=r"holds simulated data, but the settings point at real services.*MTS_HOME"):
        guard_origin(settings(tmp_path / "home"))
    assert (tmp_path / "home" / "origin.txt").read_text() == "simulated\n"


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in its place."""
    tmp_path.joinpath("home").write_text("")
    with pytest.raises(LakeError, match=r"cannot write .*home/origin.txt: .*; set MTS_HOME to a folder you own"):
        guard_origin(settings(tmp_path / "home"))
