"""Landed segments become stored hours, whatever happens to the segments before and after."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from mts_dagster.lake.slices import Slice
from mts_dagster.live.ingest import Ingested, alone, ingest
from mts_dagster.live.tables import LANDED, LIVE_TABLES, ORDER_BOOK
from mts_realtime.landing import expire_segments, list_segments

from .conftest import HOUR, ONE_HOUR, ORIGIN, World, at, book_row, funding_row, gap_row, ticker_row

pytestmark = pytest.mark.xdist_group("realtime_ingest")

BIDS = [(99.0, 2.0), (98.0, 5.0)]
ASKS = [(101.0, 3.0), (102.0, 4.0)]


def opportunity_row(seconds: float) -> dict[str, object]:
    return {
        "timestamp": at(seconds),
        "opportunity_id": "BTCUSDT-binance-bybit-1",
        "symbol": "BTCUSDT",
        "buy_exchange": "binance",
        "sell_exchange": "bybit",
        "opened_at": at(seconds - 1),
        "lifetime_ms": 1000.0,
        "update_count": 4,
        "expired_reason": "edge_gone",
        "peak_net_bps": 3.0,
        "peak_gross_bps": 13.5,
        "peak_net_usd": 30.0,
        "peak_size_base": 1.0,
        "peak_buy_price": 100.0,
        "peak_sell_price": 100.2,
        "confidence": 0.5,
        "net_bps_after_50ms": 3.0,
        "net_bps_after_250ms": 2.0,
        "net_bps_after_1000ms": None,
    }


def signal_row(seconds: float) -> dict[str, object]:
    return {
        "timestamp": at(seconds),
        "kind": "arbitrage",
        "symbol": "NOSUCHUSDT",
        "exchanges": "binance/bybit",
        "strength": "WEAK",
        "confidence": 0.5,
        "value": 3.0,
        "threshold": 1.0,
        "unit": "bps",
        "expires_at": at(seconds + 10),
        "detail": "{}",
    }


def land_everything(world: World) -> None:
    """Two segments of books, and one of each other dataset."""
    for start in (0, 5):
        world.land("order_book", [book_row(start + step, "binance", BIDS, ASKS) for step in range(5)])
    world.land("funding", [funding_row(1, "binance", 0.0001)])
    world.land("tickers", [ticker_row(1, "binance", 1000.0)])
    world.land("gaps", [gap_row(3, 4)])
    world.land("opportunities", [opportunity_row(2)])
    world.land("signals", [signal_row(2)])


def test_every_dataset_lands_and_again_changes_nothing(world: World) -> None:
    """One row each, ten books; the second run of the hour leaves every stored row as it was."""
    land_everything(world)
    world.run()
    before = world.stored()
    counts = {landed.table.name: len(before[landed.table.name]) for landed in LANDED}
    assert counts == {
        "order_book": 10,
        "live_funding": 1,
        "live_tickers": 1,
        "stream_gaps": 1,
        "live_opportunities": 1,
        "live_signals": 1,
    }
    world.bring_in(*LIVE_TABLES)
    assert world.stored() == before


def test_a_book_is_stored_as_it_was_sampled(world: World) -> None:
    """Ladders, sequence, the coin of the symbol, the segment's name, and when the row could be known."""
    (path,) = world.land("order_book", [book_row(7, "binance", BIDS, ASKS)])
    world.bring_in()
    assert world.rows(
        "select timestamp, venue_symbol, sequence_id, bid_prices, ask_sizes, coin, segment, available_at "
        "from live.order_book"
    ) == [(at(7), "BTCUSDT", 70, [99.0, 98.0], [3.0, 4.0], "bitcoin", path.name, at(7))]


def test_a_symbol_that_no_coin_is_known_for_has_none(world: World) -> None:
    """A null, not a guess; a ranking that knows the ticker helps."""
    world.land("signals", [signal_row(2)])
    world.bring_in("live_signals")
    assert world.rows("select coin from live.live_signals") == [(None,)]
    with_ranking = (
        "insert into raw.coin_universe values (date '2026-11-19', 'no-such-coin', 'NOSUCH', 'x', 9, 1, 1, 1, true, "
        "'live_ranking', 'demo', now())"
    )
    from mts_dagster.lake.shared import session  # noqa: PLC0415 - only this test writes behind the assets' back

    with session(world.settings, read_only=False) as con:
        con.execute(with_ranking)
    world.bring_in("live_signals")
    assert world.rows("select coin from live.live_signals") == [("no-such-coin",)]


def test_an_hour_whose_segments_are_gone_keeps_its_rows(world: World) -> None:
    """Running it again after expiry changes nothing, in what landed and in what is computed."""
    land_everything(world)
    world.bring_in(*LIVE_TABLES)
    before = world.stored()
    shutil.rmtree(world.landing)
    world.bring_in(*LIVE_TABLES)
    assert world.stored() == before


def test_a_late_segment_joins_rows_whose_segments_are_gone(world: World) -> None:
    """Half of the hour was deleted after ingest; a segment that came late is added to it."""
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in range(5)])
    world.bring_in()
    expire_segments(world.landing, list_segments(world.landing, "order_book"))
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in range(5, 8)])
    world.bring_in()
    assert world.rows("select count(*), count(distinct segment) from live.order_book") == [(8, 2)]


def test_rows_of_two_segments_with_one_key_are_stored_once(world: World) -> None:
    """The same grid time in two segments: the later segment wins, in whatever order they came."""
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in (1, 2)])
    world.bring_in()
    world.land("order_book", [book_row(second, "binance", [(98.5, 1.0)], ASKS) for second in (2, 3)])
    world.bring_in()
    seen = world.rows("select timestamp, bid_prices[1] from live.order_book order by timestamp")
    assert seen == [(at(1), 99.0), (at(2), 98.5), (at(3), 98.5)]


def test_an_hour_without_anything_stays_empty(world: World) -> None:
    """No segment, nothing stored: no row, and no error."""
    done = world.bring_in(*LIVE_TABLES)
    assert [hour.rows_stored for hour in done] == [0] * len(LIVE_TABLES)
    assert {name: len(rows) for name, rows in world.stored().items() if rows} == {}


def test_only_the_hour_is_touched(world: World) -> None:
    """A row of the hour before stays when the hour is run, and is brought in by its own run."""
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in (-1, 0)])
    world.bring_in()
    assert world.rows("select timestamp from live.order_book") == [(at(0),)]
    world.bring_in(hour=HOUR - ONE_HOUR)
    assert world.rows("select timestamp from live.order_book order by timestamp") == [(at(-1),), (at(0),)]


def test_a_damaged_segment_is_put_aside_and_the_others_land(world: World) -> None:
    """Cut off in the middle: moved with its reason, and counted."""
    world.land("order_book", [book_row(1, "binance", BIDS, ASKS)])
    (bad,) = world.land("order_book", [book_row(2, "binance", BIDS, ASKS)])
    bad.write_bytes(bad.read_bytes()[:-20])
    (done,) = world.bring_in()
    assert world.rows("select timestamp from live.order_book") == [(at(1),)]
    moved = world.settings.home / "quarantine/landing/order_book/date=2026-11-20/hour=13" / bad.name
    assert moved.exists()
    assert bad.name in moved.with_name(bad.name + ".reason.txt").read_text()
    assert not bad.exists()
    assert isinstance(done, Ingested)
    assert (done.segments, len(done.damaged)) == (1, 1)
    assert bad.name in done.damaged[0]


def test_stored_rows_of_a_segment_that_decays_stay(world: World) -> None:
    """The file is damaged after it was ingested: it goes, its rows do not."""
    (bad,) = world.land("order_book", [book_row(2, "binance", BIDS, ASKS)])
    world.bring_in()
    before = world.stored()
    bad.write_bytes(b"")
    world.bring_in()
    assert world.stored() == before


def test_a_range_of_hours_is_one_ingest_each(world: World) -> None:
    """A backfill of three hours stores each in its own transaction, with its own count."""
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in (0, 1, 3600, 7200)])
    world.bring_in()
    windows = [Slice(HOUR, HOUR + 3 * ONE_HOUR)]
    done = ingest(world.settings, ORDER_BOOK, windows, ORIGIN)
    assert [(hour.rows_replaced, hour.rows_stored) for hour in done] == [(2, 2), (0, 1), (0, 1)]


def test_one_run_at_a_time_works_on_a_table(world: World) -> None:
    """The second waits for the first, and says which lock it waited for."""
    from mts_dagster.errors import LakeLockedError  # noqa: PLC0415

    impatient = world.settings.model_copy(update={"lock_wait_s": 0.05})
    with alone(world.settings, ORDER_BOOK.table), pytest.raises(LakeLockedError, match="order_book"):
        ingest(impatient, ORDER_BOOK, [Slice(HOUR, HOUR + timedelta(hours=1))], ORIGIN)
