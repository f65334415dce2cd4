"""Binance REST: row shapes, window rules, weights, limits, funding intervals, error codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mts_simulator.binance import Binance
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, to_ms
from mts_simulator.seeded import FUNDING_SWITCH_MS
from mts_simulator.seeded_binance import SeededBinance

from .conftest import NOW_MS, SEED, JsonValue, ask, ask_json

if TYPE_CHECKING:
    from mts_simulator.market import Market

KLINES = "/fapi/v1/klines"


@pytest.fixture(scope="module")
def binance(market: Market) -> Binance:
    return Binance(SeededBinance(market, "binance", SEED))


def klines(binance: Binance, **query: JsonValue) -> list[list[Any]]:
    rows: list[list[Any]] = ask_json(binance, KLINES, symbol="BTCUSDT", interval="1h", **query)
    return rows


def test_a_kline_has_twelve_columns(binance: Binance) -> None:
    """Times and the count are integers, everything else is text."""
    row = klines(binance, limit=1)[0]
    assert [type(value) for value in row] == [int, *[str] * 5, int, str, int, *[str] * 3]
    assert row[6] == row[0] + HOUR_MS - 1


def test_the_newest_kline_is_still_open(binance: Binance) -> None:
    """Without a window the last 500 come, the last of which contains now."""
    rows = klines(binance)
    assert len(rows) == 500
    assert rows[-1][0] <= NOW_MS <= rows[-1][6]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def test_a_start_gives_the_first_rows_an_end_the_last(binance: Binance) -> None:
    """``startTime`` counts forward, ``endTime`` alone backward; both bounds are inclusive."""
    start = NOW_MS // HOUR_MS * HOUR_MS - 100 * HOUR_MS
    forward = klines(binance, startTime=start, endTime=start + 50 * HOUR_MS, limit=10)
    backward = klines(binance, endTime=start, limit=10)
    assert [row[0] for row in forward] == [start + i * HOUR_MS for i in range(10)]
    assert [row[0] for row in backward] == [start - i * HOUR_MS for i in range(9, -1, -1)]


def test_pages_join_to_the_whole(binance: Binance) -> None:
    """Paging by the last open time sees every hour of 100 days once."""
    start, opens = NOW_MS - 100 * DAY_MS, []
    while page := klines(binance, startTime=start, limit=1000):
        opens += [row[0] for row in page]
        start = opens[-1] + 1
    assert len(opens) == 2400
    assert set(np.diff(opens)) == {HOUR_MS}


@pytest.mark.parametrize(
    ("limit", "weight"), [(99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_weights_of_klines(market: Market, limit: int, weight: int) -> None:
    """The weight used this minute is in the headers."""
    service = Binance(SeededBinance(market, "binance", SEED))
    reply = ask(service, KLINES, symbol="BTCUSDT", interval="1h", limit=limit)
    assert reply.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


def test_weight_adds_up_in_a_fixed_minute(market: Market) -> None:
    """The counter starts anew with the next minute."""
    service = Binance(SeededBinance(market, "binance", SEED))
    minute = NOW_MS // MINUTE_MS * MINUTE_MS
    used = [
        ask(service, "/fapi/v1/depth", now_ms=ms, symbol="BTCUSDT", limit=1000).headers["X-MBX-USED-WEIGHT-1M"]
        for ms in (minute, minute + 59_999, minute + 60_000)
    ]
    assert used == ["20", "40", "20"]


def test_too_much_weight_is_429_then_418(market: Market) -> None:
    """Above the budget 429; who goes on is banned until the moment the message names."""
    service = Binance(SeededBinance(market, "binance", SEED), enforce_limits=True)
    replies = [ask(service, "/fapi/v1/ticker/24hr") for _ in range(80)]
    statuses = [reply.status for reply in replies]
    assert statuses[:60] == [200] * 60
    assert statuses[60:75] == [429] * 15
    assert set(statuses[75:]) == {418}
    body = json.loads(replies[-1].body)
    until = int(body["msg"].split("banned until ")[1].split(".")[0])
    assert body["code"] == -1003
    assert until == NOW_MS + 2 * MINUTE_MS
    assert replies[-1].headers["Retry-After"] == "120"
    assert ask(service, "/fapi/v1/ping", now_ms=until).status == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "NOPE", "interval": "1h"}, -1121),
        ({"symbol": "USDTUSDT", "interval": "1h"}, -1121),
        ({"symbol": "BTCUSDT", "interval": "7h"}, -1120),
        ({"symbol": "BTCUSDT"}, -1102),
        ({"interval": "1h"}, -1102),
        ({"symbol": "BTCUSDT", "interval": "1h", "limit": 1501}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1h", "startTime": 2, "endTime": 1}, -1023),
        ({"symbol": "BTCUSDT", "interval": "1h", "startTime": "x"}, -1100),
    ],
)
def test_bad_requests(binance: Binance, query: dict[str, Any], code: int) -> None:
    """Each mistake is a 400 with Binance's code."""
    reply = ask(binance, KLINES, **query)
    assert (reply.status, json.loads(reply.body)["code"]) == (400, code)


def test_depth_is_sorted_and_not_crossed(binance: Binance) -> None:
    """Bids fall, asks rise, the best bid is below the best ask, sizes are positive."""
    book = ask_json(binance, "/fapi/v1/depth", symbol="ETHUSDT", limit=1000)
    bids, asks = ([(float(p), float(q)) for p, q in book[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 1000
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0][0] < asks[0][0]
    assert min(size for _, size in bids + asks) > 0
    assert book["lastUpdateId"] > 0


def test_depth_has_few_valid_limits(binance: Binance) -> None:
    """A limit of 7 is refused."""
    assert json.loads(ask(binance, "/fapi/v1/depth", symbol="BTCUSDT", limit=7).body)["code"] == -4021


def test_instruments_have_filters_and_kinds(binance: Binance) -> None:
    """Perpetuals, a delivery future and a delisted symbol; steps are in the filters."""
    rows = ask_json(binance, "/fapi/v1/exchangeInfo")["symbols"]
    kinds = {(row["contractType"], row["status"]) for row in rows}
    assert {("PERPETUAL", "TRADING"), ("CURRENT_QUARTER", "TRADING"), ("PERPETUAL", "SETTLING")} == kinds
    bitcoin = next(row for row in rows if row["symbol"] == "BTCUSDT")
    filters = {entry["filterType"]: entry for entry in bitcoin["filters"]}
    assert float(filters["PRICE_FILTER"]["tickSize"]) == 0.1
    assert float(filters["LOT_SIZE"]["stepSize"]) == 0.001
    assert "USDTUSDT" not in {row["symbol"] for row in rows}


def test_a_delivery_symbol_has_no_funding(binance: Binance) -> None:
    """Its rate is an empty string and its next funding 0."""
    row = ask_json(binance, "/fapi/v1/premiumIndex", symbol="BTCUSDT_270326")
    assert (row["lastFundingRate"], row["nextFundingTime"]) == ("", 0)


@pytest.mark.parametrize(("symbol", "hours"), [("BTCUSDT", 8), ("LPTUSDT", 4), ("ONEUSDT", 1)])
def test_funding_intervals(binance: Binance, symbol: str, hours: int) -> None:
    """Settlements are 8, 4 or 1 hours apart, a few ms past the hour."""
    rows = ask_json(binance, "/fapi/v1/fundingRate", symbol=symbol, limit=50)
    times = np.array([row["fundingTime"] for row in rows])
    assert len(rows) == 50
    assert set(np.diff(times // MINUTE_MS)) == {hours * 60}
    assert 0 < (times % HOUR_MS).max() < 20
    assert {row["rateType"] for row in rows} == {"Regular"}
    assert times[-1] <= NOW_MS
    next_time = ask_json(binance, "/fapi/v1/premiumIndex", symbol=symbol)["nextFundingTime"]
    assert next_time - times[-1] == pytest.approx(hours * HOUR_MS, abs=20)


def test_special_settlements_stand_between_the_regular_ones(binance: Binance) -> None:
    """ONE has one at 13:30 on the first day of a quarter; pages of any size hold it once."""
    start, end = to_ms(datetime(2025, 9, 30, tzinfo=UTC)), to_ms(datetime(2025, 10, 2, 23, 59, tzinfo=UTC))
    query: dict[str, Any] = {"symbol": "ONEUSDT", "endTime": end}
    whole = ask_json(binance, "/fapi/v1/fundingRate", startTime=start, limit=1000, **query)
    special = [row for row in whole if row["rateType"] == "Special"]
    assert [row["fundingTime"] for row in special] == [to_ms(datetime(2025, 10, 1, 13, 30, tzinfo=UTC))]
    assert len(whole) == 3 * 24 + 1
    paged, cursor = [], start
    while page := ask_json(binance, "/fapi/v1/fundingRate", startTime=cursor, limit=7, **query):
        paged += page
        cursor = page[-1]["fundingTime"] + 1
    assert paged == whole


def test_only_adjusted_symbols_are_in_funding_info(binance: Binance) -> None:
    """A symbol that settles every 8 hours is absent."""
    rows = {row["symbol"]: row["fundingIntervalHours"] for row in ask_json(binance, "/fapi/v1/fundingInfo")}
    assert rows == {"DOGEUSDT": 4, "TRXUSDT": 4, "LPTUSDT": 4, "ONEUSDT": 1}


def test_the_interval_changed_in_the_past(binance: Binance) -> None:
    """Before the switch every symbol settled every 8 hours, and the change shows in the history."""
    rows = ask_json(binance, "/fapi/v1/fundingRate", symbol="ONEUSDT", startTime=FUNDING_SWITCH_MS - DAY_MS, limit=12)
    steps = np.diff([row["fundingTime"] // HOUR_MS for row in rows])
    assert steps.tolist() == [8, 8, 8, *[1] * 8]


def test_without_times_the_latest_200_settlements_come(binance: Binance) -> None:
    """Ascending, the newest last."""
    rows = ask_json(binance, "/fapi/v1/fundingRate", symbol="BTCUSDT")
    assert len(rows) == 200
    assert NOW_MS - rows[-1]["fundingTime"] < 8 * HOUR_MS


def test_funding_does_not_depend_on_the_window(binance: Binance) -> None:
    """A settlement asked for alone equals the one in a long list."""
    rows = ask_json(binance, "/fapi/v1/fundingRate", symbol="ETHUSDT", startTime=NOW_MS - 30 * DAY_MS)
    middle = rows[40]
    alone = ask_json(
        binance,
        "/fapi/v1/fundingRate",
        symbol="ETHUSDT",
        startTime=middle["fundingTime"],
        endTime=middle["fundingTime"],
    )
    assert alone == [middle]


def test_compressed_funding(market: Market) -> None:
    """With ``funding_every_s`` settlements come that often."""
    service = Binance(SeededBinance(market, "binance", SEED, funding_every_s=60))
    rows = ask_json(service, "/fapi/v1/fundingRate", symbol="BTCUSDT", limit=5)
    assert set(np.diff([row["fundingTime"] // MINUTE_MS for row in rows])) == {1}
    mark = ask_json(service, "/fapi/v1/premiumIndex", symbol="BTCUSDT")
    assert 0 < mark["nextFundingTime"] - NOW_MS <= MINUTE_MS


def test_the_ticker_has_no_best_bid_or_ask(binance: Binance) -> None:
    """Futures tickers have 24 h statistics only."""
    row = ask_json(binance, "/fapi/v1/ticker/24hr", symbol="BTCUSDT")
    assert "bidPrice" not in row
    assert float(row["lowPrice"]) <= float(row["lastPrice"]) <= float(row["highPrice"])


def test_the_time_is_the_simulated_time(binance: Binance) -> None:
    """``/time`` tells the clock."""
    assert ask_json(binance, "/fapi/v1/time") == {"serverTime": NOW_MS}
