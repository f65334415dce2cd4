"""The simulator: CoinGecko, FRED, Binance USD-M and Bybit linear on loopback, for tests and the demo.

What belongs here: an independent implementation of the services' wire formats (REST and WebSocket), served
from seeded or recorded data, with faults on demand. It imports nothing of the other MTS packages, so that a
wrong belief about a wire format cannot hide on both sides.

Modules, from the inside out::

    clock, noise, intervals         time, deterministic noise, the candle calendar
    coins, paths, market, macro     seeded data: pure functions of the seed and the time asked for
    replay*                         recorded data in the layout of the shared recordings
    coingecko, fred, binance, bybit wire formats: a request in, a reply out, no socket
    streams, *_streams              WebSocket sessions and feeds, no socket; frame_replay plays recordings
    faults, stream_faults           what can go wrong on demand
    server, stream_*, control       the shells around the sockets
    simulator                       the public door
"""

from mts_simulator.errors import SimulatorError
from mts_simulator.faults import Fault
from mts_simulator.load_streams import LoadProfile
from mts_simulator.simulator import Simulator, SimulatorConfig, running_simulator
from mts_simulator.stream_connection import ConnectionRules, StreamConnection
from mts_simulator.stream_faults import StreamFault

__all__ = [
    "ConnectionRules",
    "Fault",
    "LoadProfile",
    "Simulator",
    "SimulatorConfig",
    "SimulatorError",
    "StreamConnection",
    "StreamFault",
    "running_simulator",
]
