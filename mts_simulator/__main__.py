"""The command line: ``python -m mts_simulator``.

What belongs here: arguments, the printed addresses, signals and exit codes.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mts_simulator.errors import SimulatorError
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
    parser.add_argument("--funding-every", type=int, metavar="SECONDS", help="settle funding this often")
    return parser


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError("the time needs an offset, such as 2026-03-01T00:00:00+00:00")
    return moment


if __name__ == "__main__":
    sys.exit(main())
