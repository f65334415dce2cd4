"""Bybit: paging backwards, the open candle, codes under HTTP 200, overruns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mts_dagster.sources.bybit import Bybit, read_funding
from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    UnknownSymbolError,
)
from mts_dagster.sources.klines import funding_frame

from .loopback import START, FakeTime, MakeSettings, ScriptedServer, Seen

HOUR_MS = 3_600_000
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_MS = 1_767_225_600_000


@pytest.fixture
def bybit(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> Iterator[Bybit]:
    with Bybit(make_settings(bybit_url=server.url, http_retries=1), time_.clock) as client:
        yield client


def enveloped(result: object) -> dict[str, object]:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": FIRST_MS}


def rejected(code: int, message: str = "") -> dict[str, object]:
    return {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": FIRST_MS}


class Exchange:
    """Hourly candles from ``FIRST`` on, newest first, the open one among them."""

    def __init__(self, server_ms: int) -> None:
        self.server_ms = server_ms

    def __call__(self, request: Seen) -> object:
        if request.path == "/v5/market/time":
            return enveloped({"timeSecond": str(self.server_ms // 1000), "timeNano": str(self.server_ms * 1_000_000)})
        start, end = int(request.query["start"]), min(int(request.query["end"]), self.server_ms)
        begin = max(FIRST_MS, -(-start // HOUR_MS) * HOUR_MS)
        opens = sorted(range(begin, end + 1, HOUR_MS), reverse=True)[: int(request.query["limit"])]
        rows = [[str(open_ms), "100", "110", "90", "105", "3.5", "350"] for open_ms in opens]
        return enveloped({"category": "linear", "symbol": request.query["symbol"], "list": rows})


def test_pages_backwards_and_covers_every_hour(server: ScriptedServer, bybit: Bybit) -> None:
    """2,500 hours come newest first in three pages, and are stored oldest first without a gap."""
    server.respond(Exchange(FIRST_MS + 9000 * HOUR_MS))
    frame = bybit.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=2500))
    assert frame["open_time"].tolist() == [FIRST + timedelta(hours=at) for at in range(2500)]
    ends = [int(seen.query["end"]) for seen in server.seen if seen.path == "/v5/market/kline"]
    assert ends == [FIRST_MS + at * HOUR_MS - 1 for at in (2500, 1500, 500)]


def test_the_open_candle_never_enters(server: ScriptedServer, bybit: Bybit) -> None:
    """At 03:30 of the venue's clock the candle of 03:00 is left out."""
    server.respond(Exchange(FIRST_MS + 3 * HOUR_MS + HOUR_MS // 2))
    frame = bybit.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(days=1))
    assert frame["open_time"].max() == FIRST + timedelta(hours=2)


@pytest.mark.parametrize(("interval", "sent"), [("1m", "1"), ("1h", "60"), ("4h", "240"), ("1d", "D")])
def test_intervals_in_the_venues_words(server: ScriptedServer, bybit: Bybit, interval: str, sent: str) -> None:
    """Minutes as numbers, days as a letter."""
    server.respond(Exchange(FIRST_MS + 9000 * HOUR_MS))
    bybit.klines("bitcoin", "BTCUSDT", interval, FIRST, FIRST + timedelta(minutes=1))
    assert server.seen[-1].query["interval"] == sent


def test_a_page_that_stands_still_ends(server: ScriptedServer, bybit: Bybit) -> None:
    """A service that repeats newer candles is bad content, not an endless loop."""
    late: object = [[str(FIRST_MS + 9999 * HOUR_MS), "1", "1", "1", "1", "1", "1"]] * 1000
    clock: object = {"timeNano": f"{FIRST_MS * 2}000000"}
    server.respond(lambda request: enveloped(clock if "time" in request.path else {"list": late}))
    with pytest.raises(BadContentError, match="does not move backwards"):
        bybit.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=3000))


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (10001, "Not supported symbols", UnknownSymbolError),
        (10001, "params error: interval invalid", BadRequestError),
        (10009, "IP address located in a restricted region", BlockedByLocationError),
        (10029, "The requested symbol is invalid", UnknownSymbolError),
        (110001, "something new", BadRequestError),
    ],
)
def test_final_codes_under_http_200(
    server: ScriptedServer, bybit: Bybit, code: int, message: str, kind: type[SourceError]
) -> None:
    """The code decides, and such a request is not repeated."""
    server.answer(rejected(code, message))
    with pytest.raises(kind) as caught:
        bybit.server_time()
    assert (type(caught.value), len(server.seen)) == (kind, 1)


@pytest.mark.parametrize("code", [10000, 10016])
def test_passing_codes_are_repeated(server: ScriptedServer, bybit: Bybit, code: int) -> None:
    """A timeout or restart of the server passes."""
    server.answer(rejected(code)).answer(enveloped({"timeNano": "1767225600000000000"}))
    assert bybit.server_time() == FIRST


def test_passing_codes_open_the_circuit(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> None:
    """A server that keeps restarting is left alone like one that cannot be reached."""
    server.answer(rejected(10016))
    settings = make_settings(bybit_url=server.url, http_retries=0, http_circuit_failures=2)
    with Bybit(settings, time_.clock) as client:
        for message in ("error 10016", "error 10016", "left alone"):
            with pytest.raises(SourceUnavailableError, match=message):
                client.server_time()


def test_the_endpoint_limit_waits_for_its_reset(server: ScriptedServer, bybit: Bybit, time_: FakeTime) -> None:
    """10006 with a reset time in the header: 1.5 s are waited."""
    reset = str(round(START.timestamp() * 1000) + 1500)
    server.answer(rejected(10006), X_Bapi_Limit_Reset_Timestamp=reset).answer(enveloped({"timeNano": "0"}))
    bybit.server_time()
    assert time_.slept == [1.5]


def test_an_overrun_stops_everything_for_ten_minutes(server: ScriptedServer, bybit: Bybit) -> None:
    """HTTP 403 'access too frequent': a typed error until 12:10:30, and no further request before."""
    server.answer("<html>403 Forbidden: access too frequent</html>", 403)
    for _ in range(2):
        with pytest.raises(RateLimitedError) as caught:
            bybit.server_time()
        assert caught.value.retry_at == START + timedelta(minutes=10)
    assert len(server.seen) == 1


def test_another_403_is_a_refused_country(server: ScriptedServer, bybit: Bybit) -> None:
    """The firewall's page names a country: final, and the setting for a regional host is named."""
    server.answer("<html>The distribution is configured to block access from your country.</html>", 403)
    with pytest.raises(BlockedByLocationError, match="MTS_BYBIT_URL"):
        bybit.server_time()


def test_recorded_limit_body(server: ScriptedServer, bybit: Bybit, recordings: Path, time_: FakeTime) -> None:
    """The recorded 'Too many visits' is a limit without a time: 30 s are waited."""
    lines = (recordings / "rest/error_bodies.jsonl").read_text().splitlines()
    recorded = next(line for line in map(json.loads, lines) if line["service"] == "bybit")
    server.answer(recorded["body"]).answer(enveloped({"timeNano": "0"}))
    bybit.server_time()
    assert time_.slept == [30.0]


def test_instruments_follow_the_cursor(server: ScriptedServer, bybit: Bybit) -> None:
    """The list has more than one page; the next one is asked for until the cursor is empty."""

    def instrument(symbol: str) -> dict[str, object]:
        return {
            "symbol": symbol,
            "contractType": "LinearPerpetual",
            "status": "Trading",
            "baseCoin": symbol[:3],
            "quoteCoin": "USDT",
            "priceFilter": {"tickSize": "0.10"},
            "lotSizeFilter": {"qtyStep": "0.001", "minNotionalValue": "5"},
        }

    server.answer(enveloped({"list": [instrument("BTCUSDT")], "nextPageCursor": "page%3D2"}))
    server.answer(enveloped({"list": [instrument("ETHUSDT")], "nextPageCursor": ""}))
    assert [entry.symbol for entry in bybit.perpetuals()] == ["BTCUSDT", "ETHUSDT"]
    assert server.seen[1].query["cursor"] == "page%3D2"


def test_funding_pages_backwards(server: ScriptedServer, bybit: Bybit) -> None:
    """450 settlements come in three pages by their end time, with a start in every request."""
    settled = [FIRST_MS + at * 8 * HOUR_MS for at in range(450)]

    def reply(request: Seen) -> object:
        start, end = int(request.query["startTime"]), int(request.query["endTime"])
        newest = [moment for moment in reversed(settled) if start <= moment <= end][:200]
        return enveloped({"list": [{"fundingRateTimestamp": str(at), "fundingRate": "-0.0001"} for at in newest]})

    server.respond(reply)
    frame = bybit.funding_rates("BTCUSDT", FIRST, FIRST + timedelta(hours=8 * 450))
    assert frame["settled_at_ms"].tolist() == settled
    assert frame["mark_price"].isna().all()
    assert len(server.seen) == 3


def test_recorded_funding(recordings: Path) -> None:
    """21 recorded settlements, newest first, become ascending rows every 8 hours."""
    answer = json.loads((recordings / "rest/bybit_v5_market_funding_history_BTCUSDT_20260908.json").read_text())
    frame = funding_frame("BTCUSDT", read_funding(answer["result"]))
    assert len(frame) == 21
    assert frame["settled_at"].iloc[0] == datetime(2026, 9, 2, tzinfo=UTC)
    assert frame["funding_rate"].iloc[-1] == 0.00005769
    assert set(frame["settled_at"].diff().dropna()) == {timedelta(hours=8)}
