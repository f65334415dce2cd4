"""Benchmarks of the sidecar: throughput, lag, memory, and the way from a frame to a signal on the feed.

What belongs here: the scenarios and their table. Each runs the product in a process of its own on one core, fed by
``realtime_source.py`` on another. Run all of them with ``python benchmarks/realtime_bench.py``, or some by name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
Result = dict[str, Any]


@contextlib.contextmanager
def _source(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The source process; ends when its standard input is closed."""
    command = [sys.executable, str(HERE / "realtime_source.py"), *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    _pin(process.pid, 0)
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _pin(pid: int, core: int) -> None:
    """Give a process one core of its own, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[core % len(cores)]})


def _worker(port: int, home: str, exchanges: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    root = f"127.0.0.1:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MTS_")},
        "MTS_HOME": home,
        "MTS_EXCHANGES": exchanges,
        "MTS_SYMBOLS": "ALL",
        "MTS_BINANCE_URL": f"http://{root}",
        "MTS_BYBIT_URL": f"http://{root}",
        "MTS_BINANCE_WS_URL": f"ws://{root}",
        "MTS_BYBIT_WS_URL": f"ws://{root}/v5/public/linear",
        "MTS_FEED_PORT": "0",
        "MTS_SUBSCRIBE_TIMEOUT_S": "120",
        "MTS_CONNECTION_SILENCE_S": "120",
        "MTS_BINANCE_MESSAGES_PER_S": "10",
        "MTS_BYBIT_TOPICS_PER_REQUEST": "500",
        **settings,
    }
    command = [sys.executable, str(HERE / "realtime_worker.py"), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=home, text=True)
    _pin(process.pid, 1)
    return process


def measure(exchanges: str, symbols: int, rate: float, seconds: float, *, landed: bool) -> Result:
    """One scenario: ``rate`` frames a second of each exchange (0: as fast as possible)."""
    arguments = ["--symbols", str(symbols), "--rate", str(rate), "--seconds", str(seconds + 40)]
    options = ["--seconds", str(seconds)] + ([] if landed else ["--books-only"])
    with _source(*arguments) as source, tempfile.TemporaryDirectory() as home:
        port = json.loads(_line(source))["port"]
        worker = _worker(port, home, exchanges, *options)
        output, _ = worker.communicate(timeout=seconds + 120)
        return dict(json.loads(output.splitlines()[-1]))


def detection(rate: float, seconds: float) -> Result:
    """From sending the frame that crosses two books to the signal at a client of the feed."""
    arguments = ["--symbols", "100", "--rate", str(rate / 2), "--seconds", str(seconds + 40), "--cross-every", "0.1"]
    with _source(*arguments) as source, tempfile.TemporaryDirectory() as home:
        port = json.loads(_line(source))["port"]
        worker = _worker(
            port,
            home,
            "binance,bybit",
            "--seconds",
            str(seconds),
            "--serve",
            MTS_SIGNAL_TTL_S="0.01",
            MTS_ARBITRAGE_MAX_SKEW_MS="5000",
            MTS_ARBITRAGE_MAX_AGE_MS="5000",
        )
        feed = json.loads(_line(worker))["port"]
        arrived_ns = asyncio.run(_signals(feed, seconds))
        output, _ = worker.communicate(timeout=120)
        source.terminate()
        sent_ns = [json.loads(line)["crossed_ns"] for line in source.stdout or ()]
    latencies = _pair(sent_ns, arrived_ns)
    return {**json.loads(output.splitlines()[-1]), "signals": len(latencies), **_quantiles(latencies)}


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def _signals(port: int, seconds: float) -> list[int]:
    """Arrival times of arbitrage signals at a client of the feed."""
    arrived: list[int] = []
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as http:
        url = f"ws://127.0.0.1:{port}/stream?channels=signals&symbols=C0000USDT"
        async with http.ws_connect(url) as websocket:
            deadline = loop.time() + seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    async for message in websocket:
                        arrived += [time.time_ns()] if '"arbitrage"' in message.data else []
    return arrived


def _pair(sent_ns: list[int], arrived_ns: list[int]) -> list[float]:
    """Milliseconds from each sending to the first arrival after it and before the next sending."""
    pairs = []
    for sent, following in zip(sent_ns, [*sent_ns[1:], 2**63], strict=True):
        arrival = next((moment for moment in arrived_ns if sent <= moment < following), None)
        if arrival is not None:
            pairs.append((arrival - sent) / 1e6)
    return pairs


def _quantiles(values: list[float]) -> Result:
    ordered = sorted(values) or [float("nan")]
    return {"signal_p50_ms": ordered[len(ordered) // 2], "signal_p99_ms": ordered[int(len(ordered) * 0.99)]}


SCENARIOS = {
    "binance-books": lambda s: measure("binance", 100, 0, s, landed=False),
    "bybit-books": lambda s: measure("bybit", 100, 0, s, landed=False),
    "binance-landed": lambda s: measure("binance", 100, 0, s, landed=True),
    "bybit-landed": lambda s: measure("bybit", 100, 0, s, landed=True),
    "lag-2000": lambda s: measure("binance,bybit", 100, 1_000, s, landed=True),
    "lag-20000": lambda s: measure("binance,bybit", 100, 10_000, s, landed=True),
    "universe": lambda s: measure("binance,bybit", 500, 17_500, s, landed=True),
    "memory": lambda s: measure("binance,bybit", 1000, 1_000, s, landed=True),
    "detection": lambda s: detection(2_000, s),
}
"""``universe`` is 1,000 books at 35,000 frames a second; ``memory`` is 1,000 symbols on both exchanges."""

_COLUMNS = (
    ("frames_per_s", "frames/s", "{:,.0f}"),
    ("frames_per_cpu_s", "frames/CPU s", "{:,.0f}"),
    ("cpu_us_per_frame", "us/frame", "{:.1f}"),
    ("cpu_share", "CPU", "{:.0%}"),
    ("lag_p50_ms", "lag p50 ms", "{:.1f}"),
    ("lag_p99_ms", "lag p99 ms", "{:.1f}"),
    ("signal_p50_ms", "signal p50 ms", "{:.2f}"),
    ("signal_p99_ms", "signal p99 ms", "{:.2f}"),
    ("dropped_frames", "dropped", "{:,.0f}"),
    ("books", "books", "{:,.0f}"),
    ("rss_mib", "RSS MiB", "{:,.0f}"),
)


def main() -> None:
    """Run the scenarios named on the command line, all of them without a name."""
    parser = argparse.ArgumentParser(description="Benchmarks of the sidecar.")
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    print("| scenario | " + " | ".join(title for _, title, _ in _COLUMNS) + " |")
    print("|---" * (len(_COLUMNS) + 1) + "|")
    for name in options.scenarios:
        result = SCENARIOS[name](options.seconds)
        cells = [form.format(result[key]) if key in result else "" for key, _, form in _COLUMNS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        if "error" in result:
            print(f"{name}: {result['error']}", file=sys.stderr)


if __name__ == "__main__":
    main()
