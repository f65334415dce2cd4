"""CoinGecko: plans and keys, granularity, points that are not on the grid, trailing volume, error bodies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, to_ms
from mts_simulator.coingecko import CoinGecko
from mts_simulator.coins import COINS_BY_ID
from mts_simulator.seeded_coingecko import SeededCoinGecko

from .conftest import NOW_MS, SEED, JsonValue, ask, ask_json

if TYPE_CHECKING:
    from pathlib import Path

    from mts_simulator.market import Market

PRO = {"x-cg-pro-api-key": "CG-anything"}
DEMO = {"x-cg-demo-api-key": "CG-anything"}
RANGE = "/coins/bitcoin/market_chart/range"
CHART = "/coins/bitcoin/market_chart"


@pytest.fixture(scope="module")
def public(market: Market) -> CoinGecko:
    return CoinGecko(SeededCoinGecko(market, SEED))


@pytest.fixture(scope="module")
def pro(market: Market) -> CoinGecko:
    return CoinGecko(SeededCoinGecko(market, SEED), pro=True)


def times_of(service: CoinGecko, path: str = CHART, **query: JsonValue) -> np.ndarray:
    headers = PRO if service.name.endswith("pro") else {}
    body = ask_json(service, path, headers=headers, vs_currency="usd", **query)
    return np.array([time for time, _ in body["prices"]])


@pytest.fixture(scope="module")
def recorded_errors(shared_data: Path) -> dict[int, Any]:
    lines = (shared_data / "rest" / "error_bodies.jsonl").read_text(encoding="utf-8").splitlines()
    bodies = [json.loads(json.loads(line)["body"]) for line in lines if json.loads(line)["service"] == "coingecko"]
    return {body.get("error_code") or body["status"]["error_code"]: body for body in bodies}


def test_the_last_day_has_points_every_five_minutes_off_the_grid(public: CoinGecko) -> None:
    """Steps vary between 130 and 470 s around 300 s; no point lies on the grid by habit."""
    times = times_of(public, days=1)
    steps = np.diff(times)[:-1]
    assert 285 <= len(times) <= 290
    assert steps.min() >= 130_000
    assert steps.max() <= 470_000
    assert np.median(steps) == pytest.approx(300_000, rel=0.05)
    assert (times % (5 * MINUTE_MS) == 0).mean() < 0.05


@pytest.mark.parametrize(("days", "step"), [(2, HOUR_MS), (90, HOUR_MS), (91, DAY_MS), (365, DAY_MS)])
def test_spacing_follows_the_length(public: CoinGecko, days: int, step: int) -> None:
    """Up to 90 days hourly, beyond daily."""
    times = times_of(public, days=days)
    assert np.median(np.diff(times)) == pytest.approx(step, rel=0.05)


def test_the_last_point_is_now(public: CoinGecko) -> None:
    """A chart that reaches now ends with now, wherever the grid is."""
    for days in (1, 30, 365):
        assert times_of(public, days=days)[-1] == NOW_MS


def test_daily_points_lie_at_midnight(public: CoinGecko) -> None:
    """All daily points but the last are at 00:00 UTC."""
    assert (times_of(public, days=200)[:-1] % DAY_MS == 0).all()


def test_a_past_day_is_hourly(public: CoinGecko) -> None:
    """One day that is not today has hourly points, a day up to now has 5-minute ones."""
    past = times_of(public, RANGE, **{"from": (NOW_MS - 3 * DAY_MS) // 1000, "to": (NOW_MS - 2 * DAY_MS) // 1000})
    today = times_of(public, RANGE, **{"from": (NOW_MS - DAY_MS) // 1000 + 1, "to": NOW_MS // 1000 + 60})
    assert np.median(np.diff(past)) == pytest.approx(HOUR_MS, rel=0.05)
    assert np.median(np.diff(today)) == pytest.approx(5 * MINUTE_MS, rel=0.05)


def test_range_takes_iso_dates(pro: CoinGecko) -> None:
    """``from`` and ``to`` may be ISO dates."""
    iso = times_of(pro, RANGE, **{"from": "2020-03-01", "to": "2020-03-03T12:00:00+00:00"})
    start, end = datetime(2020, 3, 1, tzinfo=UTC), datetime(2020, 3, 3, 12, tzinfo=UTC)
    unix = times_of(pro, RANGE, **{"from": to_ms(start) / 1000, "to": to_ms(end) / 1000})
    assert iso.tolist() == unix.tolist()
    assert len(iso) in (60, 61)


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-300, -5), length=st.integers(2, 80), shift=st.integers(0, DAY_MS))
def test_a_point_does_not_depend_on_the_window(public: CoinGecko, start: int, length: int, shift: int) -> None:
    """Points of a window are those of a wider one of the same spacing, value for value."""
    low = (NOW_MS + start * DAY_MS + shift) // 1000
    high = min(low + length * 86_400, NOW_MS // 1000 - 1)
    wide: dict[str, Any] = {"from": low - 5 * 86_400, "to": high}
    query: dict[str, Any] = {"vs_currency": "usd", "interval": "daily"}
    narrow: dict[str, Any] = {"from": low, "to": high}
    narrow_points = ask_json(public, RANGE, **query, **narrow)
    wide_points = ask_json(public, RANGE, **query, **wide)
    assert narrow_points["prices"] == [point for point in wide_points["prices"] if point[0] >= low * 1000]
    assert narrow_points["total_volumes"] == wide_points["total_volumes"][-len(narrow_points["prices"]) :]


def test_the_three_arrays_share_their_times(public: CoinGecko) -> None:
    """Prices, caps and volumes are pairs of the same milliseconds; the cap is price times supply."""
    body = ask_json(public, CHART, vs_currency="usd", days=7)
    times = [[time for time, _ in body[name]] for name in ("prices", "market_caps", "total_volumes")]
    assert times[0] == times[1] == times[2]
    supply = body["market_caps"][0][1] / body["prices"][0][1]
    assert supply == pytest.approx(COINS_BY_ID["bitcoin"].supply, rel=0.1)


def test_volume_is_a_trailing_total(public: CoinGecko) -> None:
    """Neighbouring hourly volumes differ little: each is a total of 24 hours."""
    volumes = np.array([volume for _, volume in ask_json(public, CHART, vs_currency="usd", days=30)["total_volumes"]])
    assert np.abs(np.diff(volumes) / volumes[1:]).max() < 0.25
    assert volumes.min() > 1e9


def test_public_users_see_365_days(public: CoinGecko) -> None:
    """Beyond a year the answer is 401 with 10012 under ``error.status``; Pro may."""
    for path, query in (
        (CHART, {"days": "max"}),
        (CHART, {"days": 366}),
        (RANGE, {"from": 1_600_000_000, "to": 1_600_100_000}),
    ):
        for headers in ({}, DEMO):
            reply = ask(public, path, headers=headers, vs_currency="usd", **query)
            assert reply.status == 401
            assert json.loads(reply.body)["error"]["status"]["error_code"] == 10012


def test_pro_users_see_all_history(pro: CoinGecko) -> None:
    """``days=max`` begins with 2017."""
    assert times_of(pro, days="max")[0] == to_ms(datetime(2017, 1, 1, tzinfo=UTC))


def test_a_range_of_exactly_365_days_is_allowed(public: CoinGecko) -> None:
    """A client that counted 365 days a moment ago is not refused."""
    start = (NOW_MS - 365 * DAY_MS) // 1000 - 60
    assert len(times_of(public, RANGE, **{"from": start, "to": NOW_MS // 1000})) > 360


@pytest.mark.parametrize(("host", "headers", "code"), [("public", PRO, 10010), ("pro", DEMO, 10011)])
def test_a_key_of_the_other_host_is_refused_as_recorded(
    request: pytest.FixtureRequest,
    recorded_errors: dict[int, Any],
    host: str,
    headers: dict[str, str],
    code: int,
) -> None:
    """Status 400 and the recorded text."""
    reply = ask(request.getfixturevalue(host), "/ping", headers=headers)
    body = json.loads(reply.body)
    assert reply.status == 400
    assert body["error_code"] == code
    assert body["status"] == recorded_errors[code]["status"]


def test_the_pro_host_wants_a_key(pro: CoinGecko) -> None:
    """No key on the Pro host: 401 with 10002."""
    reply = ask(pro, "/ping")
    assert (reply.status, json.loads(reply.body)["error_code"]) == (401, 10002)


def test_the_rate_limit_answers_as_recorded(market: Market, recorded_errors: dict[int, Any]) -> None:
    """The 101st call in a minute is a 429 with ``Retry-After``; a minute later all is well."""
    service = CoinGecko(SeededCoinGecko(market, SEED), enforce_limits=True)
    replies = [ask(service, "/ping", now_ms=NOW_MS + i) for i in range(101)]
    assert [reply.status for reply in replies] == [200] * 100 + [429]
    assert json.loads(replies[-1].body) == recorded_errors[429]
    assert replies[-1].headers["Retry-After"] == "60"
    assert ask(service, "/ping", now_ms=NOW_MS + MINUTE_MS).status == 200


def test_markets_are_ranked_by_cap(public: CoinGecko) -> None:
    """Rows fall by market cap and carry their rank; the members are those of the service."""
    rows = ask_json(public, "/coins/markets", vs_currency="usd")
    caps = [row["market_cap"] for row in rows]
    assert caps == sorted(caps, reverse=True)
    assert [row["market_cap_rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["id"] == "bitcoin"
    assert {"tether", "ethereum", "binancecoin", "solana", "ripple", "dogecoin", "cardano"} <= {
        row["id"] for row in rows
    }


def test_markets_have_the_recorded_members(public: CoinGecko, shared_data: Path) -> None:
    """No member is invented: each exists in the recorded rows."""
    import gzip  # noqa: PLC0415  only this test reads the recording

    path = shared_data / "rest" / "coingecko_coins_markets_usd_250_20230728.json.gz"
    recorded = json.loads(gzip.decompress(path.read_bytes()))[0]
    row = ask_json(public, "/coins/markets", vs_currency="usd", ids="bitcoin")[0]
    assert set(row) <= set(recorded)


def test_markets_paging_and_filters(public: CoinGecko) -> None:
    """Pages do not overlap; ``ids`` and ``symbols`` choose."""
    first = ask_json(public, "/coins/markets", vs_currency="usd", per_page=3, page=1)
    second = ask_json(public, "/coins/markets", vs_currency="usd", per_page=3, page=2)
    assert len({row["id"] for row in first + second}) == 6
    chosen = ask_json(public, "/coins/markets", vs_currency="usd", ids="tether,cardano")
    assert {row["id"] for row in chosen} == {"tether", "cardano"}


@pytest.mark.parametrize(
    ("days", "length", "most"), [(1, 30 * MINUTE_MS, 48), (7, 4 * HOUR_MS, 42), (90, 4 * DAY_MS, 23)]
)
def test_ohlc_candles_are_stamped_with_their_close(public: CoinGecko, days: int, length: int, most: int) -> None:
    """30 minutes, 4 hours or 4 days; no volume; nothing open."""
    rows = ask_json(public, "/coins/bitcoin/ohlc", vs_currency="usd", days=days)
    assert most - 2 <= len(rows) <= most
    assert all(len(row) == 5 and row[0] % length == 0 and row[0] <= NOW_MS for row in rows)
    assert all(row[3] <= min(row[1], row[4]) <= max(row[1], row[4]) <= row[2] for row in rows)


def test_ohlc_intervals_are_for_paid_plans(public: CoinGecko, pro: CoinGecko) -> None:
    """``interval`` is 10005 on the public host and works on the Pro host."""
    path = "/coins/bitcoin/ohlc"
    query: dict[str, Any] = {"vs_currency": "usd", "days": 7, "interval": "hourly"}
    reply = ask(public, path, **query)
    assert (reply.status, json.loads(reply.body)["error_code"]) == (401, 10005)
    assert len(ask_json(pro, path, headers=PRO, **query)) in (167, 168)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/coins/nosuchcoin/market_chart", {"vs_currency": "usd", "days": 1}, 404),
        (CHART, {"days": 1}, 422),
        (CHART, {"vs_currency": "xyz", "days": 1}, 400),
        (CHART, {"vs_currency": "usd"}, 422),
        (RANGE, {"vs_currency": "usd", "from": 2, "to": 1}, 400),
        ("/coins/bitcoin/ohlc", {"vs_currency": "usd", "days": 3}, 422),
        (CHART, {"vs_currency": "usd", "days": 1, "interval": "5m"}, 401),
        ("/nothing", {}, 404),
    ],
)
def test_bad_requests(public: CoinGecko, path: str, query: dict[str, Any], status: int) -> None:
    """Each mistake has its status and a JSON body."""
    reply = ask(public, path, **query)
    assert reply.status == status
    assert json.loads(reply.body)


def test_the_key_endpoint_reports_the_plan(pro: CoinGecko) -> None:
    """Only the Pro host has it."""
    body = ask_json(pro, "/key", headers=PRO)
    assert body["rate_limit_request_per_minute"] == 500
    assert body["current_remaining_monthly_calls"] <= body["monthly_call_credit"]
