"""Real frames of Bybit, from the recording to the lake, against an independent reading of the same frames."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mts_realtime.events import Feed, Instrument
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.pipeline import Pipeline
from mts_realtime.recorder import Batch
from mts_realtime.settings import load_settings
from mts_realtime.writer import SegmentWriter

from .conftest import World

pytestmark = pytest.mark.xdist_group("realtime_ingest")

RECORDED = "frames/bybit_v5/linear_BTCUSDT_ETHUSDT_20260809.jsonl.gz"
HOUR = datetime(2026, 8, 9, 21, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def received(path: Path) -> list[tuple[int, bytes]]:
    """Receipt time in nanoseconds and frame, as the exchange sent it."""
    frames = []
    with gzip.open(path) as lines:
        for line in lines:
            wrapper, _, rest = line.rstrip().partition(b',"frame":')
            entry = json.loads(wrapper + b"}")
            if entry.get("dir") == "recv":
                frames.append((round(entry["ts"] * 1e9), rest[:-1]))
    return frames


def land(world: World, frames: list[tuple[int, bytes]]) -> None:
    """What the sidecar makes of the frames."""
    settings = load_settings(home=world.settings.home, exchanges=("bybit",), symbols=SYMBOLS, bybit_depth=200)
    pipeline = Pipeline(settings, build_exchanges(settings), frames[0][0])
    writer = SegmentWriter(settings.landing_dir, settings.landing_buffer_rows)

    def write(batch: Batch) -> None:
        assert writer.write(batch)

    pipeline.on_batch = write
    instruments = [
        Instrument(
            exchange="bybit",
            venue_symbol=name,
            symbol=name,
            tick_size=0.1,
            size_step=0.001,
            min_size=0.001,
            min_notional=5.0,
        )
        for name in SYMBOLS
    ]
    plans = pipeline.exchanges["bybit"].plan(instruments, frozenset({Feed.ORDER_BOOK, Feed.FUNDING, Feed.TICKERS}))
    sessions = [pipeline.open_session(number, plan, frames[0][0]) for number, plan in enumerate(plans, 1)]
    for received_ns, raw in frames:
        for session in sessions:
            pipeline.handle(session, raw, received_ns)
    pipeline.finish(frames[-1][0])


def tops(frames: list[tuple[int, bytes]]) -> dict[tuple[str, int], tuple[float, float]]:
    """Best bid and ask of each symbol after each update, kept in the plainest way."""
    found = {}
    sides: dict[str, dict[str, dict[str, str]]] = {name: {"b": {}, "a": {}} for name in SYMBOLS}
    for _, raw in frames:
        frame = json.loads(raw)
        if not frame.get("topic", "").startswith("orderbook."):
            continue
        symbol = frame["data"]["s"]
        if frame["type"] == "snapshot":
            sides[symbol] = {"b": {}, "a": {}}
        for side, book in sides[symbol].items():
            book |= dict(frame["data"][side])
        bids, asks = ([float(p) for p, q in sides[symbol][side].items() if float(q)] for side in ("b", "a"))
        found[symbol, frame["data"]["u"]] = (max(bids), min(asks))
    return found


def test_recorded_books_become_spreads(world: World, shared_data: Path) -> None:
    """40 seconds of two markets: each stored spread is that of the recorded book of its sequence number."""
    frames = received(shared_data / RECORDED)
    land(world, frames)
    names = ("order_book", "live_funding", "live_tickers", "stream_gaps")
    world.bring_in(*names, "bid_ask_spreads", "market_structure", "arbitrage_opportunities", hour=HOUR)
    truth = tops(frames)
    rows = world.rows(
        "select symbol, sequence_id, bid, ask, spread_bps, len(bid_prices), m.mid, m.imbalance "
        "from live.bid_ask_spreads join live.order_book using (timestamp, exchange, symbol) "
        "join live.market_structure as m using (timestamp, exchange, symbol)"
    )
    assert len(rows) >= 70
    for symbol, sequence_id, bid, ask, spread_bps, levels, mid, imbalance in rows:
        assert (bid, ask) == truth[symbol, sequence_id]
        assert spread_bps == pytest.approx((ask - bid) / ((ask + bid) / 2) * 1e4)
        assert mid == (bid + ask) / 2
        assert levels == 20
        assert -1 < imbalance < 1
    assert world.rows("select distinct coin, funding_interval_hours from live.live_funding order by all") == [
        ("bitcoin", 8.0),
        ("ethereum", 8.0),
    ]
    assert world.rows("select count(*) from live.arbitrage_opportunities") == [(0,)]
