"""The HTTP shell: addresses, request log, control endpoint, clock, and every fault seen by a real client."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mts_simulator import Fault, SimulatorConfig, SimulatorError, running_simulator

from .conftest import NOW, SEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mts_simulator import Simulator

TIMEOUT_S = 20


@pytest.fixture(autouse=True)
def _clean(simulator: Simulator) -> Iterator[None]:
    yield
    simulator.faults.clear()
    simulator.requests.clear()


def get(url: str, *, timeout_s: float = TIMEOUT_S, **query: Any) -> requests.Response:  # noqa: ANN401  any query
    return requests.get(url, params=query, timeout=timeout_s)


def ping(simulator: Simulator, *, timeout_s: float = TIMEOUT_S) -> requests.Response:
    return get(f"{simulator.urls['coingecko']}/ping", timeout_s=timeout_s)


def control(simulator: Simulator, name: str) -> str:
    return f"http://127.0.0.1:{simulator.port}/control/{name}"


def test_every_service_has_its_address(simulator: Simulator) -> None:
    """One port serves all; the environment names the clients' settings."""
    root = f"http://127.0.0.1:{simulator.port}"
    expected = {
        "MTS_COINGECKO_URL": f"{root}/coingecko/api/v3",
        "MTS_COINGECKO_PRO_URL": f"{root}/coingecko-pro/api/v3",
        "MTS_FRED_URL": f"{root}/fred",
        "MTS_BINANCE_URL": f"{root}/binance",
        "MTS_BYBIT_URL": f"{root}/bybit",
    }
    assert expected.items() <= simulator.env().items()
    assert get(f"{expected['MTS_BINANCE_URL']}/fapi/v1/ping").json() == {}
    assert get(f"{expected['MTS_BYBIT_URL']}/v5/market/time").json()["retCode"] == 0


def test_requests_are_logged_with_their_headers(simulator: Simulator) -> None:
    """Method, path, query, headers, time and status of each request."""
    requests.get(
        f"{simulator.urls['binance']}/fapi/v1/klines",
        params={"symbol": "NOPE", "interval": "1h"},
        headers={"X-Test": "yes"},
        timeout=TIMEOUT_S,
    )
    (logged,) = simulator.requests.of("binance")
    assert (logged.method, logged.path, logged.status) == ("GET", "/fapi/v1/klines", 400)
    assert logged.query == {"symbol": "NOPE", "interval": "1h"}
    assert logged.headers["x-test"] == "yes"
    assert abs(logged.time_ms - NOW.timestamp() * 1000) < 600_000
    assert get(control(simulator, "requests")).json()[0]["path"] == "/fapi/v1/klines"


@pytest.mark.parametrize("retry_after", [None, "7"])
def test_a_status_with_and_without_retry_after(simulator: Simulator, retry_after: str | None) -> None:
    """The status comes as often as asked for, then all is well."""
    simulator.faults.add(Fault("status", status=429, retry_after=retry_after, body='{"code":-1003}', times=2))
    replies = [ping(simulator) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert replies[0].headers.get("Retry-After") == retry_after
    assert replies[0].json() == {"code": -1003}


def test_a_timeout(simulator: Simulator) -> None:
    """Nothing arrives within the client's patience."""
    simulator.faults.add(Fault("timeout"))
    with pytest.raises(requests.exceptions.ReadTimeout):
        ping(simulator, timeout_s=0.2)
    assert ping(simulator).status_code == 200


def test_a_reset(simulator: Simulator) -> None:
    """The connection is reset, not closed."""
    simulator.faults.add(Fault("reset"))
    with pytest.raises(requests.exceptions.ConnectionError, match="reset by peer"):
        ping(simulator)


def test_a_web_page_with_200(simulator: Simulator) -> None:
    """A page where JSON was expected."""
    simulator.faults.add(Fault("html"))
    reply = ping(simulator)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/html")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        reply.json()


def test_a_truncated_body(simulator: Simulator) -> None:
    """The announced length never arrives."""
    simulator.faults.add(Fault("truncate", service="binance", path="/fapi/v1/exchangeInfo"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get(f"{simulator.urls['binance']}/fapi/v1/exchangeInfo")


def test_a_slow_drip_arrives_in_the_end(simulator: Simulator) -> None:
    """A byte at a time, the whole body."""
    simulator.faults.add(Fault("drip", delay_s=0.001))
    assert ping(simulator).json() == {"gecko_says": "(V3) To the Moon!"}


def test_faults_choose_service_path_and_turn(simulator: Simulator) -> None:
    """Only matching requests count, after the ones that are skipped."""
    simulator.faults.add(Fault("status", service="bybit", path="/v5/market/t*", skip=1))
    time_url = f"{simulator.urls['bybit']}/v5/market/time"
    kline_url = f"{simulator.urls['bybit']}/v5/market/kline"
    assert ping(simulator).status_code == 200
    assert [get(time_url).status_code, get(kline_url).status_code, get(time_url).status_code] == [
        200,
        200,
        503,
    ]
    assert simulator.faults.pending() == []


def test_faults_through_the_control_endpoint(simulator: Simulator) -> None:
    """Posted faults act, are listed, and are cleared."""
    url = control(simulator, "faults")
    posted = requests.post(url, json=[{"kind": "status", "status": 500, "times": None}], timeout=TIMEOUT_S)
    assert posted.json()[0]["left"] is None
    assert [ping(simulator).status_code for _ in range(3)] == [500, 500, 500]
    assert requests.delete(url, timeout=TIMEOUT_S).json() == []
    assert ping(simulator).status_code == 200


@pytest.mark.parametrize("body", [{"kind": "explode"}, {"status": 500}, {"kind": "reset", "color": "red"}, "x"])
def test_a_wrong_fault_is_refused(simulator: Simulator, body: object) -> None:
    """The control endpoint answers 400 with a reason."""
    reply = requests.post(control(simulator, "faults"), json=body, timeout=TIMEOUT_S)
    assert reply.status_code == 400
    assert reply.json()["error"]


def test_the_clock_can_be_moved() -> None:
    """In code and through the control endpoint; it runs on from there."""
    with running_simulator(SimulatorConfig(seed=SEED, now=NOW)) as simulator:
        simulator.clock.set(datetime(2024, 1, 1, tzinfo=UTC))
        first = get(f"{simulator.urls['binance']}/fapi/v1/time").json()["serverTime"]
        requests.post(control(simulator, "clock"), json={"now": "2025-01-01T00:00:00+00:00"}, timeout=TIMEOUT_S)
        second = get(f"{simulator.urls['binance']}/fapi/v1/time").json()["serverTime"]
        bare = requests.post(control(simulator, "clock"), json={"now": "2025-01-01"}, timeout=TIMEOUT_S)
    assert 0 <= first - 1_704_067_200_000 < 60_000
    assert 0 <= second - 1_735_689_600_000 < 60_000
    assert bare.status_code == 400


def test_health(simulator: Simulator) -> None:
    """Health tells that it runs, and its time."""
    body = get(control(simulator, "health")).json()
    assert body["status"] == "ok"
    assert body["now"].startswith("2026-06-16T12:")


def test_an_unknown_path_is_404(simulator: Simulator) -> None:
    """No service, no answer."""
    assert get(f"http://127.0.0.1:{simulator.port}/nowhere").status_code == 404


def test_a_taken_port_is_an_error(simulator: Simulator) -> None:
    """A second simulator on the same port fails with one clear line."""
    with (
        pytest.raises(SimulatorError, match=f"port {simulator.port} on 127.0.0.1 cannot be used"),
        running_simulator(SimulatorConfig(port=simulator.port)),
    ):
        pass
