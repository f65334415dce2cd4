"""Binance: paging, the open candle, weights, bans, codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mts_dagster.sources.binance import Binance, kline_weight, next_minute
from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    UnknownSymbolError,
)

from .loopback import START, FakeTime, MakeSettings, ScriptedServer, Seen

HOUR_MS = 3_600_000
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_MS = 1_767_225_600_000


@pytest.fixture
def binance(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> Iterator[Binance]:
    with Binance(make_settings(binance_url=server.url, http_retries=1), time_.clock) as client:
        yield client


def row(open_ms: int) -> list[object]:
    numbers = ["100", "110", "90", "105", "3.5", open_ms + HOUR_MS - 1, "350", 7, "1", "100", "0"]
    return [open_ms, *numbers]


class Exchange:
    """Hourly candles from ``FIRST`` to the venue's time, the newest one still open."""

    def __init__(self, server_ms: int, listed_ms: int = FIRST_MS) -> None:
        self.server_ms = server_ms
        self.listed_ms = listed_ms

    def __call__(self, request: Seen) -> object:
        if request.path == "/fapi/v1/time":
            return {"serverTime": self.server_ms}
        start, end = int(request.query["startTime"]), int(request.query["endTime"])
        begin = max(self.listed_ms, -(-start // HOUR_MS) * HOUR_MS)
        opens = range(begin, min(end, self.server_ms) + 1, HOUR_MS)
        return [row(open_ms) for open_ms in opens][: int(request.query["limit"])]


def test_pages_forward_and_covers_every_hour(server: ScriptedServer, binance: Binance) -> None:
    """2,500 hours come in three pages of 1000, 1000 and 500, without a gap or a repetition."""
    server.respond(Exchange(FIRST_MS + 9000 * HOUR_MS))
    frame = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=2500))
    assert frame["open_time"].tolist() == [FIRST + timedelta(hours=at) for at in range(2500)]
    pages = [seen.query for seen in server.seen if seen.path == "/fapi/v1/klines"]
    assert [page["limit"] for page in pages] == ["1000", "1000", "500"]
    assert [int(page["startTime"]) for page in pages] == [
        FIRST_MS,
        FIRST_MS + 1000 * HOUR_MS,
        FIRST_MS + 2000 * HOUR_MS,
    ]


def test_the_window_is_half_open(server: ScriptedServer, binance: Binance) -> None:
    """A candle that opens at the end of the window belongs to the next one."""
    server.respond(Exchange(FIRST_MS + 9000 * HOUR_MS))
    frame = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=2))
    assert frame["open_time"].tolist() == [FIRST, FIRST + timedelta(hours=1)]


def test_the_open_candle_never_enters(server: ScriptedServer, binance: Binance) -> None:
    """At 03:30 of the venue's clock the candle of 03:00 is left out, although ours shows November."""
    server.respond(Exchange(FIRST_MS + 3 * HOUR_MS + HOUR_MS // 2))
    frame = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(days=1))
    assert frame["open_time"].max() == FIRST + timedelta(hours=2)


def test_a_candle_enters_the_moment_it_closes(server: ScriptedServer, binance: Binance) -> None:
    """At 03:00:00.000 the candle of 02:00 has closed; a millisecond earlier it has not."""
    server.respond(Exchange(FIRST_MS + 3 * HOUR_MS))
    closed = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(days=1))
    server.forget()
    server.respond(Exchange(FIRST_MS + 3 * HOUR_MS - 1))
    still_open = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(days=1))
    assert (len(closed), len(still_open)) == (3, 2)


def test_a_window_before_the_listing_starts_with_the_listing(server: ScriptedServer, binance: Binance) -> None:
    """Binance jumps to the first candle there is; nothing is made up before it."""
    server.respond(Exchange(FIRST_MS + 9000 * HOUR_MS, listed_ms=FIRST_MS + 1500 * HOUR_MS))
    frame = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=1600))
    assert frame["open_time"].min() == FIRST + timedelta(hours=1500)
    assert len(frame) == 100


def test_a_window_in_the_future_asks_for_nothing(server: ScriptedServer, binance: Binance) -> None:
    """Only the clock is asked, and the frame is empty."""
    server.respond(Exchange(FIRST_MS))
    frame = binance.klines("bitcoin", "BTCUSDT", "1h", FIRST + timedelta(days=1), FIRST + timedelta(days=2))
    assert (len(frame), [seen.path for seen in server.seen]) == (0, ["/fapi/v1/time"])


def test_a_page_that_stands_still_ends(server: ScriptedServer, binance: Binance) -> None:
    """A service that repeats old candles is bad content, not an endless loop."""
    stale = [row(FIRST_MS - HOUR_MS)] * 1000
    server.respond(lambda request: {"serverTime": FIRST_MS * 2} if "time" in request.path else stale)
    with pytest.raises(BadContentError, match="does not move forward"):
        binance.klines("bitcoin", "BTCUSDT", "1h", FIRST, FIRST + timedelta(hours=3000))


@pytest.mark.parametrize(("limit", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1500, 10)])
def test_weights_of_pages(limit: int, weight: int) -> None:
    """The documented steps."""
    assert kline_weight(limit) == weight


def test_pauses_when_the_address_has_used_its_weight(server: ScriptedServer, binance: Binance, time_: FakeTime) -> None:
    """At 2160 of 2400 the next request waits for the next minute: 12:00:30 to 12:01:01."""
    server.answer({"serverTime": FIRST_MS}, X_MBX_USED_WEIGHT_1M="2160").answer({"serverTime": FIRST_MS})
    binance.server_time()
    assert time_.slept == []
    binance.server_time()
    assert time_.slept == [31.0]


def test_a_limit_without_a_time_waits_for_the_next_minute(
    server: ScriptedServer, binance: Binance, time_: FakeTime
) -> None:
    """A 429 without Retry-After: weights count in fixed minutes."""
    server.answer({"code": -1003, "msg": "Too many requests."}, 429).answer({"serverTime": FIRST_MS})
    binance.server_time()
    assert time_.slept == [31.0]


def test_a_ban_in_the_text_holds_for_every_session(
    server: ScriptedServer, binance: Binance, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """A 418 with 'banned until' in its text: nobody asks again before, in this or another session."""
    until = START + timedelta(hours=2)
    text = f"Way too many requests; IP(1.2.3.4) banned until {round(until.timestamp() * 1000)}. Use the websocket."
    server.answer({"code": -1003, "msg": text}, 418)
    with pytest.raises(RateLimitedError, match="banned") as caught:
        binance.server_time()
    assert caught.value.retry_at == until
    with (
        Binance(make_settings(binance_url=server.url), time_.clock) as other,
        pytest.raises(RateLimitedError, match="2026-11-20 14:00:30 UTC"),
    ):
        other.perpetuals()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": -1121, "msg": "Invalid symbol."}, UnknownSymbolError),
        (400, {"code": -1120, "msg": "Invalid interval."}, BadRequestError),
        (400, {"code": -1000, "msg": "An unknown error occurred."}, SourceUnavailableError),
        (403, "<html>forbidden</html>", BlockedByLocationError),
        (503, {"code": -1008, "msg": "Server is overloaded."}, SourceUnavailableError),
    ],
)
def test_codes(server: ScriptedServer, binance: Binance, status: int, body: object, kind: type[SourceError]) -> None:
    """Each code is the error that a user would act on."""
    server.answer(body, status)
    with pytest.raises(kind) as caught:
        binance.server_time()
    assert type(caught.value) is kind


def test_recorded_refusal_by_location(server: ScriptedServer, binance: Binance, recordings: Path) -> None:
    """The recorded 451 is final and names the setting to change."""
    lines = (recordings / "rest/error_bodies.jsonl").read_text().splitlines()
    recorded = next(line for line in map(json.loads, lines) if line["service"] == "binance")
    server.answer(recorded["body"], recorded["http_status"])
    with pytest.raises(BlockedByLocationError, match="MTS_KLINE_VENUES"):
        binance.server_time()
    assert len(server.seen) == 1


def test_funding_pages_forward(server: ScriptedServer, binance: Binance) -> None:
    """1,200 settlements a few ms after the hour come in two pages."""
    settled = [FIRST_MS + at * 8 * HOUR_MS + at % 15 for at in range(1200)]

    def reply(request: Seen) -> object:
        start, end = int(request.query["startTime"]), int(request.query["endTime"])
        inside = [moment for moment in settled if start <= moment <= end]
        return [{"symbol": "BTCUSDT", "fundingTime": at, "fundingRate": "0.0001", "markPrice": "9"} for at in inside][
            :1000
        ]

    server.respond(reply)
    frame = binance.funding_rates("BTCUSDT", FIRST, FIRST + timedelta(hours=8 * 1200))
    assert frame["settled_at_ms"].tolist() == settled
    assert frame["settled_at"].tolist() == [FIRST + timedelta(hours=8 * at) for at in range(1200)]
    assert set(frame["rate_type"]) == {"Regular"}
    assert len(server.seen) == 2


def test_recorded_funding(recordings: Path) -> None:
    """The raw recording is up to 14 ms late; floored, it lies on the hour."""
    text = (recordings / "funding/binance_usdm_BTCUSDT_fundingRate_raw_2026Q1.csv").read_text().splitlines()
    late_ms = [int(line.split(",")[0]) % 60_000 for line in text[1:]]
    assert 0 < max(late_ms) <= 14


def test_next_minute_has_a_second_of_margin() -> None:
    """From any second of a minute to the first second of the next."""
    assert next_minute(datetime(2026, 1, 1, 23, 59, 59, 5, tzinfo=UTC)) == datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)
