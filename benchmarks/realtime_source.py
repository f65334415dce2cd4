"""A source of book frames for the realtime benchmarks: both exchanges' wire formats from a process of its own.

What belongs here: frames of the recordings' shape (Binance pictures of 20 levels, Bybit deltas on 50 levels), made
once, renumbered in place for every round, and sent at a steady rate or as fast as the receiver reads. It costs a
third of what a server that makes each frame would cost, so the receiver is what is measured. Run it as
``python benchmarks/realtime_source.py`` with the options of ``main``; it prints its port and ends with its parent.

With ``--cross-every`` a Binance picture of the first symbol crosses Bybit's book once in a while, and the moment it
was sent is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

_FIRST = 1_000_000_000_000
"""Sequence numbers start here, so that all of them have the same width."""
_WIDTH = 13
_SLOT = "0" * _WIDTH


class Rounds:
    """One round of frames for many topics as bytes, whose numbers can be raised without making it again.

    ``slots`` are the positions of ``_WIDTH`` digit fields; field k of frame n holds ``base[k][n] + round * step[k]``.
    """

    def __init__(self, frames: list[bytes], numbers: list[list[int]], steps: list[int]) -> None:
        parts, bounds, slots = [], [0], []
        length = 0
        for frame in frames:
            raw = Frame(Opcode.TEXT, frame).serialize(mask=False)
            start = 0
            for _ in steps:
                start = raw.index(_SLOT.encode(), start)
                slots.append(length + start)
                start += _WIDTH
            parts.append(raw)
            length += len(raw)
            bounds.append(length)
        self.bounds = bounds
        self._blob = np.frombuffer(bytearray(b"".join(parts)), dtype=np.uint8).copy()
        self._digits = np.array(slots).reshape(len(frames), len(steps))[:, :, None] + np.arange(_WIDTH)
        self._numbers = np.array(numbers, dtype=np.int64)
        self._steps = np.array(steps, dtype=np.int64)
        self._powers = 10 ** np.arange(_WIDTH - 1, -1, -1, dtype=np.int64)

    def bytes_of(self, number: int) -> bytes:
        """The round with its numbers."""
        values = self._numbers + number * self._steps
        self._blob[self._digits] = (values[:, :, None] // self._powers) % 10 + ord("0")
        return self._blob.tobytes()


def pictures(symbols: list[str], per_symbol: int) -> Rounds:
    """Binance partial depth: 20 levels a side, prices around 100, a moving best price."""
    frames, numbers = [], []
    for step in range(per_symbol):
        mid = 10_000 + step % 7
        bids = [[f"{(mid - 1 - n) / 100:.2f}", f"{1 + (step + n) % 9}.{n:03d}"] for n in range(20)]
        asks = [[f"{(mid + 1 + n) / 100:.2f}", f"{1 + (step + n) % 9}.{n:03d}"] for n in range(20)]
        for symbol in symbols:
            last = _FIRST + 100 * (step + 1)
            data = f'{{"e":"depthUpdate","E":{_SLOT},"T":{_SLOT},"s":"{symbol}","U":{_SLOT},"u":{_SLOT},"pu":{_SLOT}'
            levels = f',"b":{json.dumps(bids, separators=(",", ":"))},"a":{json.dumps(asks, separators=(",", ":"))}}}'
            frames.append(f'{{"stream":"{symbol.lower()}@depth20@100ms","data":{data}{levels}}}'.encode())
            numbers.append([0, 0, last - 99, last, last - 100])
    return Rounds(frames, numbers, [0, 0, 100 * per_symbol, 100 * per_symbol, 100 * per_symbol])


def deltas(symbols: list[str], per_symbol: int) -> Rounds:
    """Bybit deltas on 50 levels: 13 changed levels each, of which some come and go."""
    frames, numbers = [], []
    for step in range(per_symbol):
        bids = [[f"{(9_999 - (step * 3 + n) % 50) / 100:.2f}", f"{1 + (step + n) % 9}.{n:03d}"] for n in range(5)]
        asks = [[f"{(10_001 + (step * 3 + n) % 50) / 100:.2f}", f"{1 + (step + n) % 9}.{n:03d}"] for n in range(5)]
        bids += [[f"{(9_949 - step % 5) / 100:.2f}", "0" if step % 2 else "1.5"]]
        asks += [[f"{(10_051 + step % 5) / 100:.2f}", "0" if step % 2 else "1.5"], [f"{(10_060) / 100:.2f}", "0"]]
        for symbol in symbols:
            data = f'{{"s":"{symbol}","b":{json.dumps(bids, separators=(",", ":"))}'
            data += f',"a":{json.dumps(asks, separators=(",", ":"))},"u":{_SLOT},"seq":{_SLOT}}}'
            head = f'{{"topic":"orderbook.50.{symbol}","type":"delta","ts":{_SLOT},"data":{data},"cts":{_SLOT}}}'
            frames.append(head.encode())
            numbers.append([0, _FIRST + 1 + step, _FIRST + 1 + step, 0])
    return Rounds(frames, numbers, [0, per_symbol, per_symbol, 0])


def first_snapshots(symbols: list[str]) -> list[bytes]:
    """The Bybit snapshots that the deltas start from."""
    bids = [[f"{(9_999 - n) / 100:.2f}", "1.000"] for n in range(50)]
    asks = [[f"{(10_001 + n) / 100:.2f}", "1.000"] for n in range(50)]
    return [
        json.dumps(
            {
                "topic": f"orderbook.50.{symbol}",
                "type": "snapshot",
                "ts": time.time_ns() // 1_000_000,
                "data": {"s": symbol, "b": bids, "a": asks, "u": _FIRST, "seq": _FIRST},
                "cts": time.time_ns() // 1_000_000,
            }
        ).encode()
        for symbol in symbols
    ]


class Source:
    """Serves both exchanges. An exchange's rate is shared by its connections in proportion to their books."""

    def __init__(self, symbols: int, rate: float, seconds: float, cross_every_s: float) -> None:
        self.cross_every_s = cross_every_s
        self.symbols = [f"C{number:04d}USDT" for number in range(symbols)]
        self.rate = rate
        self.seconds = seconds
        self.topics = 0

    def answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        """REST answers; ``None`` lets a WebSocket handshake go on."""
        path = request.path.partition("?")[0]
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ]
        if path == "/fapi/v1/exchangeInfo":
            rows = [
                {
                    "symbol": name,
                    "contractType": "PERPETUAL",
                    "status": "TRADING",
                    "baseAsset": name[:-4],
                    "quoteAsset": "USDT",
                    "filters": filters,
                }
                for name in self.symbols
            ]
            return _json({"symbols": rows})
        if path == "/fapi/v1/fundingInfo":
            return _json([])
        if path == "/v5/market/instruments-info":
            listed = [
                {
                    "symbol": name,
                    "contractType": "LinearPerpetual",
                    "status": "Trading",
                    "baseCoin": name[:-4],
                    "quoteCoin": "USDT",
                    "priceFilter": {"tickSize": "0.01"},
                    "lotSizeFilter": {"qtyStep": "0.001", "minOrderQty": "0.001", "minNotionalValue": "5"},
                    "fundingInterval": 480,
                }
                for name in self.symbols
            ]
            return _json({"retCode": 0, "retMsg": "OK", "result": {"list": listed, "nextPageCursor": ""}})
        return None

    async def serve(self, connection: ServerConnection) -> None:
        """Collect the connection's topics until it falls silent, then send."""
        path = connection.request.path if connection.request is not None else ""
        topics = path.partition("streams=")[2].split("/") if "streams=" in path else []
        try:
            while True:
                async with asyncio.timeout(2.0):
                    message = json.loads(await connection.recv())
                topics += message.get("params") or message.get("args") or []
        except TimeoutError:
            pass
        books = [topic for topic in topics if "depth20" in topic or topic.startswith("orderbook.")]
        crossing = self.symbols[0].lower() + "@depth20@100ms"
        if self.cross_every_s and crossing in books:
            books.remove(crossing)
        else:
            crossing = ""
        if not books:
            await connection.wait_closed()
            return
        if books[0].startswith("orderbook."):
            names = [topic.rpartition(".")[2] for topic in books]
            for frame in first_snapshots(names):
                await connection.send(frame, text=True)
            rounds = deltas(names, max(2, 4000 // len(names) // 2 * 2))
        else:
            rounds = pictures([topic.partition("@")[0].upper() for topic in books], max(1, 4000 // len(books)))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(connection, rounds, self.rate * len(books) / len(self.symbols)))
            if crossing:
                group.create_task(self._cross(connection, crossing))

    async def _send(self, connection: ServerConnection, rounds: Rounds, rate: float) -> None:
        """Send rounds at ``rate`` frames a second (0: as fast as they are read), stamped with the time of sending."""
        transport = connection.transport
        started = time.perf_counter()
        frames = len(rounds.bounds) - 1
        sent = 0
        for number in self._numbers(started):
            blob = rounds.bytes_of(number)
            position = 0
            while position < frames and not transport.is_closing():
                due = frames if not rate else position + int((time.perf_counter() - started) * rate) - sent
                until = min(frames, position + 400, due)
                if until <= position:
                    await asyncio.sleep(0.0005)
                    continue
                transport.write(_stamped(blob[rounds.bounds[position] : rounds.bounds[until]]))
                sent += until - position
                position = until
                while transport.get_write_buffer_size() > 1_000_000 and not transport.is_closing():  # noqa: ASYNC110
                    # drain() would wait for an empty buffer, and the receiver with it
                    await asyncio.sleep(0.0002)
            await asyncio.sleep(0)
        await connection.wait_closed()

    async def _cross(self, connection: ServerConnection, topic: str) -> None:
        """Show a bid far above the other exchange's asks now and then, and take it back."""
        for number in self._numbers(time.perf_counter()):
            bid, ask = ("105.00", "105.01") if number % 2 else ("99.99", "100.01")
            last = _FIRST + number
            levels = f'"b":[["{bid}","1.000"]],"a":[["{ask}","1.000"]]'
            numbers = f'"E":{_SLOT},"T":{_SLOT},"s":"C","U":{last},"u":{last},"pu":{last - 1}'
            frame = f'{{"stream":"{topic}","data":{{"e":"depthUpdate",{numbers},{levels}}}}}'.encode()
            raw = Frame(Opcode.TEXT, _stamped(frame)).serialize(mask=False)
            if number % 2:
                print(json.dumps({"crossed_ns": time.time_ns()}), flush=True)
            connection.transport.write(raw)
            await asyncio.sleep(self.cross_every_s / 2)

    def _numbers(self, started: float) -> Iterator[int]:
        number = 0
        while time.perf_counter() - started < self.seconds:
            yield number
            number += 1


def _stamped(piece: bytes) -> bytes:
    """Zeros in time fields become the present time: lag can be measured at the receiver."""
    return piece.replace(_SLOT.encode(), b"%013d" % (time.time_ns() // 1_000_000))


def _json(body: object) -> Response:
    content = json.dumps(body).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(content))})
    return Response(200, "OK", headers, content)


async def _end_with_parent() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second of each exchange; 0: as fast as read")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cross-every", type=float, default=0.0, help="seconds between crossed books; 0: never")
    options = parser.parse_args()
    source = Source(options.symbols, options.rate, options.seconds, options.cross_every)
    async with serve(source.serve, "127.0.0.1", 0, process_request=source.answer, compression=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await _end_with_parent()


if __name__ == "__main__":
    asyncio.run(main())
