"""``python -m mts_realtime``: the sidecar from the command line; ``mts stream`` offers the same."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.logging import RichHandler

from mts_realtime.capture import replay
from mts_realtime.errors import RealtimeError, SettingsError
from mts_realtime.runner import stream
from mts_realtime.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mts_realtime.settings import RealtimeSettings


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """End with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mts stream", description="Hold live order books and funding, write snapshots, detect arbitrage."
    )
    parser.add_argument(
        "--exchanges", nargs="+", action="extend", metavar="NAME", help="binance, bybit (default: both)"
    )
    parser.add_argument(
        "--symbols", nargs="+", action="extend", metavar="SYMBOL", help="for instance BTCUSDT ETHUSDT, or ALL"
    )
    parser.add_argument("--funding-only", action="store_true", help="mark prices and funding, no books")
    parser.add_argument("--monitor-only", action="store_true", help="write no segments")
    parser.add_argument("--capture", metavar="DIR", type=Path, help="also keep every raw frame in DIR")
    parser.add_argument("--replay", metavar="DIR", type=Path, help="turn a capture into segments and end")
    return parser


async def _stream(settings: RealtimeSettings, options: argparse.Namespace, console: Console | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await stream(
        settings,
        funding_only=options.funding_only,
        monitor_only=options.monitor_only,
        capture_dir=options.capture,
        stop=stop,
        console=console,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 well, 1 failed, 2 a wrong setting."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    if console.is_terminal:
        drawn = RichHandler(console=console, show_path=False)
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", handlers=[drawn])
    else:  # one line an entry, for files and service managers
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("pyrate_limiter").setLevel(logging.WARNING)
    overrides = {name: tuple(value) for name in ("exchanges", "symbols") if (value := getattr(options, name))}
    try:
        settings = load_settings(**overrides)
        if options.replay:
            print(f"{replay(settings, options.replay)} segments in {settings.landing_dir}")  # noqa: T201 - the result
            return 0
        return asyncio.run(_stream(settings, options, console if console.is_terminal else None))
    except* SettingsError as errors:
        _explain(errors)
        return_code = 2
    except* RealtimeError as errors:
        _explain(errors)
        return_code = 1
    except* OSError as errors:
        _explain(errors)
        return_code = 1
    return return_code


def _explain(errors: BaseExceptionGroup[BaseException]) -> None:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _explain(error)
        else:
            print(f"mts stream: {error}", file=sys.stderr)  # noqa: T201 - the one line for the user


if __name__ == "__main__":
    sys.exit(main())
