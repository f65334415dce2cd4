"""What 'mts doctor' is told about each source."""

from __future__ import annotations

from mts_dagster.sources.probe import reachability
from mts_simulator import Fault, SimulatorConfig, running_simulator

from .conftest import World


def test_all_sources_answer(world: World) -> None:
    """Everything is reachable; plans, keys, latency and the venues' clocks are told."""
    with running_simulator(SimulatorConfig()) as real_time:
        found = {probe.source: probe for probe in reachability(World(real_time, world.home).settings())}
    assert [probe.is_ok for probe in found.values()] == [True] * 4
    assert {name: probe.has_key for name, probe in found.items()} == {
        "coingecko": False,
        "fred": True,
        "binance": None,
        "bybit": None,
    }
    assert found["coingecko"].plan == "keyless"
    assert all(probe.latency_ms is not None and probe.latency_ms > 0 for probe in found.values())
    assert found["binance"].clock_offset_ms is not None
    assert found["binance"].detail == ""


def test_each_failure_is_one_line(world: World) -> None:
    """A refused country, an outage, a missing key: each beside its source, the others not affected."""
    world.simulator.faults.add(Fault("status", service="binance", status=451, times=None))
    world.simulator.faults.add(Fault("reset", service="bybit", times=None))
    found = {probe.source: probe for probe in reachability(world.settings(fred_api_key=None))}
    assert {name: probe.is_ok for name, probe in found.items()} == {
        "coingecko": True,
        "fred": False,
        "binance": False,
        "bybit": False,
    }
    assert "country" in found["binance"].detail
    assert "was lost" in found["bybit"].detail
    assert "MTS_FRED_API_KEY" in found["fred"].detail
    assert not any("\n" in probe.detail for probe in found.values())


def test_a_clock_that_is_off_is_told(world: World) -> None:
    """The simulated venue lives in another month: the line says that this machine's clock is off."""
    found = {probe.source: probe for probe in reachability(world.settings())}
    assert found["binance"].is_ok
    assert "synchronise" in found["binance"].detail


def test_pro_with_a_stand_in_is_not_ok(world: World) -> None:
    """The public host answers in place of Pro: said, and not taken for health."""
    world.simulator.faults.add(Fault("status", service="coingecko_pro", status=502, times=None))
    settings = world.settings(coingecko_plan="pro", coingecko_api_key="CG-" + "p" * 24)
    found = {probe.source: probe for probe in reachability(settings)}
    assert not found["coingecko"].is_ok
    assert "public host answers" in found["coingecko"].detail
