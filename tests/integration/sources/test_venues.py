"""Candles and funding of both venues, through HTTP, with everything that goes wrong there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mts_dagster.lake.slices import Slice
from mts_dagster.schemas import FundingRates, Klines
from mts_dagster.sources.binance import Binance
from mts_dagster.sources.bybit import Bybit
from mts_dagster.sources.errors import BadContentError, RateLimitedError, SourceError, SourceUnavailableError
from mts_dagster.sources.fetch import KlineWindow, fetch_klines
from mts_dagster.sources.history import funding
from mts_simulator import Fault, SimulatorConfig

from .conftest import NOW, World

HOUR = timedelta(hours=1)
START = datetime(2025, 12, 1, tzinfo=UTC)
Client = type[Binance] | type[Bybit]
BOTH = pytest.mark.parametrize("client", [Binance, Bybit])


@BOTH
def test_three_months_of_hours_without_a_gap(world: World, client: Client) -> None:
    """Every closed hour up to 12:20 once, in the contract; the open hour of 12:00 is not among them."""
    with client(world.settings(), world.clock) as venue:
        frame = venue.klines("bitcoin", "BTCUSDT", "1h", START, NOW + timedelta(days=2))
    Klines.validate(frame)
    assert frame["open_time"].tolist() == pd.date_range(START, NOW - HOUR, freq="h").floor("h").tolist()
    assert frame["close_time"].max() == NOW.replace(minute=0)


@BOTH
def test_two_halves_equal_the_whole(world: World, client: Client) -> None:
    """Windows that touch neither lose nor repeat a candle at their seam."""
    middle = START + 37 * HOUR
    with client(world.settings(), world.clock) as venue:
        whole = venue.klines("ethereum", "ETHUSDT", "1h", START, START + 100 * HOUR)
        halves = [
            venue.klines("ethereum", "ETHUSDT", "1h", START, middle),
            venue.klines("ethereum", "ETHUSDT", "1h", middle, START + 100 * HOUR),
        ]
    pd.testing.assert_frame_equal(pd.concat(halves, ignore_index=True), whole)


@BOTH
def test_funding_settles_every_eight_hours(world: World, client: Client) -> None:
    """400 days of settlements, floored to the minute, without a gap."""
    with client(world.settings(), world.clock) as venue:
        frame = venue.funding_rates("BTCUSDT", NOW - timedelta(days=400), NOW)
    assert set(frame["settled_at"].diff().dropna()) == {timedelta(hours=8)}
    assert len(frame) == 1200
    assert (frame["settled_at_ms"] - frame["settled_at"].astype("int64") // 1000).between(0, 1000).all()


@pytest.mark.parametrize(
    ("coin", "binance_hours", "bybit_hours"),
    [("bitcoin", 8, 8), ("solana", 8, 4), ("livepeer", 4, 1), ("harmony", 1, 4)],
)
def test_funding_of_both_venues_with_their_own_intervals(
    world: World, coin: str, binance_hours: int, bybit_hours: int
) -> None:
    """Hundreds of days, several pages in each venue's own direction: every settlement once, none without interval."""
    first = datetime(2025, 4, 1, tzinfo=UTC)
    days = [Slice(first, first + timedelta(days=300), (coin,))]
    with Binance(world.settings(), world.clock) as binance, Bybit(world.settings(), world.clock) as bybit:
        frame = funding(
            [binance, bybit], days, FundingRates.empty(), {"harmony": "ONE", "livepeer": "LPT"}, delay_s=60
        ).frame
    FundingRates.validate(frame)
    for venue, hours in (("binance", binance_hours), ("bybit", bybit_hours)):
        regular = frame[(frame["venue"] == venue) & (frame["kind"] == "regular")]
        expected = pd.date_range(first, periods=300 * 24 // hours, freq=f"{hours}h", unit="us")
        assert regular["settled_at"].tolist() == expected.tolist()
        assert set(regular["interval_hours"]) == {float(hours)}
    special = frame.loc[frame["kind"] == "special", "settled_at"].dt.strftime("%m-%d %H:%M").tolist()
    assert special == (["04-01 13:30", "07-01 13:30", "10-01 13:30", "01-01 13:30"] if coin == "harmony" else [])


def test_the_switch_of_an_interval_shows_in_the_settlements(world: World) -> None:
    """Until the end of February 2025 all settled every 8 hours; the first rate of an hour is for an hour."""
    switch = datetime(2025, 3, 1, tzinfo=UTC)
    days = [Slice(switch - timedelta(days=1), switch + timedelta(days=1), ("harmony",))]
    with Binance(world.settings(), world.clock) as binance:
        frame = funding([binance], days, FundingRates.empty(), {"harmony": "ONE"}, delay_s=60).frame
    assert frame["interval_hours"].tolist() == [8.0] * 4 + [1.0] * 23


def test_recorded_funding_of_both_venues(start_world: Callable[[SimulatorConfig], World], recordings: Path) -> None:
    """Binance's 1,247 recorded settlements and Bybit's 21, digit for digit; the first of each has no interval."""
    world = start_world(SimulatorConfig(replay=recordings, now=datetime(2026, 9, 9, tzinfo=UTC)))
    days = [Slice(datetime(2024, 12, 1, tzinfo=UTC), datetime(2026, 9, 9, tzinfo=UTC), ("bitcoin",))]
    with Binance(world.settings(), world.clock) as binance, Bybit(world.settings(), world.clock) as bybit:
        frame = funding([binance, bybit], days, FundingRates.empty(), {}, delay_s=60).frame.set_index("settled_at")
    recorded = pd.read_csv(recordings / "funding" / "binance_usdm_BTCUSDT_funding_2025-2026.csv")
    rates = pd.Series(recorded["funding_rate"].tolist(), pd.to_datetime(recorded["funding_time"], utc=True))
    ours = frame[frame["venue"] == "binance"]
    assert ours["funding_rate"].reindex(rates.index).tolist() == rates.tolist()
    assert ours["interval_hours"].isna().tolist() == [True] + [False] * (len(ours) - 1)
    assert set(ours["interval_hours"].dropna()) == {8.0}
    raw = pd.read_csv(recordings / "funding" / "binance_usdm_BTCUSDT_fundingRate_raw_2026Q1.csv")
    stamps = pd.to_datetime(raw["timestamp"], unit="ms", utc=True)
    assert ours["stamped_at"].reindex(stamps.dt.floor("min")).tolist() == stamps.tolist()
    body = json.loads((recordings / "rest" / "bybit_v5_market_funding_history_BTCUSDT_20260908.json").read_text())
    told = [float(row["fundingRate"]) for row in body["result"]["list"]][::-1]
    assert frame.loc[frame["venue"] == "bybit", "funding_rate"].tolist() == told


@BOTH
def test_a_symbol_that_does_not_exist(world: World, client: Client) -> None:
    """A typed error that names it."""
    with (
        client(world.settings(), world.clock) as venue,
        pytest.raises(SourceError, match="NOPEUSDT"),
    ):
        venue.klines("nope", "NOPEUSDT", "1h", START, START + HOUR)


FAULTS = {
    "server error": Fault("status", path="*kline*", status=503),
    "server error with a time": Fault("status", path="*kline*", status=503, retry_after="7"),
    "limit with a time": Fault("status", path="*kline*", status=429, retry_after="7"),
    "limit without a time": Fault("status", path="*kline*", status=429),
    "silence": Fault("timeout", path="*kline*"),
    "reset": Fault("reset", path="*kline*"),
    "web page": Fault("html", path="*kline*"),
    "torn body": Fault("truncate", path="*kline*"),
}


@BOTH
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_one_fault_in_the_middle_changes_nothing(world: World, client: Client, fault: Fault) -> None:
    """The second page is spoiled once: the candles are the same as without it."""
    window = ("bitcoin", "BTCUSDT", "1h", START, START + 1500 * HOUR)
    with client(world.settings(http_timeout_s=0.5), world.clock) as venue:
        expected = venue.klines(*window)
        world.simulator.faults.add(Fault(**{**vars(fault), "skip": 1}))
        pd.testing.assert_frame_equal(venue.klines(*window), expected)
    assert world.simulator.faults.pending() == []


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("status", status=500, times=None), SourceUnavailableError),
        (Fault("reset", times=None), SourceUnavailableError),
        (Fault("html", times=None), BadContentError),
        (Fault("truncate", times=None), BadContentError),
        (Fault("status", status=429, retry_after="3600", times=None), RateLimitedError),
    ],
)
def test_a_fault_that_stays_is_a_typed_error(
    world: World, client: Client, fault: Fault, kind: type[SourceError]
) -> None:
    """After the retries: what it is, about which symbol, and no rows."""
    world.simulator.faults.add(Fault(**{**vars(fault), "path": "*kline*"}))
    with client(world.settings(), world.clock) as venue, pytest.raises(kind, match="BTCUSDT 1h"):
        venue.klines("bitcoin", "BTCUSDT", "1h", START, START + HOUR)


def test_many_windows_keep_to_the_limits(start_world: Callable[[SimulatorConfig], World]) -> None:
    """With the venues' limits enforced, a year of three coins at both venues meets no 429, 418 or 403."""
    world = start_world(SimulatorConfig(now=NOW, enforce_limits=True))
    windows = [
        KlineWindow(coin, venue, "1h", NOW - timedelta(days=365), NOW)
        for coin in ("bitcoin", "ethereum", "binancecoin", "tether")
        for venue in ("binance", "bybit")
    ]
    settings = world.settings()
    with Binance(settings, world.clock) as binance, Bybit(settings, world.clock) as bybit:
        outcomes = fetch_klines(windows, {"binance": binance, "bybit": bybit})
    assert [outcome.error for outcome in outcomes] == [None] * 8
    hours = {(outcome.window.coin, outcome.window.venue): len(outcome.frame) for outcome in outcomes}
    assert set(hours.values()) == {0, 8759}
    assert {coin for (coin, _), count in hours.items() if count == 0} == {"tether"}
    assert {request.status for request in world.simulator.requests} == {200}


def test_recorded_candles(start_world: Callable[[SimulatorConfig], World], recordings: Path) -> None:
    """The recordings, served as Binance would: 30 days equal the file, the candle in progress stays out."""
    recorded = pd.read_csv(recordings / "ohlcv/binance_usdm_BTCUSDT_1d_2024-2026.csv")
    opens = pd.to_datetime(recorded["timestamp"], unit="ms", utc=True)
    in_progress = opens.iloc[-1]
    world = start_world(SimulatorConfig(replay=recordings))
    with Binance(world.settings(), world.clock) as venue:
        frame = venue.klines(
            "bitcoin", "BTCUSDT", "1d", in_progress - timedelta(days=30), in_progress + timedelta(days=5)
        )
    assert frame["open_time"].max() == in_progress - timedelta(days=1)
    assert frame["close"].tolist() == recorded["close"].iloc[-31:-1].astype(float).tolist()
    assert len(frame) == 30
