"""The Redis sink against a small server that speaks Redis's wire protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.integration.realtime.running import Start
from tests.integration.realtime.venue import Venue


class SmallRedis:
    """Remembers keys with their life, and what was published."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.published: list[tuple[str, bytes]] = []
        self.refuse = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (header := await reader.readline()) and not self.refuse:
                count = int(header[1:])
                parts = [await self._bulk(reader) for _ in range(count)]
                writer.write(self._answer(parts))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _bulk(reader: asyncio.StreamReader) -> bytes:
        length = int((await reader.readline())[1:])
        return (await reader.readexactly(length + 2))[:-2]

    def _answer(self, parts: list[bytes]) -> bytes:
        command = parts[0].upper()
        if command == b"SET":
            assert parts[3].upper() == b"EX"
            self.keys[parts[1].decode()] = (parts[2], int(parts[4]))
        elif command == b"PUBLISH":
            self.published.append((parts[1].decode(), parts[2]))
            return b":1\r\n"
        return b"+OK\r\n"


@pytest.fixture
async def small_redis() -> AsyncIterator[SmallRedis]:
    redis = SmallRedis()
    server = await asyncio.start_server(redis.serve, "127.0.0.1", 0)
    redis.port = server.sockets[0].getsockname()[1]
    async with server:
        yield redis


async def test_latest_values_and_signals(start: Start, venue: Venue, small_redis: SmallRedis) -> None:
    """Books and funding as expiring keys, signals published."""
    async with start(redis_url=f"redis://127.0.0.1:{small_redis.port}/0", redis_ttl_s=7) as running:
        await running.until(running.live)
        await running.until(lambda: len(small_redis.keys) == 8)
        venue.books["bybit", "BTCUSDT"].move(103.0)
        venue.books["bybit", "BTCUSDT"].step()
        await venue.announce("orderbook.50.BTCUSDT", venue.bybit_snapshot("BTCUSDT"))
        await running.until(lambda: small_redis.published)
    book, life_s = small_redis.keys["mts:books:binance:BTCUSDT"]
    assert life_s == 7
    assert len(json.loads(book)["bids"]) == 20
    funding = json.loads(small_redis.keys["mts:funding:bybit:ETHUSDT"][0])
    assert (funding["funding_rate"], funding["funding_interval_hours"]) == (0.0001, 8.0)
    channel, content = small_redis.published[0]
    assert channel == "mts:signals"
    assert json.loads(content)["kind"] == "arbitrage"


async def test_redis_that_goes_away_changes_nothing_else(start: Start, small_redis: SmallRedis) -> None:
    """Connections are refused for a while: data lands all the time, and Redis is filled again afterwards."""
    async with start(redis_url=f"redis://127.0.0.1:{small_redis.port}/0") as running:
        await running.until(lambda: running.live() and small_redis.keys)
        small_redis.refuse = True
        await running.until(lambda: running.side.redis is not None and running.side.redis.failures > 0)
        rows = running.metric("rows_total", dataset="order_book")
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > rows + 10)
        small_redis.refuse = False
        small_redis.keys.clear()
        await running.until(lambda: len(small_redis.keys) == 8)
    assert {row["reason"] for row in running.rows("gaps")} == {"starting"}
