"""Bybit REST: return codes, newest-first order, cursor paging, funding history rules, the 403 block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mts_simulator.binance import Binance
from mts_simulator.bybit import Bybit, SeededBybit
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS
from mts_simulator.seeded_binance import SeededBinance

from .conftest import NOW_MS, SEED, JsonValue, ask, ask_json

if TYPE_CHECKING:
    from pathlib import Path

    from mts_simulator.market import Market

KLINE = "/v5/market/kline"
FUNDING = "/v5/market/funding/history"
INSTRUMENTS = "/v5/market/instruments-info"


@pytest.fixture(scope="module")
def bybit(market: Market) -> Bybit:
    return Bybit(SeededBybit(market, "bybit", SEED))


def result(bybit: Bybit, path: str, **query: JsonValue) -> dict[str, Any]:
    body = ask_json(bybit, path, category="linear", **query)
    assert (body["retCode"], body["retMsg"]) == (0, "OK")
    value: dict[str, Any] = body["result"]
    return value


def test_klines_are_newest_first_and_text(bybit: Bybit) -> None:
    """Seven texts a row, falling start times, the first row still open."""
    rows = result(bybit, KLINE, symbol="BTCUSDT", interval="60")["list"]
    starts = [int(row[0]) for row in rows]
    assert len(rows) == 200
    assert starts == sorted(starts, reverse=True)
    assert starts[0] <= NOW_MS < starts[0] + HOUR_MS
    assert all(isinstance(value, str) for value in rows[0])
    assert len(rows[0]) == 7


def test_a_window_keeps_its_newest_rows(bybit: Bybit) -> None:
    """With start and end the rows next to the end come; with start alone those next to the start."""
    start = NOW_MS // HOUR_MS * HOUR_MS - 100 * HOUR_MS
    both = result(bybit, KLINE, symbol="BTCUSDT", interval="60", start=start, end=start + 50 * HOUR_MS, limit=5)
    alone = result(bybit, KLINE, symbol="BTCUSDT", interval="60", start=start, limit=5)
    assert [int(row[0]) for row in both["list"]] == [start + i * HOUR_MS for i in (50, 49, 48, 47, 46)]
    assert [int(row[0]) for row in alone["list"]] == [start + i * HOUR_MS for i in (4, 3, 2, 1, 0)]


def test_both_venues_show_nearly_the_same_closes(market: Market, bybit: Bybit) -> None:
    """Hourly closes on Binance and Bybit differ by a few basis points, never by none."""
    theirs = result(bybit, KLINE, symbol="ETHUSDT", interval="60", limit=1000)["list"][::-1]
    ours = ask_json(
        Binance(SeededBinance(market, "binance", SEED)),
        "/fapi/v1/klines",
        symbol="ETHUSDT",
        interval="1h",
        limit=1000,
    )
    difference = np.array([float(a[4]) / float(b[4]) - 1 for a, b in zip(ours, theirs, strict=True)])
    assert [row[0] for row in ours] == [int(row[0]) for row in theirs]
    assert 0 < np.abs(difference).mean() < np.abs(difference).max() < 6e-4


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (KLINE, {"category": "linear", "symbol": "NOPEUSDT", "interval": "60"}),
        (KLINE, {"category": "linear", "symbol": "BTCUSDT", "interval": "1h"}),
        (KLINE, {"category": "linear", "symbol": "BTCUSDT"}),
        (KLINE, {"symbol": "BTCUSDT", "interval": "60"}),
        (KLINE, {"category": "linear", "symbol": "BTCUSDT", "interval": "60", "limit": 1001}),
        (FUNDING, {"category": "linear", "symbol": "BTCUSDT", "startTime": NOW_MS - DAY_MS}),
        (INSTRUMENTS, {"category": "linear", "cursor": "nonsense"}),
    ],
)
def test_bad_requests_are_http_200_with_10001(bybit: Bybit, path: str, query: dict[str, Any]) -> None:
    """A mistake is in ``retCode``, not in the HTTP status."""
    reply = ask(bybit, path, **query)
    assert (reply.status, json.loads(reply.body)["retCode"]) == (200, 10001)


def test_funding_history_is_newest_first_and_pages_backward(bybit: Bybit) -> None:
    """Pages by ``endTime`` join without a hole."""
    times: list[int] = []
    end = NOW_MS
    for _ in range(3):
        rows = result(bybit, FUNDING, symbol="LPTUSDT", endTime=end, limit=50)["list"]
        times += [int(row["fundingRateTimestamp"]) for row in rows]
        end = times[-1] - 1
    assert len(times) == 150
    assert set(np.diff(np.array(times) // MINUTE_MS)) == {-60}


def test_instruments_page_by_cursor(bybit: Bybit) -> None:
    """Every trading symbol comes once; a closed one only when asked for."""
    seen: list[str] = []
    cursor = ""
    while True:
        page = result(bybit, INSTRUMENTS, limit=5, cursor=cursor)
        seen += [row["symbol"] for row in page["list"]]
        cursor = page["nextPageCursor"]
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 12
    assert "RNDRUSDT" not in seen
    assert [row["symbol"] for row in result(bybit, INSTRUMENTS, status="Closed")["list"]] == ["RNDRUSDT"]


@pytest.mark.parametrize(("symbol", "minutes"), [("BTCUSDT", 480), ("SOLUSDT", 240), ("LPTUSDT", 60)])
def test_the_funding_interval_is_in_minutes(bybit: Bybit, symbol: str, minutes: int) -> None:
    """Instruments say minutes, tickers whole hours, and the history agrees."""
    (row,) = result(bybit, INSTRUMENTS, symbol=symbol)["list"]
    (ticker,) = result(bybit, "/v5/market/tickers", symbol=symbol)["list"]
    times = [int(r["fundingRateTimestamp"]) for r in result(bybit, FUNDING, symbol=symbol, limit=2)["list"]]
    assert row["fundingInterval"] == minutes
    assert ticker["fundingIntervalHour"] == str(minutes // 60)
    assert round((times[0] - times[1]) / MINUTE_MS) == minutes


def test_instruments_and_tickers_have_the_recorded_members(bybit: Bybit, shared_data: Path) -> None:
    """The member names are exactly those of the recorded bodies."""
    import gzip  # noqa: PLC0415  only this test reads the recording

    instruments = json.loads(
        gzip.decompress((shared_data / "rest" / "bybit_v5_instruments-info_linear_20260809.json.gz").read_bytes())
    )
    tickers = json.loads((shared_data / "rest" / "bybit_v5_market_tickers_linear_BTCUSDT_20260908.json").read_text())
    (row,) = result(bybit, INSTRUMENTS, symbol="BTCUSDT")["list"]
    (ticker,) = result(bybit, "/v5/market/tickers", symbol="BTCUSDT")["list"]
    assert set(row) == set(instruments["result"]["list"][0])
    assert list(ticker) == list(tickers["result"]["list"][0])


def test_the_order_book(bybit: Bybit) -> None:
    """25 levels by default, sorted, not crossed."""
    book = result(bybit, "/v5/market/orderbook", symbol="BTCUSDT")
    bids, asks = [float(level[0]) for level in book["b"]], [float(level[0]) for level in book["a"]]
    assert len(bids) == len(asks) == 25
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


def test_too_many_requests_block_for_ten_minutes(market: Market) -> None:
    """The 601st request in 5 s is HTTP 403, and so is everything for ten minutes after the last try."""
    service = Bybit(SeededBybit(market, "bybit", SEED), enforce_limits=True)
    statuses = [ask(service, "/v5/market/time", now_ms=NOW_MS + i).status for i in range(602)]
    assert statuses == [200] * 600 + [403] * 2
    blocked = ask(service, "/v5/market/time", now_ms=NOW_MS + 9 * MINUTE_MS)
    assert (blocked.status, json.loads(blocked.body)["retMsg"]) == (403, "access too frequent")
    assert ask(service, "/v5/market/time", now_ms=NOW_MS + 11 * MINUTE_MS).status == 200


def test_the_time_is_the_simulated_time(bybit: Bybit) -> None:
    """Seconds, nanoseconds and the envelope agree."""
    body = ask_json(bybit, "/v5/market/time")
    assert body["result"] == {"timeSecond": str(NOW_MS // 1000), "timeNano": str(NOW_MS * 1_000_000)}
    assert body["time"] == NOW_MS
