"""The sidecar against a scripted venue on loopback, without faults: rows, feed, metrics, signals, Redis, replay."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from mts_realtime.capture import read_capture, replay
from mts_realtime.errors import LandingError
from mts_realtime.landing import list_segments, read_segments
from mts_realtime.settings import RealtimeSettings
from tests.integration.realtime.running import Start, assert_covered, assert_faithful
from tests.integration.realtime.venue import Venue


async def test_everything_lands(start: Start, venue: Venue) -> None:
    """Books equal to the truth on every grid time, funding with its interval, tickers, and nothing missing."""
    async with start() as running:
        await running.until(running.live)
        await running.until(lambda: running.side.writer.segments_written >= 20)
    assert running.exit_code == 0
    books = running.rows("order_book")
    assert_faithful(books, venue)
    for exchange in ("binance", "bybit"):
        for symbol in venue.symbols:
            assert_covered(running, "order_book", exchange, symbol)
    funding = running.rows("funding")
    assert {(row["exchange"], row["symbol"]) for row in funding} == set(venue.books)
    assert {row["funding_rate"] for row in funding} == {0.0001}
    assert {row["funding_interval_hours"] for row in funding} == {8.0}
    assert {row["turnover_24h_quote"] for row in running.rows("tickers") if row["exchange"] == "bybit"} == {500.0}
    assert {row["reason"] for row in running.rows("gaps")} == {"starting"}


async def test_diff_depth_lands(start: Start, venue: Venue) -> None:
    """The REST snapshot is spliced into the update stream over real sockets."""
    async with start(exchanges=("binance",), binance_depth="diff") as running:
        await running.until(lambda: running.live("binance"))
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > 20)
    assert_faithful(running.rows("order_book"), venue)
    assert_covered(running, "order_book", "binance", "BTCUSDT")


async def test_funding_only_opens_no_books(start: Start, venue: Venue) -> None:
    """The public route is never asked for; only funding lands."""
    async with start({"funding_only": True}) as running:
        await running.until(lambda: running.metric("rows_total", dataset="funding") > 8)
    assert not [path for path in venue.opened if path.startswith("/public")]
    assert running.rows("order_book") == running.rows("tickers") == []
    assert {row["exchange"] for row in running.rows("funding")} == {"binance", "bybit"}


async def test_monitor_only_writes_nothing(start: Start) -> None:
    """Books are held, no segment appears."""
    async with start({"monitor_only": True}) as running:
        await running.until(running.live)
    assert list_segments(running.settings.landing_dir, "order_book") == []
    assert not running.settings.landing_dir.exists()


async def test_unknown_symbol_is_reported_once_and_the_others_go_on(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The gap says what is missing; it is looked for again, and reported once."""
    async with start(symbols=("BTCUSDT", "NOPEUSDT"), exchanges=("bybit",), instruments_refresh_s=0.2) as running:
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > 10)
    assert {row["symbol"] for row in running.rows("order_book")} == {"BTCUSDT"}
    missing = [row for row in running.rows("gaps") if row["symbol"] == "NOPEUSDT"]
    assert {row["reason"] for row in missing} == {"unknown_symbol"}
    reports = [record for record in caplog.records if "NOPEUSDT" in record.getMessage()]
    assert len(reports) == 1


async def test_symbol_that_is_listed_later_is_taken_up(start: Start, venue: Venue) -> None:
    """The slow look at the instruments list finds it."""
    venue.delisted = {"ETHUSDT"}
    async with start(exchanges=("bybit",), instruments_refresh_s=0.2) as running:
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > 5)
        venue.delisted = set()
        await running.until(lambda: running.live("bybit"))
        rows = running.metric("rows_total", dataset="order_book")
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > rows + 10)
    assert {row["symbol"] for row in running.rows("order_book")} == {"BTCUSDT", "ETHUSDT"}


async def test_feed_carries_books_spreads_funding_and_signals(start: Start, venue: Venue) -> None:
    """A client sees each channel, filtered as it asked; an arbitrage shows within the feed."""
    async with start() as running, aiohttp.ClientSession() as http:
        await running.until(running.live)
        url = f"ws://127.0.0.1:{running.port}/stream"
        async with http.ws_connect(f"{url}?symbols=BTCUSDT") as everything:
            seen: dict[str, dict[str, Any]] = {}
            venue.books["bybit", "BTCUSDT"].move(103.0)
            venue.books["bybit", "BTCUSDT"].step()
            await venue.announce("orderbook.50.BTCUSDT", venue.bybit_snapshot("BTCUSDT"))
            async with asyncio.timeout(5):
                while not {"hello", "book", "spread", "funding", "signal", "opportunity"} <= set(seen):
                    message = json.loads(await everything.receive_str())
                    seen[message["type"]] = message
                    assert message.get("symbol", "BTCUSDT") == "BTCUSDT"
    assert seen["signal"]["kind"] == "arbitrage"
    assert seen["signal"]["exchanges"] == ["binance", "bybit"]
    assert seen["opportunity"]["net_bps"] > 0
    assert seen["spread"]["bid"] < seen["spread"]["mid"] < seen["spread"]["ask"]
    assert running.rows("opportunities")[0]["buy_exchange"] == "binance"
    assert {signal.kind.value for signal in running.signals} >= {"arbitrage"}


async def test_feed_refuses_unknown_channels(start: Start) -> None:
    """The answer names the channels that there are."""
    async with start() as running, aiohttp.ClientSession() as http:
        await running.until(lambda: running.port)
        async with http.get(f"http://127.0.0.1:{running.port}/stream?channels=trades") as answer:
            assert answer.status == 400
            assert "books" in await answer.text()


async def test_health_and_metrics(start: Start, venue: Venue) -> None:
    """Health is ok when all topics are live; metrics are Prometheus text with the promised names."""
    async with start() as running, aiohttp.ClientSession() as http:
        await running.until(lambda: running.live() and running.side.writer.segments_written)
        root = f"http://127.0.0.1:{running.port}"
        async with http.get(f"{root}/health") as answer:
            report = await answer.json()
        async with http.get(f"{root}/metrics") as answer:
            metrics = await answer.text()
    assert report["status"] == "ok"
    assert report["exchanges"]["bybit"] == {"topics": 4, "live": 4, "connections": 2, "problem": ""}
    for name in (
        'frames_total{exchange="binance",route="public"}',
        'books{exchange="bybit",state="LIVE"} 2.0',
        "handling_lag_seconds_bucket",
        "exchange_lag_seconds_bucket",
        "gaps_total",
        "reconnects_total",
        "dropped_frames_total",
        "opportunities_total",
        "segments_total",
    ):
        assert f"mts_realtime_{name}" in metrics


async def test_clocks_are_compared(start: Start, venue: Venue, caplog: pytest.LogCaptureFixture) -> None:
    """An exchange's clock that is far off shows as a metric and as a warning."""
    venue.clock_ahead_ms = 3000
    async with start() as running:
        await running.until(lambda: len(running.side.supervisor.clock_offset_ms) == 2)
        assert running.metric("exchange_clock_offset_seconds", exchange="binance") == pytest.approx(3.0, abs=0.5)
        assert running.metric("exchange_clock_offset_seconds", exchange="bybit") == pytest.approx(0.0, abs=0.5)
    assert [record.getMessage()[:21] for record in caplog.records if "clock" in record.getMessage()] == [
        "binance: its clock is"
    ]


async def test_terminal_view_shows_rates_books_and_opportunities(start: Start, venue: Venue) -> None:
    """Attached to a terminal the sidecar draws itself; without one it draws nothing."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=140, height=60)
    async with start({"console": console}) as running:
        await running.until(running.live)
        venue.books["bybit", "BTCUSDT"].move(103.0)
        venue.books["bybit", "BTCUSDT"].step()
        await venue.announce("orderbook.50.BTCUSDT", venue.bybit_snapshot("BTCUSDT"))
        await running.until(lambda: "BTCUSDT │ binance │ bybit" in " ".join(terminal.getvalue().split()))
    drawn = terminal.getvalue()
    for text in ("MTS stream", "lag p99", "public", "frames/s", "ETHUSDT", "99.9", "10.95"):
        assert text in drawn


async def test_second_sidecar_on_the_same_landing_folder_is_refused(
    start: Start, make_settings: Callable[..., RealtimeSettings]
) -> None:
    """Two writers would contradict each other's gaps."""
    async with start() as running:
        await running.until(running.live)
        with pytest.raises(LandingError, match="another sidecar writes to"):
            async with start():
                pass


async def test_capture_replays_to_the_same_segments_byte_for_byte(
    start: Start, make_settings: Callable[..., RealtimeSettings], tmp_path: Path, venue: Venue
) -> None:
    """Captured live with a reconnect and a resync inside, replayed twice: equal files; and equal to the live rows."""
    async with start({"capture_dir": tmp_path / "capture"}, binance_depth="diff") as running:
        await running.until(running.live)
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > 20)
        venue.reset_in_mid_frame("/v5/public/linear")
        await running.until(lambda: running.metric("reconnects_total") >= 2 and running.live())
        dropped: list[bytes] = []

        def drop_two(topic: str, frames: list[bytes]) -> list[bytes]:
            if topic != "orderbook.50.BTCUSDT" or len(dropped) > 1:
                return frames
            dropped.extend(frames)
            return []

        venue.tamper = drop_two
        await running.until(lambda: running.metric("resyncs_total", reason="sequence_gap") >= 1 and running.live())
        rows = running.metric("rows_total", dataset="order_book")
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > rows + 20)
    results = []
    for name in ("first", "second"):
        settings = make_settings(home=tmp_path / name, binance_depth="diff")
        assert replay(settings, tmp_path / "capture") > 0
        files = sorted(settings.landing_dir.glob("*/date=*/hour=*/*.parquet"))
        results.append([(path.relative_to(settings.landing_dir), path.read_bytes()) for path in files])
    assert results[0] == results[1]
    for dataset in ("order_book", "funding", "tickers", "opportunities", "signals"):
        again = read_segments(list_segments(tmp_path / "first" / "landing", dataset), dataset)
        live = read_segments(list_segments(running.settings.landing_dir, dataset), dataset)
        assert again.equals(live), dataset
    assert {entry.venue for entry in read_capture(tmp_path / "capture")} == {"", "binance", "bybit"}
