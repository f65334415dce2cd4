"""The public door: configuration, and a running simulator in a background thread.

What belongs here: assembly of data, services and shell, and their life. The command line is in ``__main__``.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiohttp import web

from mts_simulator.binance import Binance
from mts_simulator.binance_streams import SeededBinanceFeeds
from mts_simulator.bybit import Bybit, SeededBybit
from mts_simulator.bybit_streams import SeededBybitFeeds
from mts_simulator.clock import Clock
from mts_simulator.coingecko import CoinGecko
from mts_simulator.control import Control
from mts_simulator.errors import SimulatorError
from mts_simulator.faults import FaultBook
from mts_simulator.frame_replay import FrameRecordings, Playback
from mts_simulator.fred import Fred
from mts_simulator.load_streams import LoadBinance, LoadBinanceFeeds, LoadBybit, LoadBybitFeeds
from mts_simulator.macro import SeededMacro
from mts_simulator.market import Market
from mts_simulator.recordings import Recordings
from mts_simulator.replay import ReplayBinance, ReplayBybit, ReplayCoinGecko, ReplayMacro, default_now
from mts_simulator.request_log import RequestLog
from mts_simulator.seeded_binance import SeededBinance
from mts_simulator.seeded_coingecko import SeededCoinGecko
from mts_simulator.server import Shell
from mts_simulator.stream_connection import BINANCE_RULES, BYBIT_RULES, ConnectionRules
from mts_simulator.stream_faults import StreamFaultBook
from mts_simulator.stream_server import BINANCE_MOUNT, BYBIT_MOUNT, BYBIT_PATH, StreamShell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from mts_simulator.binance_streams import StreamSources
    from mts_simulator.coingecko import CoinGeckoData
    from mts_simulator.load_streams import LoadProfile
    from mts_simulator.macro import MacroData
    from mts_simulator.perpetuals import BinanceData, BybitData
    from mts_simulator.wire import JsonObject, Service

DEFAULT_SEED = 7
_HOST = "127.0.0.1"
ACCESS = {
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
        frames: File or folder of recorded WebSocket frames to play instead of seeded ones; of a replayed
            folder its ``frames``, when absent.
        speed: How many times faster recorded frames are played; infinity for as fast as possible.
        load: Synthetic load in place of the exchanges' seeded symbols.
        binance_rules: How Binance treats WebSocket connections.
        bybit_rules: How Bybit does.
    """

    port: int = 0
    seed: int = DEFAULT_SEED
    replay: Path | None = None
    now: datetime | None = None
    enforce_limits: bool = False
    funding_every_s: int | None = None
    frames: Path | None = None
    speed: float = 1.0
    load: LoadProfile | None = None
    binance_rules: ConnectionRules = BINANCE_RULES
    bybit_rules: ConnectionRules = BYBIT_RULES


class Simulator:
    """A simulator: its address, clock, faults and request log.

    Attributes:
        clock: The simulated time; ``clock.set`` moves it.
        faults: Pending HTTP faults.
        stream_faults: Pending WebSocket faults.
        requests: Every request and WebSocket handshake so far.
        streams: The WebSocket side; ``streams.connections`` are those there ever were.
        port: The port it listens on, once started.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        if config.now is not None and config.now.tzinfo is None:
            raise SimulatorError("the simulated time needs an offset, such as 2026-03-01T00:00:00+00:00")
        if not config.speed > 0:
            raise SimulatorError(f"the speed must be above 0, not {config.speed}")
        world = _assemble(config)
        self.clock = Clock(world.now)
        self.faults = FaultBook()
        self.stream_faults = StreamFaultBook()
        self.requests = RequestLog()
        self.port = 0
        self.streams = StreamShell(
            world.binance_streams,
            world.bybit_streams,
            self.clock,
            self.stream_faults,
            self.requests,
            binance_rules=config.binance_rules,
            bybit_rules=config.bybit_rules,
        )
        self._config = config
        self._services = world.services(enforce_limits=config.enforce_limits)
        self._runner: web.AppRunner | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Base URL of each service; Bybit's WebSocket one is whole, Binance's lacks the route."""
        host = f"{_HOST}:{self.port}"
        rest = {service.name: f"http://{host}{service.mount}" for service in self._services}
        return {
            **rest,
            "binance_ws": f"ws://{host}{BINANCE_MOUNT}",
            "bybit_ws": f"ws://{host}{BYBIT_MOUNT}{BYBIT_PATH}",
        }

    def env(self) -> dict[str, str]:
        """Environment variables that point the clients at this simulator: addresses, keys, budgets of loopback."""
        return {**{f"MTS_{name.upper()}_URL": url for name, url in self.urls.items()}, **ACCESS}

    async def start(self) -> None:
        """Listen.

        Raises:
            SimulatorError: When the port is taken.
        """
        control = Control(self.clock, self.faults, self.stream_faults, self.requests, self.streams)
        shell = Shell(self._services, self.clock, self.faults, self.requests)
        app = web.Application()
        app.add_routes([*control.routes(), *self.streams.routes(), *shell.routes()])
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self._config.port)
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
    started: Future[None] = Future()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def run() -> None:
        try:
            await simulator.start()
        except Exception as error:  # noqa: BLE001  handed to the thread that waits for the start
            started.set_exception(error)
            return
        started.set_result(None)
        await stopping.wait()
        await simulator.stop()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work, name="mts-simulator", daemon=True)
    thread.start()
    started.result(_START_TIMEOUT_S)
    try:
        yield simulator
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()


@dataclass(frozen=True)
class _World:
    """Everything the shells serve."""

    now: datetime | None
    coins: CoinGeckoData
    macro: MacroData
    binance: BinanceData
    bybit: BybitData
    binance_streams: StreamSources
    bybit_streams: StreamSources
    recorded_depth: Callable[[str], JsonObject | None] = lambda _symbol: None

    def services(self, *, enforce_limits: bool) -> list[Service]:
        """The REST services."""
        return [
            CoinGecko(self.coins, enforce_limits=enforce_limits),
            CoinGecko(self.coins, pro=True, enforce_limits=enforce_limits),
            Fred(self.macro, enforce_limits=enforce_limits),
            Binance(self.binance, enforce_limits=enforce_limits, recorded_depth=self.recorded_depth),
            Bybit(self.bybit, enforce_limits=enforce_limits),
        ]


def _assemble(config: SimulatorConfig) -> _World:
    """The data that the configuration asks for: seeded or recorded, with other streams if wanted."""
    world = _seeded(config) if config.replay is None else _replayed(config, config.replay)
    if config.load is not None:
        market = Market(config.seed)
        return replace(
            world,
            binance=LoadBinance(market, config.load),
            bybit=LoadBybit(market, config.load),
            binance_streams=LoadBinanceFeeds(config.load),
            bybit_streams=LoadBybitFeeds(config.load),
        )
    frames = _frames(config)
    if frames is None:
        return world
    binance = Playback(frames, "binance", config.speed)
    return replace(
        world,
        binance_streams=binance,
        bybit_streams=Playback(frames, "bybit", config.speed),
        recorded_depth=binance.depth,
    )


def _frames(config: SimulatorConfig) -> FrameRecordings | None:
    """The recorded frames to play: those asked for, else those of the replayed folder."""
    if config.frames is not None:
        return FrameRecordings.at(config.frames)
    if config.replay is None:
        return None
    folder = config.replay / "frames"
    return FrameRecordings.at(folder) if folder.is_dir() else FrameRecordings([])


def _seeded(config: SimulatorConfig) -> _World:
    market = Market(config.seed)
    binance = SeededBinance(market, "binance", config.seed, config.funding_every_s)
    bybit = SeededBybit(market, "bybit", config.seed, config.funding_every_s)
    return _World(
        now=config.now,
        coins=SeededCoinGecko(market, config.seed),
        macro=SeededMacro(market.world),
        binance=binance,
        bybit=bybit,
        binance_streams=SeededBinanceFeeds(binance),
        bybit_streams=SeededBybitFeeds(bybit),
    )


def _replayed(config: SimulatorConfig, folder: Path) -> _World:
    recordings = Recordings(folder)
    silence = FrameRecordings([])
    return _World(
        now=config.now or default_now(recordings),
        coins=ReplayCoinGecko(recordings),
        macro=ReplayMacro(recordings),
        binance=ReplayBinance(recordings),
        bybit=ReplayBybit(recordings),
        binance_streams=Playback(silence, "binance", config.speed),
        bybit_streams=Playback(silence, "bybit", config.speed),
    )
