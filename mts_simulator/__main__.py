"""The command line: ``python -m mts_simulator``.

What belongs here: arguments, the printed addresses, signals and exit codes.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mts_simulator.errors import SimulatorError
from mts_simulator.load_streams import LoadProfile
from mts_simulator.simulator import DEFAULT_SEED, Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator until SIGTERM or SIGINT; returns the exit code."""
    options = _parser().parse_args(argv)
    config = SimulatorConfig(
        port=options.port,
        seed=options.seed,
        replay=options.replay,
        now=options.now,
        enforce_limits=options.enforce_limits,
        funding_every_s=options.funding_every,
        frames=options.frames,
        speed=options.speed,
        load=None if options.load_symbols is None else LoadProfile(options.load_symbols, options.load_frames),
    )
    try:
        asyncio.run(_run(config))
    except SimulatorError as error:
        sys.stderr.write(f"mts_simulator: {error}\n")
        return _EXIT_USAGE
    return 0


async def _run(config: SimulatorConfig) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    simulator = Simulator(config)
    await simulator.start()
    sys.stdout.write(announcement(simulator))
    sys.stdout.flush()
    await stopping.wait()
    await simulator.stop()


def announcement(simulator: Simulator) -> str:
    """What is printed at the start: a line for each base URL, then a line for each environment variable."""
    lines = [f"{name:14} {url}" for name, url in simulator.urls.items()]
    lines += [f"{name}={url}" for name, url in simulator.env().items()]
    return "\n".join([*lines, f"simulated time {simulator.clock.now():%Y-%m-%d %H:%M:%S} UTC; Ctrl-C stops", ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mts_simulator", description="CoinGecko, FRED, Binance and Bybit on loopback."
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1, 0 picks a free one (default)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help=f"seed of the market ({DEFAULT_SEED})")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="serve the recordings in this folder instead")
    parser.add_argument("--now", type=_moment, metavar="ISO8601", help="what the simulated clock shows at the start")
    parser.add_argument("--enforce-limits", action="store_true", help="answer 429, 418, 403 above the limits")
    parser.add_argument("--funding-every", type=_count, metavar="SECONDS", help="settle funding this often")
    parser.add_argument("--frames", type=Path, metavar="PATH", help="play these recorded WebSocket frames")
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="N times faster, or max (1)")
    parser.add_argument("--load-symbols", type=_count, metavar="N", help="synthetic load of N symbols")
    parser.add_argument(
        "--load-frames",
        type=_speed,
        default=math.inf,
        metavar="N",
        help="book frames a second and exchange (max)",
    )
    return parser


def _speed(text: str) -> float:
    try:
        number = math.inf if text == "max" else float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor max")
    return number


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-03-01T00:00:00+00:00") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError("the time needs an offset, such as 2026-03-01T00:00:00+00:00")
    return moment


if __name__ == "__main__":
    sys.exit(main())
