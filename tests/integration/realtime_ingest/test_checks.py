"""What the checks of the live tables find, and what expiry deletes."""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg
import pytest

from mts_dagster.defs.realtime.checks import books_are_whole, hours_to_judge, uncovered, undeclared_silences
from mts_dagster.instance.home import open_instance
from mts_dagster.lake.shared import session
from mts_dagster.live.expiry import Expired, expire
from mts_dagster.live.tables import LANDED, ORDER_BOOK
from mts_realtime.landing import list_segments

from .conftest import HOUR, LATER, ONE_HOUR, World, at, book_row, funding_row, gap_row

pytestmark = pytest.mark.xdist_group("realtime_ingest")

BIDS, ASKS = [(99.0, 2.0), (98.0, 1.0)], [(101.0, 3.0), (102.0, 1.0)]
STEP = timedelta(seconds=600)


BROKEN = {
    "crossed": ([(101.0, 1.0)], ASKS),
    "bids rise": ([(98.0, 1.0), (99.0, 2.0)], ASKS),
    "asks fall": (BIDS, [(102.0, 1.0), (101.0, 1.0)]),
    "price twice": (BIDS, [(101.0, 1.0), (101.0, 2.0)]),
    "no size": (BIDS, [(101.0, 0.0)]),
    "negative price": ([(99.0, 1.0), (-1.0, 1.0)], ASKS),
}


def test_broken_books_are_found(world: World) -> None:
    """Each kind of broken book among whole ones, one-sided ones included, is counted and named."""
    world.land("order_book", [book_row(1, "binance", BIDS, ASKS), book_row(2, "binance", BIDS, [])])
    world.bring_in()
    assert checked(world).passed
    world.land("order_book", [book_row(3 + n, "binance", *sides) for n, sides in enumerate(BROKEN.values())])
    world.bring_in()
    found = checked(world)
    assert not found.passed
    assert found.metadata["broken_books"].value == len(BROKEN)
    assert "binance BTCUSDT at 2026-11-20 13:00:03" in str(found.description)


def checked(world: World) -> dg.AssetCheckResult:
    found = books_are_whole(dg.build_asset_check_context(), settings=world.settings)
    assert isinstance(found, dg.AssetCheckResult)
    return found


def test_what_is_neither_stored_nor_declared_is_counted(world: World) -> None:
    """A grid of ten minutes: stored at 0 and 10, declared lost from 15 to 35, nothing at 40 and 50.

    The gap was still open at the end of the hour: its row came with the next hour, and covers 50 as well.
    """
    world.land("order_book", [book_row(minute * 60, "binance", BIDS, ASKS) for minute in (0, 10)])
    world.land("gaps", [gap_row(15 * 60, 35 * 60)])
    world.bring_in("order_book", "stream_gaps")
    with session(world.settings, read_only=False) as con:
        assert uncovered(con, ORDER_BOOK, HOUR, STEP) == [("binance", "BTCUSDT", 2, at(2400), at(3000))]
    world.land("gaps", [gap_row(45 * 60, 65 * 60)])
    world.bring_in("stream_gaps", hour=HOUR + ONE_HOUR)
    with session(world.settings, read_only=False) as con:
        assert uncovered(con, ORDER_BOOK, HOUR, STEP) == [("binance", "BTCUSDT", 1, at(2400), at(2400))]


def test_a_market_is_expected_from_its_first_row_on(world: World) -> None:
    """A symbol added at 13:40 owes nothing before; one that vanished at 12:50 owes the whole hour."""
    world.land("order_book", [book_row(minute * 60, "bybit", BIDS, ASKS) for minute in (40, 50)])
    world.land("order_book", [book_row(-600, "binance", BIDS, ASKS)])
    world.bring_in()
    world.bring_in(hour=HOUR - ONE_HOUR)
    with session(world.settings, read_only=False) as con:
        assert uncovered(con, ORDER_BOOK, HOUR, STEP) == [("binance", "BTCUSDT", 6, at(0), at(3000))]


def test_the_running_hour_is_not_judged(world: World) -> None:
    """At 14:04 the hour of 13 may still be on its way, at 14:06 it is judged, also by the run of the hour after it."""
    store_hours(world, -1, 0, 1)
    with session(world.settings, read_only=False) as con:
        for run_hours in ([], [HOUR + ONE_HOUR]):
            judged = [hours_to_judge(con, ORDER_BOOK.table, run_hours, at(3600 + minutes * 60)) for minutes in (4, 6)]
            assert judged == [[HOUR - ONE_HOUR], [HOUR]]


def test_each_late_hour_is_judged_by_its_own_run(world: World) -> None:
    """Hours 10 to 13 come in together, a day later: each one's run judges it and the stored one before it."""
    store_hours(world, -3, -2, 0)
    ten, eleven, twelve = (HOUR - hours * ONE_HOUR for hours in (3, 2, 1))
    with session(world.settings, read_only=False) as con:

        def judged(*run_hours: datetime) -> list[datetime]:
            return hours_to_judge(con, ORDER_BOOK.table, run_hours, LATER)

        assert judged(ten) == [ten]
        assert judged(eleven) == [ten, eleven]
        assert judged(twelve) == [eleven, twelve]
        assert judged(ten, eleven, twelve, HOUR) == [ten, eleven, twelve, HOUR]
        assert judged() == [HOUR]


def store_hours(world: World, *hours: int) -> None:
    """A book in each of these hours, counted from that of 13."""
    for hour in hours:
        world.land("order_book", [book_row(hour * 3600 + 1, "binance", BIDS, ASKS)])
        world.bring_in(hour=HOUR + hour * ONE_HOUR)


MINUTE = timedelta(seconds=60)


def silences(world: World) -> list[tuple[str, str, datetime, datetime]]:
    with session(world.settings, read_only=False) as con:
        return undeclared_silences(con, HOUR, MINUTE)


def test_funding_that_is_heard_or_declared_missing_is_whole(world: World) -> None:
    """An estimate a minute from 13:20 on, its first, but for a declared gap from 13:30 to 13:40.

    Another gap was still open at the end of the hour: its row came with the next one.
    """
    heard = [minute * 60 for minute in (*range(20, 31), *range(40, 56))]
    world.land("funding", [funding_row(second, "binance", 0.0001) for second in heard])
    gaps = [(1800, 2100), (2100, 2400), (3301, 3700)]
    world.land("gaps", [gap_row(start, end, dataset="funding") for start, end in gaps])
    world.bring_in("live_funding", "stream_gaps")
    world.bring_in("stream_gaps", hour=HOUR + ONE_HOUR)
    assert silences(world) == []


def test_a_silence_that_nobody_declared_is_found(world: World) -> None:
    """Binance from 12:59:50 to 13:01 and from 13:05 on; the gap of its books does not speak for its funding."""
    heard = [-10, 60, 120, 180, 240, 300]
    world.land("funding", [funding_row(second, "binance", 0.0001) for second in heard])
    world.land("gaps", [gap_row(300, 3600, dataset="order_book")])
    for hour in (HOUR - ONE_HOUR, HOUR):
        world.bring_in("live_funding", "stream_gaps", hour=hour)
    assert silences(world) == [("binance", "BTCUSDT", at(-10), at(60)), ("binance", "BTCUSDT", at(300), at(3600))]


def test_books_without_any_funding_are_found(world: World) -> None:
    """Bybit's books stream from 13:10 on, of its funding there is nothing; binance declares that it has none."""
    world.land("order_book", [book_row(600 + 60 * n, "bybit", BIDS, ASKS) for n in range(3)])
    world.land("order_book", [book_row(600, "binance", BIDS, ASKS)])
    world.land("gaps", [gap_row(0, 3600, dataset="funding")])
    world.bring_in("order_book", "stream_gaps")
    assert silences(world) == [("bybit", "BTCUSDT", at(600), at(3600))]


def test_a_run_stores_what_its_checks_found(world: World) -> None:
    """A damaged segment, and so no funding, and 3,597 seconds without a book are warnings; the run is green.

    The hour after it is stored already: what is judged is the hour that the run brings in.
    """
    store_hours(world, 1)
    (bad, _) = [
        *world.land("funding", [funding_row(1, "binance", 0.0001)]),
        *world.land("order_book", [book_row(2, "binance", BIDS, ASKS)]),
    ]
    bad.write_bytes(b"")
    run_id = world.run()
    assert world.materialisation("live_funding")["damaged_segments"] == 1
    assert bad.name in world.materialisation("live_funding")["damaged"]
    with open_instance(world.settings) as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
        judged = [record.event_log_entry.get_dagster_event().asset_check_evaluation_data for record in records]
    found = {f"{data.asset_key.path[-1]}.{data.check_name}": data for data in judged}
    assert len(found) == 4 + len(LANDED)
    failed = sorted(name for name, data in found.items() if not data.passed)
    coverage, damage = "order_book.every_sample_is_stored_or_declared_missing", "live_funding.no_damaged_segments"
    silence = "live_funding.every_silence_is_declared"
    assert failed == [silence, damage, coverage]
    assert {found[name].severity for name in failed} == {dg.AssetCheckSeverity.WARN}
    assert bad.name in str(found[damage].description)
    assert found[coverage].metadata["missing_samples"].value == 3597
    assert found[coverage].metadata["hours"].value == "2026-11-20 13:00"
    assert "binance BTCUSDT from 2026-11-20 13:00:02" in str(found[silence].description)


def test_expiry_deletes_old_segments_that_are_stored(world: World) -> None:
    """Three days after their hour; the hour after, younger by one, stays."""
    world.land("order_book", [book_row(second, "binance", BIDS, ASKS) for second in (1, 3601)])
    world.land("gaps", [gap_row(1, 2)])
    for hour in (0, 1):
        world.bring_in("order_book", "stream_gaps", hour=HOUR + hour * ONE_HOUR)
    before = world.stored()
    assert expire(world.settings, HOUR + timedelta(days=3)) == Expired(0, ())
    assert expire(world.settings, HOUR + timedelta(days=3) + ONE_HOUR) == Expired(2, ())
    assert [segment.hour for segment in list_segments(world.landing, "order_book")] == ["2026-11-20-14"]
    assert list_segments(world.landing, "gaps") == []
    assert world.stored() == before


def test_expiry_keeps_what_is_not_stored(world: World) -> None:
    """An hour that was never ingested, and one with a segment that came after its ingest, stay and are named."""
    world.land("order_book", [book_row(1, "binance", BIDS, ASKS)])
    world.land("funding", [funding_row(1, "binance", 0.0001)])
    world.bring_in()
    (late,) = world.land("order_book", [book_row(2, "binance", BIDS, ASKS)])
    done = expire(world.settings, LATER + timedelta(days=30))
    assert done == Expired(0, ("order_book 2026-11-20-13", "funding 2026-11-20-13"))
    assert late.exists()


def test_expiry_does_not_trust_a_file_that_it_cannot_read(world: World) -> None:
    """Damaged after its ingest: no proof, no deletion; the next run of the hour puts it aside."""
    (path,) = world.land("order_book", [book_row(1, "binance", BIDS, ASKS)])
    world.bring_in()
    path.write_bytes(b"")
    assert expire(world.settings, LATER + timedelta(days=30)).kept == ("order_book 2026-11-20-13",)
    assert path.exists()
