"""The real recordings, rebuilt with the product's code and compared with an independent rebuild in this file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from mts_realtime.book import BookState
from mts_realtime.events import BookDelta, BookSnapshot, Feed, Instrument, Levels
from mts_realtime.exchanges.binance import Binance
from mts_realtime.exchanges.bybit import Bybit
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.pipeline import Pipeline
from mts_realtime.recorder import Batch
from mts_realtime.settings import RealtimeSettings

Frames = Callable[[str, int], Iterator[tuple[int, bytes]]]

BINANCE_2024 = "binance_usdm/btcusdt_20240808_depth0ms_bookTicker_trade.jsonl.gz"
BINANCE_2023 = "binance_usdm/btcusdt_20230404_depth0ms_bookTicker_trade_markPrice.jsonl.gz"
BYBIT_2026 = "bybit_v5/linear_BTCUSDT_ETHUSDT_20260809.jsonl.gz"
TOPIC = "btcusdt@depth@0ms"


class Rebuild:
    """An order book kept as exact decimals, in the plainest way."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def replace(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        self.bids.clear()
        self.asks.clear()
        self.change(bids, asks)

    def change(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                side[Decimal(price)] = Decimal(size)
                if Decimal(size) == 0:
                    del side[Decimal(price)]

    def top(self, count: int) -> tuple[Levels, Levels]:
        bids = sorted(self.bids.items(), reverse=True)[:count]
        asks = sorted(self.asks.items())[:count]
        return [(float(p), float(s)) for p, s in bids], [(float(p), float(s)) for p, s in asks]


def rebuilt_binance(frames: Iterator[tuple[int, bytes]]) -> Rebuild:
    """Snapshot, then every update that is not older, by the exchange's recipe."""
    book = Rebuild()
    start = 0
    for _, raw in frames:
        frame = json.loads(raw)
        if "lastUpdateId" in frame:
            start = frame["lastUpdateId"]
            book.replace(frame["bids"], frame["asks"])
        elif start and frame["stream"] == TOPIC and frame["data"]["u"] >= start:
            book.change(frame["data"]["b"], frame["data"]["a"])
    return book


def test_binance_diff_depth_of_2024(make_settings: Callable[..., RealtimeSettings], wrapped_frames: Frames) -> None:
    """93,954 frames: 4 older updates dropped, the other 6,547 applied, never crossed, final top 20 equal."""
    binance = Binance(make_settings(binance_depth="diff", binance_depth_interval_ms=0))
    codec = binance.codec()
    book = binance.book(TOPIC)
    book.begin()
    frames = updates = 0
    for received_ns, raw in wrapped_frames(BINANCE_2024, 1):
        frames += 1
        if raw.startswith(b'{"lastUpdateId"'):
            book.on_snapshot(binance.parse_snapshot(TOPIC, raw, received_ns))
            continue
        for event in codec.parse(raw, received_ns):
            assert isinstance(event, BookDelta)
            updates += 1
            if book.on_delta(event):
                assert 61590.3 <= book.best_bid < book.best_ask <= 61839.9
                assert book.last_id == event.last_id
    assert (frames, updates, book.dropped) == (93_954, 6_551, 4)
    assert book.state is BookState.LIVE
    assert book.checked_top(20) == rebuilt_binance(wrapped_frames(BINANCE_2024, 1)).top(20)


def test_bybit_books_of_2026(make_settings: Callable[..., RealtimeSettings], wrapped_frames: Frames) -> None:
    """Both books are equal to the independent rebuild after every single frame, uncrossed, 200 levels deep."""
    bybit = Bybit(make_settings(bybit_depth=200))
    codec = bybit.codec()
    books = {f"orderbook.200.{symbol}": bybit.book(f"orderbook.200.{symbol}") for symbol in ("BTCUSDT", "ETHUSDT")}
    truth = {topic: Rebuild() for topic in books}
    applied = 0
    for book in books.values():
        book.begin()
    for received_ns, raw in wrapped_frames(BYBIT_2026, 10**9):
        if b'"topic":"orderbook' not in raw:
            continue
        frame = json.loads(raw)
        rebuild = truth[frame["topic"]]
        (rebuild.replace if frame["type"] == "snapshot" else rebuild.change)(frame["data"]["b"], frame["data"]["a"])
        (event,) = codec.parse(raw, received_ns)
        book = books[frame["topic"]]
        changed = book.on_snapshot(event) if isinstance(event, BookSnapshot) else book.on_delta(event)  # type: ignore[arg-type]
        assert changed
        applied += 1
        assert book.best_bid < book.best_ask
        assert book.checked_top(1000) == rebuild.top(1000)
        assert len(book.top(1000)[0]) == len(book.top(1000)[1]) == 200
    assert applied == 835


def funding_rows(pipeline: Pipeline, batches: list[Batch]) -> list[dict[str, object]]:
    return [
        row
        for batch in batches
        for dataset, _, table in batch.tables()
        if dataset == "funding"
        for row in table.to_pylist()
    ]


@pytest.fixture
def binance_pipeline(
    make_settings: Callable[..., RealtimeSettings],
) -> Callable[[int], tuple[Pipeline, list[Batch]]]:
    def make(started_ns: int) -> tuple[Pipeline, list[Batch]]:
        settings = make_settings(exchanges=("binance",))
        pipeline = Pipeline(settings, build_exchanges(settings), started_ns)
        batches: list[Batch] = []
        pipeline.on_batch = batches.append
        return pipeline, batches

    return make


def test_funding_rollover_of_2026(
    binance_pipeline: Callable[[int], tuple[Pipeline, list[Batch]]],
    bare_frames: Callable[[str], list[bytes]],
    make_instrument: Callable[..., Instrument],
) -> None:
    """At 08:00 the settlement of BTC and ETH moves by 8 hours, that of LPT by 4: one row each, interval observed.

    The frames stamped exactly 08:00:00.000 still show the old settlement and are no rollover.
    """
    raws = bare_frames("binance_usdm/markPrice_1s_funding_rollover_20260930.jsonl")
    stamps = [json.loads(raw)["data"]["E"] for raw in raws]
    pipeline, batches = binance_pipeline(stamps[0] * 10**6)
    instruments = [make_instrument(symbol=name) for name in ("BTCUSDT", "ETHUSDT", "LPTUSDT")]
    (plan,) = pipeline.exchanges["binance"].plan(instruments, frozenset({Feed.FUNDING}))
    session = pipeline.open_session(1, plan, stamps[0] * 10**6)
    for stamp, raw in zip(stamps, raws, strict=True):
        pipeline.handle(session, raw, stamp * 10**6)
    pipeline.finish(stamps[-1] * 10**6)
    rolled = [row for row in funding_rows(pipeline, batches) if row["change"] == "settlement"]
    assert {row["symbol"]: row["funding_interval_hours"] for row in rolled} == {
        "BTCUSDT": 8.0,
        "ETHUSDT": 8.0,
        "LPTUSDT": 4.0,
    }
    assert {row["next_funding_time"].timestamp() for row in rolled if row["symbol"] != "LPTUSDT"} == {1790784000.0}  # type: ignore[attr-defined]
    assert {row["next_funding_time"].timestamp() for row in rolled if row["symbol"] == "LPTUSDT"} == {1790769600.0}  # type: ignore[attr-defined]
    exact = [row for row in funding_rows(pipeline, batches) if row["exchange_time"].timestamp() == 1790755200.0]  # type: ignore[attr-defined]
    assert len(exact) >= 1
    assert {row["next_funding_time"].timestamp() for row in exact} == {1790755200.0}  # type: ignore[attr-defined]


def test_funding_rollover_of_2023(
    binance_pipeline: Callable[[int], tuple[Pipeline, list[Batch]]],
    wrapped_frames: Frames,
    make_instrument: Callable[..., Instrument],
) -> None:
    """Across midnight: E 1680652800010 still has the old settlement, the next frame has the new one, 8 h later."""
    frames = [(ns, raw) for ns, raw in wrapped_frames(BINANCE_2023, 1000) if b"@markPrice" in raw[:40]]
    assert len(frames) == 159
    pipeline, batches = binance_pipeline(frames[0][0])
    (plan,) = pipeline.exchanges["binance"].plan([make_instrument()], frozenset({Feed.FUNDING}))
    session = pipeline.open_session(1, plan, frames[0][0])
    for received_ns, raw in frames:
        pipeline.handle(session, raw, received_ns)
    pipeline.finish(frames[-1][0])
    rows = funding_rows(pipeline, batches)
    old = [row for row in rows if row["next_funding_time"].timestamp() == 1680652800.0]  # type: ignore[attr-defined]
    new = [row for row in rows if row["next_funding_time"].timestamp() == 1680681600.0]  # type: ignore[attr-defined]
    assert len(old) + len(new) == len(rows)
    assert old[-1]["exchange_time"].timestamp() == 1680652800.010  # type: ignore[attr-defined]
    (rolled,) = [row for row in rows if row["change"] == "settlement"]
    assert rolled is new[0]
    assert rolled["funding_interval_hours"] == 8.0


def test_recorded_snapshot_file_is_the_captured_one(shared_data: Path, wrapped_frames: Frames) -> None:
    """The REST body kept apart is line 55 of the capture, so tests may use either."""
    body = json.loads((shared_data / "rest" / "binance_fapi_v1_depth_BTCUSDT_20240808.json").read_bytes())
    captured = next(raw for _, raw in wrapped_frames(BINANCE_2024, 1) if raw.startswith(b'{"lastUpdateId"'))
    assert json.loads(captured) == body
