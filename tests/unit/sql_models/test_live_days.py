"""Days made of what the sidecar saw: arbitrage and market structure, with the hours that were covered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from mts_dagster.defs.sql_models.assets import ended
from mts_dagster.lake.slices import Slice
from mts_dagster.sql_models import Project

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]
DAY, NEXT = "2026-05-01", "2026-05-02"


def seen(book: Add, *moments: str) -> None:
    """Both exchanges were sampled at these times of the day."""
    for moment in moments:
        for exchange in ("binance", "bybit"):
            book(exchange, f"{DAY} {moment}")


def test_a_day_of_opportunities(book: Add, opportunity: Add, build: Build, select: Select) -> None:
    """Counts, medians, the sum of the feasible ones; the 90th percentile of 1, 2, 6 lies 0.8 of the way from 2 to 6."""
    seen(book, "10:00:00", "10:00:30", "10:01:00")
    opportunity(f"{DAY} 10:00:01", 1.0, 10.0, lifetime_ms=200.0)
    opportunity(f"{DAY} 10:00:02", 2.0, 30.0, lifetime_ms=900.0, net_bps_after_1000ms=0.5)
    opportunity(f"{DAY} 10:00:03", 6.0, 500.0, lifetime_ms=4000.0, feasible=False, net_bps_after_1000ms=3.0)
    build(DAY, NEXT)
    (row,) = select("select * from marts.arbitrage_daily")
    assert row == {
        "coin": "bitcoin",
        "date": date(2026, 5, 1),
        "kind": "spread",
        "hours_covered": pytest.approx(2 / 60),
        "opportunities": 3,
        "feasible_opportunities": 2,
        "lasting_opportunities": 1,
        "lifetime_median_ms": 900.0,
        "peak_net_median_bps": 2.0,
        "peak_net_p90_bps": pytest.approx(5.2),
        "peak_net_max_bps": 6.0,
        "net_sum_usd": 40.0,
        "best_buy_exchange": "bybit",
        "best_sell_exchange": "binance",
        "available_at": datetime(2026, 5, 2, 0, 1, tzinfo=UTC),
    }


def test_a_quiet_day_has_a_row(book: Add, build: Build, select: Select) -> None:
    """Nothing opened is a finding; a day that was not seen has no row."""
    seen(book, "10:00:00")
    build("2026-04-30", NEXT)
    (row,) = select("select * from marts.arbitrage_daily")
    assert (row["date"], row["opportunities"], row["net_sum_usd"]) == (date(2026, 5, 1), 0, 0.0)
    assert (row["lifetime_median_ms"], row["best_buy_exchange"]) == (None, None)


def test_one_exchange_alone_covers_nothing(book: Add, build: Build, select: Select) -> None:
    """Without a second book there is nothing to compare, in whichever minute."""
    book("binance", f"{DAY} 10:00:00")
    book("bybit", f"{DAY} 10:01:00")
    build(DAY, NEXT)
    assert select("select * from marts.arbitrage_daily") == []


def test_the_best_pair_is_the_one_with_the_largest_sum(
    book: Add, opportunity: Add, build: Build, select: Select
) -> None:
    """Two of 30 USD beat one of 50; what was not feasible does not count."""
    seen(book, "10:00:00")
    opportunity(f"{DAY} 10:00:01", 1.0, 50.0)
    for second in (2, 3):
        opportunity(f"{DAY} 10:00:0{second}", 1.0, 30.0, buy_exchange="binance", sell_exchange="bybit")
    opportunity(f"{DAY} 10:00:04", 1.0, 90.0, feasible=False)
    build(DAY, NEXT)
    (row,) = select("select best_buy_exchange, best_sell_exchange from marts.arbitrage_daily")
    assert tuple(row.values()) == ("binance", "bybit")


def test_funding_and_spread_stand_apart(book: Add, opportunity: Add, build: Build, select: Select) -> None:
    """An opportunity of funding has no part in the spreads, and its own coverage."""
    seen(book, "10:00:00")
    opportunity(f"{DAY} 10:00:01", 5.0, 50.0, kind="funding")
    build(DAY, NEXT)
    rows = select("select kind, opportunities, hours_covered from marts.arbitrage_daily order by kind")
    assert [tuple(row.values()) for row in rows] == [("funding", 1, 0.0), ("spread", 0, pytest.approx(1 / 60))]


def test_instruments_without_a_coin_are_left_out(book: Add, opportunity: Add, build: Build, select: Select) -> None:
    """A strategy decides on coins."""
    for exchange in ("binance", "bybit"):
        book(exchange, f"{DAY} 10:00:00", coin=None)
    opportunity(f"{DAY} 10:00:01", 5.0, 50.0, coin=None)
    build(DAY, NEXT)
    assert (
        select("select coin from marts.arbitrage_daily union all select coin from marts.market_structure_daily") == []
    )


def test_a_day_of_books(book: Add, build: Build, select: Select) -> None:
    """Means over all samples; the hours tell how long the imbalance lasted: two to the bids, one to the asks."""
    book("binance", f"{DAY} 00:00:00", 0.8, impact_buy_10k_bps=1.0, impact_sell_10k_bps=2.0)
    book("binance", f"{DAY} 00:00:30", 0.4, liquidity_score=60.0)
    book("binance", f"{DAY} 05:10:00", 0.2)
    book("binance", f"{DAY} 23:59:59", -0.2, impact_buy_10k_bps=2.0, impact_sell_10k_bps=3.0)
    build(DAY, NEXT)
    (row,) = select("select * from marts.market_structure_daily")
    assert row == {
        "coin": "bitcoin",
        "exchange": "binance",
        "date": date(2026, 5, 1),
        "samples": 4,
        "hours_covered": pytest.approx(3 / 60),
        "hours_sampled": 3,
        "hours_bid_heavy": 2,
        "hours_ask_heavy": 1,
        "imbalance_mean": pytest.approx(0.3),
        "spread_mean_bps": 2.0,
        "impact_10k_mean_bps": pytest.approx(2.0),
        "bid_depth_10bps_mean_usd": 1e6,
        "ask_depth_10bps_mean_usd": 2e6,
        "liquidity_score_mean": pytest.approx(45.0),
        "available_at": datetime(2026, 5, 2, 0, 1, tzinfo=UTC),
    }


def test_exchanges_have_a_row_each(book: Add, build: Build, select: Select) -> None:
    """One's books do not speak for the other's; an impact that no book could bear is null."""
    book("binance", f"{DAY} 00:00:00", 0.8)
    book("bybit", f"{DAY} 00:00:00", -0.8)
    build(DAY, NEXT)
    rows = select("select exchange, imbalance_mean, impact_10k_mean_bps from marts.market_structure_daily order by all")
    assert [tuple(row.values()) for row in rows] == [("binance", 0.8, None), ("bybit", -0.8, None)]


def test_the_running_day_is_left_out(project: Project) -> None:
    """On 2 May a run over 1 to 3 May has 1 May alone to build; of the running day there is nothing to store."""
    now = datetime(2026, 5, 2, 10, tzinfo=UTC)
    first, second, fourth = (datetime(2026, 5, day, tzinfo=UTC) for day in (1, 2, 4))
    for name in ("arbitrage_daily", "market_structure_daily", "funding_daily", "macro_daily"):
        model = project.models[name]
        assert ended(model, [Slice(first, fourth)], now) == [Slice(first, second)], name
        assert ended(model, [Slice(second, fourth)], now) == [], name
