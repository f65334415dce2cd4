"""CoinGecko: plans and keys, the fallback from Pro, samples, ranking, error bodies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mts_dagster.settings import Settings
from mts_dagster.sources.coingecko import (
    CoinGecko,
    Uncovered,
    chunks,
    first_public_day,
    merge_uncovered,
    range_params,
)
from mts_dagster.sources.coingecko_wire import (
    points_frame,
    ranking_frame,
    read_chart,
    read_ranking,
    vendor_code,
)
from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    PlanLimitError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    UnauthorisedError,
    UnknownSymbolError,
)

from .loopback import START, FakeTime, MakeSettings, ScriptedServer, Seen

OpenClient = Callable[..., CoinGecko]
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TODAY = datetime(2026, 11, 20, tzinfo=UTC)
PONG = {"gecko_says": "(V3) To the Moon!"}
KEY = "CG-secretsecretsecret"


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def chart(*moments: datetime, price: float | None = 100.0) -> dict[str, list[list[float | None]]]:
    return {
        "prices": [[ms(moment), price] for moment in moments],
        "market_caps": [[ms(moment), 5000.0] for moment in moments],
        "total_volumes": [[ms(moment), 70.0] for moment in moments],
    }


def hourly(request: Seen) -> object:
    """Points every hour, both ends of the range included."""
    start, end = (datetime.fromtimestamp(int(request.query[side]), UTC) for side in ("from", "to"))
    first = start.replace(minute=0, second=0) + (HOUR if start.minute or start.second else timedelta())
    return chart(*(first + HOUR * at for at in range(int((end - first) / HOUR) + 1)))


@pytest.fixture
def open_client(
    server: ScriptedServer, second_server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime
) -> Iterator[OpenClient]:
    """A client whose public host is ``server`` and whose Pro host is ``second_server``."""
    opened: list[CoinGecko] = []

    def open_(**overrides: object) -> CoinGecko:
        urls = {"coingecko_url": server.url, "coingecko_pro_url": second_server.url}
        fast: dict[str, object] = {"coingecko_requests_per_minute": 10_000, "http_retries": 1}
        opened.append(CoinGecko(settings(**(urls | fast | overrides)), time_.clock))
        return opened[-1]

    def settings(**overrides: object) -> Settings:
        return make_settings(**overrides)

    yield open_
    for client in opened:
        client.close()


@pytest.mark.parametrize(
    ("plan", "header"), [("keyless", None), ("demo", "x-cg-demo-api-key"), ("pro", "x-cg-pro-api-key")]
)
def test_each_plan_sends_its_key_to_its_host(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient, plan: str, header: str | None
) -> None:
    """Keyless sends none; a key travels in the plan's header, never in the URL."""
    server.answer(PONG)
    second_server.answer(PONG)
    assert open_client(coingecko_plan=plan, coingecko_api_key=KEY).ping() == plan
    (seen,) = second_server.seen if plan == "pro" else server.seen
    sent = {name.lower(): value for name, value in seen.headers.items() if "cg" in name.lower()}
    assert sent == ({} if header is None else {header: KEY})
    assert seen.query == {}


@pytest.mark.parametrize("plan", ["demo", "pro"])
def test_a_plan_without_its_key_names_the_setting(open_client: OpenClient, plan: str) -> None:
    """Said before any request."""
    with pytest.raises(UnauthorisedError, match=f"plan {plan} needs a key; set MTS_COINGECKO_API_KEY"):
        open_client(coingecko_plan=plan)


def test_keyless_paces_itself(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> None:
    """Without a key, five a minute: one at once, then one every 15 s."""
    server.answer(PONG)
    with CoinGecko(make_settings(coingecko_url=server.url), time_.clock) as client:
        for _ in range(3):
            client.ping()
    assert time_.slept == [15.0, 15.0]


def pro(open_client: OpenClient, **overrides: object) -> CoinGecko:
    return open_client(coingecko_plan="pro", coingecko_api_key=KEY, **overrides)


@pytest.mark.parametrize("status", [500, 502, 503, 520])
def test_pro_falls_back_when_it_fails(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient, status: int
) -> None:
    """A 5xx of the Pro host: the public host answers, without the Pro key."""
    second_server.answer("down", status)
    server.answer(PONG)
    assert pro(open_client).ping() == "public_fallback"
    assert KEY not in str(server.seen)


def test_pro_falls_back_when_nobody_listens(server: ScriptedServer, open_client: OpenClient, dead_url: str) -> None:
    """A refused connection counts as unavailable."""
    server.answer(PONG)
    assert pro(open_client, coingecko_pro_url=dead_url).ping() == "public_fallback"


def test_pro_falls_back_when_its_name_is_unknown(server: ScriptedServer, open_client: OpenClient) -> None:
    """So does a name that does not resolve."""
    server.answer(PONG)
    assert pro(open_client, coingecko_pro_url="http://pro.invalid/api").ping() == "public_fallback"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_pro_never_falls_back_on_a_refusal(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient, status: int
) -> None:
    """A no is a no: the public host is not asked."""
    second_server.answer("no", status, Retry_After="3600")
    server.answer(PONG)
    with pytest.raises(SourceError):
        pro(open_client).ping()
    assert server.seen == []


def test_pro_never_falls_back_on_bad_content(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient
) -> None:
    """A web page with 200 is not an outage either."""
    second_server.answer("<html></html>")
    with pytest.raises(BadContentError):
        pro(open_client).ping()
    assert server.seen == []


def test_pro_is_tried_again_on_its_timer(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient, time_: FakeTime
) -> None:
    """While its circuit rests, Pro is not asked; after 30 s one probe goes out and Pro answers again."""
    second_server.answer("down", 503).answer(PONG)
    server.answer(PONG)
    client = pro(open_client, http_retries=0, http_circuit_failures=1, http_circuit_reset_s=30)
    assert [client.ping(), client.ping()] == ["public_fallback", "public_fallback"]
    assert len(second_server.seen) == 1
    time_.now += 31
    assert [client.ping(), client.ping()] == ["pro", "pro"]


def test_fallback_clamps_the_range_and_declares_what_is_missing(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient
) -> None:
    """Of 400 days the public host serves whole days of the past 365; the rest is declared, rows are tagged."""
    second_server.answer("down", 503)
    server.respond(hourly)
    start = TODAY - 400 * DAY
    history = pro(open_client, http_circuit_failures=1).price_points("bitcoin", start, TODAY)
    covered_from = datetime(2025, 11, 21, tzinfo=UTC)
    assert history.uncovered == (Uncovered(start, covered_from, "the public_fallback service keeps 365 days"),)
    assert history.frame["sampled_at"].min() == covered_from
    assert set(history.frame["source_tier"]) == {"public_fallback"}


def test_pro_serves_all_of_history(second_server: ScriptedServer, open_client: OpenClient) -> None:
    """With Pro, 400 days are 5 requests and nothing is missing."""
    second_server.respond(hourly)
    history = pro(open_client).price_points("bitcoin", TODAY - 400 * DAY, TODAY)
    assert (len(history.frame), history.uncovered, len(second_server.seen)) == (400 * 24, (), 5)
    assert set(history.frame["source_tier"]) == {"pro"}


def test_a_window_out_of_reach_asks_for_nothing(server: ScriptedServer, open_client: OpenClient) -> None:
    """Keyless, two years ago: no request, an empty frame, and one declared part."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    history = open_client().price_points("bitcoin", start, start + 200 * DAY)
    assert (len(history.frame), server.seen) == (0, [])
    assert [(part.start, part.end) for part in history.uncovered] == [(start, start + 200 * DAY)]


def test_points_are_asked_in_pieces_of_ninety_days(server: ScriptedServer, open_client: OpenClient) -> None:
    """Beyond 90 days CoinGecko would send daily points; 200 days are 90, 90 and 20, every hour once."""
    server.respond(hourly)
    start = TODAY - 200 * DAY
    history = open_client().price_points("bitcoin", start, TODAY)
    assert history.frame["sampled_at"].tolist() == [start + HOUR * at for at in range(200 * 24)]
    lengths = [(int(seen.query["to"]) - int(seen.query["from"]) + 1) / 86_400 for seen in server.seen]
    assert lengths == [90, 90, 20]


def test_points_outside_of_the_window_stay_out(server: ScriptedServer, open_client: OpenClient) -> None:
    """CoinGecko may send a point before and after; the window is half-open."""
    moments = [TODAY - HOUR, TODAY, TODAY + HOUR - timedelta(milliseconds=1), TODAY + HOUR]
    server.answer(chart(*moments))
    history = open_client().price_points("bitcoin", TODAY, TODAY + HOUR)
    assert history.frame["sampled_at"].tolist() == moments[1:3]


def test_the_newest_point_keeps_its_own_time(server: ScriptedServer, open_client: OpenClient) -> None:
    """'Now' is a sample like any other: kept at 11:59:41, known a minute later; nothing is floored."""
    now = datetime(2026, 11, 20, 11, 59, 41, 250_000, tzinfo=UTC)
    server.answer(chart(TODAY + 11 * HOUR, now))
    last = open_client().price_points("bitcoin", TODAY, TODAY + DAY).frame.iloc[-1]
    assert (last["sampled_at"], last["available_at"]) == (now, now + timedelta(seconds=60))


def test_a_window_that_ends_later_than_now_ends_now(server: ScriptedServer, open_client: OpenClient) -> None:
    """The future is not asked for, and a point stamped later than now is not believed."""
    server.answer(chart(TODAY + 11 * HOUR, START + timedelta(seconds=1)))
    history = open_client().price_points("bitcoin", TODAY, TODAY + DAY)
    assert int(server.seen[0].query["to"]) < START.timestamp()
    assert history.frame["sampled_at"].tolist() == [TODAY + 11 * HOUR]


def test_samples_without_a_price_are_dropped_and_counted() -> None:
    """A null or zero price is no sample; a null volume is a null beside a price."""
    answer = chart(TODAY, TODAY + HOUR, TODAY + 2 * HOUR)
    answer["prices"][0][1] = None
    answer["prices"][1][1] = 0.0
    answer["total_volumes"][2][1] = None
    samples, dropped = read_chart(answer)
    assert (samples, dropped) == ([(ms(TODAY + 2 * HOUR), 100.0, 5000.0, None)], 2)


def test_daily_points_where_hourly_were_asked_for_are_declared(server: ScriptedServer, open_client: OpenClient) -> None:
    """After a fallback the spacing may be coarser; the part says so instead of passing for hourly."""
    server.answer(chart(*(TODAY - 10 * DAY + DAY * at for at in range(10))))
    history = open_client().price_points("bitcoin", TODAY - 10 * DAY, TODAY)
    assert history.coarse == ((TODAY - 10 * DAY, TODAY),)


def test_recorded_day_of_points(recordings: Path) -> None:
    """289 irregular samples of a real day fit the contract: steps of 140 to 470 s, none lost."""
    answer = json.loads((recordings / "rest/coingecko_market_chart_1day_20230315.json").read_text())
    samples, dropped = read_chart(answer)
    frame = points_frame([("keyless", samples)], coin="matic-network", delay_s=60)
    steps = frame["sampled_at"].diff().dropna().dt.total_seconds()
    assert (len(frame), dropped) == (289, 0)
    assert 140 < steps.min() < 141
    assert 469 < steps.max() < 470


def test_recorded_ranking(recordings: Path) -> None:
    """The ranking of 2023-07-28: bitcoin, ethereum and tether lead; 250 rows fit the contract."""
    rows = json.loads(
        gzip.decompress((recordings / "rest/coingecko_coins_markets_usd_250_20230728.json.gz").read_bytes())
    )
    now = datetime(2023, 7, 28, 20, 3, tzinfo=UTC)
    frame = ranking_frame(read_ranking(rows), top_n=3, now=now, source_tier="keyless")
    assert len(frame) == 250
    assert frame.loc[frame["in_universe"], "coin"].tolist() == ["bitcoin", "ethereum", "tether"]
    assert frame["symbol"].iloc[0] == "BTC"
    assert set(frame["date"]) == {datetime(2023, 7, 28)}  # noqa: DTZ001 - a calendar day has no zone
    assert set(frame["available_at"]) == {now}


def test_tracked_coins_are_ranked_beside_the_top(server: ScriptedServer, open_client: OpenClient) -> None:
    """A coin outside the top 2 is asked for by its id and keeps its rank, but is not in the universe."""

    def coin(name: str, rank: int) -> dict[str, object]:
        numbers = {"current_price": 2.5, "market_cap": 1e9 / rank, "total_volume": None}
        return {"id": name, "symbol": name[:3], "name": name.title(), "market_cap_rank": rank} | numbers

    server.answer([coin("bitcoin", 1), coin("ethereum", 2)]).answer([coin("binancecoin", 5)])
    frame = open_client().markets(2, also=["bitcoin", "binancecoin"])
    assert frame[["coin", "rank", "in_universe"]].to_numpy().tolist() == [
        ["bitcoin", 1, True],
        ["ethereum", 2, True],
        ["binancecoin", 5, False],
    ]
    assert server.seen[1].query["ids"] == "binancecoin"


@pytest.mark.parametrize("top_n", [0, 251])
def test_a_ranking_out_of_range_is_rejected(open_client: OpenClient, top_n: int) -> None:
    """Said before any request."""
    with pytest.raises(BadRequestError, match="use 1 to 250"):
        open_client().markets(top_n)


def test_candles_are_stamped_with_their_close(server: ScriptedServer, open_client: OpenClient) -> None:
    """A 30-minute candle of 12:00 opened at 11:30; one that closes later than now is left out."""
    noon, later = TODAY + 12 * HOUR, TODAY + 12.5 * HOUR
    server.answer([[ms(noon), 1, 4, 0.5, 2], [ms(later), 2, 2, 2, 2], [ms(noon - HOUR), None, 1, 1, 1]])
    frame = open_client().ohlc("bitcoin", 1)
    assert frame[["open_time", "close_time", "open", "high", "low", "close"]].to_numpy().tolist() == [
        [TODAY + 11.5 * HOUR, noon, 1.0, 4.0, 0.5, 2.0]
    ]


def test_candles_of_other_lengths_are_rejected(open_client: OpenClient) -> None:
    """CoinGecko offers a fixed list of days."""
    with pytest.raises(BadRequestError, match="use one of 1, 7, 14, 30, 90, 180, 365"):
        open_client().ohlc("bitcoin", 5)


@pytest.mark.parametrize(
    "body",
    [
        {"error_code": 10012},
        {"status": {"error_code": 10012, "error_message": "too far"}},
        {"error": {"error_code": 10012}},
        {"error": {"status": {"error_code": 10012, "error_message": "too far"}}},
        {"status": {"error_code": "10012"}},
    ],
)
def test_codes_are_found_wherever_they_stand(body: object) -> None:
    """The body has put its code into four places over the years."""
    assert vendor_code(body) == 10012


@pytest.mark.parametrize(
    "body", [{"error": "coin not found"}, {"status": "ok"}, [], None, {"status": {"error_code": 0}}]
)
def test_bodies_without_a_code(body: object) -> None:
    """Plain text, lists, nulls and zero are no vendor code that means anything."""
    assert vendor_code(body) in (None, 0)


@pytest.mark.parametrize(
    ("status", "code", "kind", "advice"),
    [
        (401, 10002, UnauthorisedError, "MTS_COINGECKO_API_KEY"),
        (401, 10005, PlanLimitError, "larger plan"),
        (400, 10010, UnauthorisedError, "MTS_COINGECKO_PLAN=pro"),
        (400, 10011, UnauthorisedError, "MTS_COINGECKO_PLAN=demo"),
        (401, 10012, PlanLimitError, "less history"),
        (403, 1020, BlockedByLocationError, "another network"),
    ],
)
def test_vendor_codes(
    *,
    server: ScriptedServer,
    open_client: OpenClient,
    status: int,
    code: int,
    kind: type[SourceError],
    advice: str,
) -> None:
    """Each code is the error and the advice that fits it; none is repeated."""
    server.answer({"status": {"error_code": code, "error_message": "..."}}, status)
    with pytest.raises(kind, match=advice):
        open_client().ping()
    assert len(server.seen) == 1


def test_recorded_error_bodies(server: ScriptedServer, open_client: OpenClient, recordings: Path) -> None:
    """The recorded 429 (119 s) is waited for; the recorded 10010 and 10011 are wrong keys."""
    lines = [json.loads(line) for line in (recordings / "rest/error_bodies.jsonl").read_text().splitlines()]
    limit, wrong_host, wrong_key = (line for line in lines if line["service"] == "coingecko")
    client = open_client(http_retries=0)
    server.answer(limit["body"], limit["http_status"], Retry_After=limit["headers"]["retry-after"])
    with pytest.raises(RateLimitedError) as caught:
        client.ping()
    assert caught.value.retry_at == START + timedelta(seconds=119)
    for recorded in (wrong_host, wrong_key):
        server.forget()
        server.answer(recorded["body"], recorded["http_status"])
        with pytest.raises(UnauthorisedError):
            client.ping()


def test_an_unknown_coin_says_what_an_id_is(server: ScriptedServer, open_client: OpenClient) -> None:
    """A ticker is a frequent mistake for an id."""
    server.answer({"error": "coin not found"}, 404)
    with pytest.raises(UnknownSymbolError, match=r"coingecko bnb .*e\.g\. binancecoin for BNB"):
        open_client().price_points("bnb", TODAY - DAY, TODAY)


def test_an_outage_of_both_hosts_is_reported(
    server: ScriptedServer, second_server: ScriptedServer, open_client: OpenClient
) -> None:
    """When the stand-in fails too, the error is about the public host."""
    second_server.answer("down", 503)
    server.answer("down", 503)
    with pytest.raises(SourceUnavailableError) as caught:
        pro(open_client).ping()
    assert caught.value.url.startswith(server.url)


def test_chunks_cover_without_overlap() -> None:
    """A window of 181 days in pieces of 90: 90, 90, 1."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    pieces = chunks(start, start + 181 * DAY, 90 * DAY)
    assert [(end - begin) / DAY for begin, end in pieces] == [90, 90, 1]
    assert [pieces[at][1] for at in range(2)] == [pieces[at + 1][0] for at in range(2)]
    assert chunks(start, start, 90 * DAY) == []
    assert chunks(start, start - DAY, 90 * DAY) == []


def test_the_first_public_day_is_whole() -> None:
    """365 days before 12:00:30 lies in 2025-11-20; the first whole day is the next one."""
    assert first_public_day(START) == datetime(2025, 11, 21, tzinfo=UTC)


def test_a_range_ends_a_second_before_its_end() -> None:
    """Both ends of CoinGecko's range are included; a fraction of a second is not lost."""
    assert range_params((TODAY, TODAY + HOUR))["to"] == TODAY.timestamp() + 3599
    assert range_params((TODAY, TODAY + timedelta(seconds=1.5)))["to"] == TODAY.timestamp() + 1


def test_uncovered_parts_that_touch_are_joined() -> None:
    """Two neighbours with one reason are one; a gap or another reason keeps them apart."""
    one, two, three = (Uncovered(TODAY + DAY * at, TODAY + DAY * (at + 1), "plan") for at in (0, 1, 3))
    assert merge_uncovered([one, two, three]) == (Uncovered(TODAY, TODAY + 2 * DAY, "plan"), three)
