"""CoinGecko through HTTP: plans, the 365 days, the fallback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mts_dagster.schemas import CoinUniverse, PricePoints
from mts_dagster.sources.coingecko import CoinGecko
from mts_dagster.sources.errors import UnauthorisedError, UnknownSymbolError
from mts_simulator import Fault

from .conftest import NOW, World

DAY = timedelta(days=1)


def test_keyless_serves_a_year_of_hours(world: World) -> None:
    """The whole days of the past year, hourly, and what is older is declared instead of refused."""
    with CoinGecko(world.settings(), world.clock) as client:
        history = client.price_points("bitcoin", NOW - 400 * DAY, NOW)
    PricePoints.validate(history.frame)
    (missing,) = history.uncovered
    assert missing.end == datetime(2025, 3, 5, tzinfo=UTC)
    steps = history.frame["sampled_at"].diff().dropna()
    assert steps.max() < timedelta(minutes=75)
    assert history.frame["sampled_at"].min() < missing.end + timedelta(hours=1)
    assert history.frame["sampled_at"].is_unique
    assert (history.coarse, history.dropped) == ((), 0)


def test_pro_serves_five_years(world: World) -> None:
    """With a Pro key nothing is missing and every row says pro."""
    settings = world.settings(coingecko_plan="pro", coingecko_api_key="CG-" + "p" * 24)
    with CoinGecko(settings, world.clock) as client:
        history = client.price_points("ethereum", NOW - 5 * 365 * DAY, NOW)
    assert history.uncovered == ()
    assert set(history.frame["source_tier"]) == {"pro"}
    assert history.frame["sampled_at"].diff().max() < timedelta(minutes=75)


def test_fallback_to_the_public_host(world: World) -> None:
    """Pro is down: 90 days come from the public host, which never sees the key, and rows say so."""
    key = "CG-" + "p" * 24
    world.simulator.faults.add(Fault("status", service="coingecko_pro", status=503, times=None))
    settings = world.settings(coingecko_plan="pro", coingecko_api_key=key)
    with CoinGecko(settings, world.clock) as client:
        history = client.price_points("bitcoin", NOW - 90 * DAY, NOW)
    assert set(history.frame["source_tier"]) == {"public_fallback"}
    assert key not in str([request.headers for request in world.simulator.requests.of("coingecko")])


def test_a_wrong_key_is_a_matter_of_settings(world: World) -> None:
    """The Pro host refuses the key: no fallback, and the advice names the setting."""
    world.simulator.faults.add(
        Fault("status", service="coingecko_pro", status=401, body='{"status":{"error_code":10002}}', times=None)
    )
    settings = world.settings(coingecko_plan="pro", coingecko_api_key="wrong")
    with (
        CoinGecko(settings, world.clock) as client,
        pytest.raises(UnauthorisedError, match="MTS_COINGECKO_API_KEY"),
    ):
        client.price_points("bitcoin", NOW - DAY, NOW)
    assert world.simulator.requests.of("coingecko") == []


def test_a_ticker_is_not_an_id(world: World) -> None:
    """BTC is no CoinGecko id."""
    with (
        CoinGecko(world.settings(), world.clock) as client,
        pytest.raises(UnknownSymbolError, match="coingecko btc"),
    ):
        client.price_points("btc", NOW - DAY, NOW)


def test_ranking_with_tracked_coins(world: World) -> None:
    """The top three and a tracked coin beyond them, as of the simulated day."""
    with CoinGecko(world.settings(), world.clock) as client:
        frame = client.markets(3, also=["solana"])
    CoinUniverse.validate(frame)
    assert frame["in_universe"].tolist() == [True, True, True, False]
    assert frame["coin"].iloc[-1] == "solana"
    assert set(frame["date"].dt.strftime("%Y-%m-%d")) == {"2026-03-04"}


@pytest.mark.parametrize(("days", "length"), [(1, timedelta(minutes=30)), (30, timedelta(hours=4)), (90, 4 * DAY)])
def test_candles_touch_each_other(world: World, days: int, length: timedelta) -> None:
    """The length that we assume is the distance of the closes; none closes later than now."""
    with CoinGecko(world.settings(), world.clock) as client:
        frame = client.ohlc("bitcoin", days)
    assert (frame["close_time"].diff().dropna() == length).all()
    assert frame["close_time"].max() <= NOW + timedelta(minutes=1)
    assert len(frame) > 10
