"""The public door: configuration, and a running simulator in a background thread.

What belongs here: assembly of data, services and shell, and their life. The command line is in ``__main__``.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from mts_simulator.binance import Binance, SeededBinance
from mts_simulator.bybit import Bybit, SeededBybit
from mts_simulator.clock import Clock
from mts_simulator.coingecko import CoinGecko, CoinGeckoData
from mts_simulator.errors import SimulatorError
from mts_simulator.faults import FaultBook
from mts_simulator.fred import Fred
from mts_simulator.macro import MacroData, SeededMacro
from mts_simulator.market import Market
from mts_simulator.recordings import Recordings
from mts_simulator.replay import ReplayBinance, ReplayBybit, ReplayCoinGecko, ReplayMacro, default_now
from mts_simulator.seeded_coingecko import SeededCoinGecko
from mts_simulator.server import RequestLog, Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from mts_simulator.perpetuals import BinanceData, BybitData
    from mts_simulator.wire import Service

DEFAULT_SEED = 7
_HOST = "127.0.0.1"
_ENV = {"coingecko": "COINGECKO", "coingecko_pro": "COINGECKO_PRO", "fred": "FRED", "binance": "BINANCE",
        "bybit": "BYBIT"}  # fmt: skip
_ACCESS = {
    "MTS_COINGECKO_PLAN": "pro",
    "MTS_COINGECKO_API_KEY": "CG-simulated",
    "MTS_FRED_API_KEY": "simulated0simulated0simulated000",
    # Nobody's budget is spent on loopback.
    "MTS_COINGECKO_REQUESTS_PER_MINUTE": "60000",
    "MTS_FRED_REQUESTS_PER_SECOND": "1000",
    "MTS_BINANCE_WEIGHT_PER_MINUTE": "600000",
    "MTS_BYBIT_REQUESTS_PER_5S": "50000",
}
_START_TIMEOUT_S = 60.0
_SHUTDOWN_TIMEOUT_S = 0.5


@dataclass(frozen=True)
class SimulatorConfig:
    """How to simulate.

    Attributes:
        port: TCP port on 127.0.0.1; 0 picks a free one.
        seed: The same seed shows the same market.
        replay: Folder of recordings to serve instead of seeded data.
        now: What the simulated clock shows at the start (aware); real time, or in replay mode the newest
            still open candle of the recordings, when absent.
        enforce_limits: Whether the services answer 429, 418 and 403 when their limits are exceeded.
        funding_every_s: Settle funding this often instead of every 8, 4 or 1 hours.
    """

    port: int = 0
    seed: int = DEFAULT_SEED
    replay: Path | None = None
    now: datetime | None = None
    enforce_limits: bool = False
    funding_every_s: int | None = None


class Simulator:
    """A simulator: its address, clock, faults and request log.

    Attributes:
        clock: The simulated time; ``clock.set`` moves it.
        faults: Pending HTTP faults.
        requests: Every request so far.
        port: The port it listens on, once started.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        if config.now is not None and config.now.tzinfo is None:
            raise SimulatorError("the simulated time needs an offset, such as 2026-03-01T00:00:00+00:00")
        self.faults = FaultBook()
        self.requests = RequestLog()
        self.port = 0
        self._config = config
        self.clock, services = _assemble(config)
        self._services = services
        self._runner: web.AppRunner | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Base URL of each service."""
        return {service.name: f"http://{_HOST}:{self.port}{service.mount}" for service in self._services}

    def env(self) -> dict[str, str]:
        """Environment variables that point the clients at this simulator: addresses, keys, and budgets for loopback."""
        return {**{f"MTS_{_ENV[name]}_URL": url for name, url in self.urls.items()}, **_ACCESS}

    async def start(self) -> None:
        """Listen.

        Raises:
            SimulatorError: When the port is taken.
        """
        app = Shell(self._services, self.clock, self.faults, self.requests).application()
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self._config.port, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            await self.stop()
            raise SimulatorError(
                f"port {self._config.port} on {_HOST} cannot be used ({error}); choose another one, or 0 for any"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@contextmanager
def running_simulator(config: SimulatorConfig | None = None) -> Iterator[Simulator]:
    """A simulator that runs in a background thread for the length of the ``with`` block.

    Raises:
        SimulatorError: When it cannot start.
    """
    simulator = Simulator(config or SimulatorConfig())
    started = threading.Event()
    failure: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def run() -> None:
        try:
            await simulator.start()
        except SimulatorError as error:
            failure.append(error)
            return
        finally:
            started.set()
        await stopping.wait()
        await simulator.stop()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work, name="mts-simulator", daemon=True)
    thread.start()
    if not started.wait(_START_TIMEOUT_S):
        raise SimulatorError(f"the simulator did not start within {_START_TIMEOUT_S:.0f} s")
    if failure:
        thread.join()
        raise failure[0]
    try:
        yield simulator
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()


def _assemble(config: SimulatorConfig) -> tuple[Clock, list[Service]]:
    """The clock and the services over seeded or recorded data."""
    coins: CoinGeckoData
    macro: MacroData
    binance: BinanceData
    bybit: BybitData
    now = config.now
    if config.replay is None:
        market = Market(config.seed)
        coins, macro = SeededCoinGecko(market, config.seed), SeededMacro(market.world)
        binance = SeededBinance(market, "binance", config.seed, config.funding_every_s)
        bybit = SeededBybit(market, "bybit", config.seed, config.funding_every_s)
    else:
        recordings = Recordings(config.replay)
        coins, macro = ReplayCoinGecko(recordings), ReplayMacro(recordings)
        binance, bybit = ReplayBinance(recordings), ReplayBybit(recordings)
        now = now or default_now(recordings)
    limits = config.enforce_limits
    services: list[Service] = [
        CoinGecko(coins, enforce_limits=limits),
        CoinGecko(coins, pro=True, enforce_limits=limits),
        Fred(macro, enforce_limits=limits),
        Binance(binance, enforce_limits=limits),
        Bybit(bybit, enforce_limits=limits),
    ]
    return Clock(now), services
