"""A large hour goes piece by piece, and ends as it would have in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mts_dagster.errors import LakeError
from mts_dagster.lake import replace
from mts_dagster.live import books, derive, ingest
from mts_dagster.live.segments import Inspected, inspect
from mts_dagster.settings import Settings
from mts_realtime.landing import Segment, expire_segments, list_segments

from .conftest import HOUR, Rows, World, book_row, funding_row, ticker_row

pytestmark = pytest.mark.xdist_group("realtime_ingest")

ASKS = [(101.0, 3.0), (102.0, 4.0)]
EVEN = ([(99.0, 2.0)], [(101.0, 1.0)])
CHEAP, DEAR = ([(99.0, 2.0)], [(100.0, 1.0), (100.5, 2.0)]), ([(101.0, 1.5), (100.2, 9.0)], [(103.0, 1.0)])
DERIVED = ("bid_ask_spreads", "market_structure", "arbitrage_opportunities")


@pytest.fixture
def small(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Pieces of four rows, each stored by a statement of its own."""
    cut_small(monkeypatch)
    return world


def cut_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ingest, "ROWS_AT_ONCE", 4)
    patch.setattr(derive, "TOPS_AT_ONCE", 4)
    patch.setattr(books, "ROWS_AT_ONCE", 4)
    patch.setattr(replace, "BYTES_AT_ONCE", 1)


def land_books(world: World, seconds: Sequence[float], bid: float = 99.0) -> Path:
    (path,) = world.land("order_book", [book_row(second, "binance", [(bid, 2.0)], ASKS) for second in seconds])
    return path


def bids(world: World) -> list[tuple[float, float]]:
    """Second and best bid of all stored books."""
    rows = world.rows("select epoch(timestamp), bid_prices[1] from live.order_book order by timestamp")
    return [(moment - HOUR.timestamp(), bid) for moment, bid in rows]


def test_every_row_is_stored_once_also_on_the_borders(small: World) -> None:
    """Ten seconds in segments of three, pieces of four: segments lie across the borders at 4 and 8 s."""
    for start in (0, 3, 6, 9):
        land_books(small, [second for second in range(start, start + 3) if second < 10])
    for _ in range(2):
        small.bring_in()
        assert bids(small) == [(float(second), 99.0) for second in range(10)]


def test_the_pieces_are_one_commit(small: World) -> None:
    """A reader sees the whole hour or none of it, however many files it has."""
    land_books(small, range(10))
    newest = "select max(snapshot_id) from lake.snapshots()"
    ((before,),) = small.rows(newest)
    small.bring_in()
    assert small.rows(newest) == [(before + 1,)]
    assert small.rows("select file_count from ducklake_table_info('lake') where table_name = 'order_book'") == [(3,)]


def test_a_late_segment_wins_in_both_pieces_that_it_spans(small: World) -> None:
    """Rows of 2 to 5 s come again under a greater name; those of other seconds stay."""
    land_books(small, [0, 1, 2, 3])
    land_books(small, [4, 5, 6, 7])
    small.bring_in()
    late = small.landing / "order_book/date=2026-11-20/hour=13"
    path = land_books(small, [2, 3, 4, 5], bid=98.0)
    path.rename(late / path.name.replace("binance-", "binance2-"))
    small.bring_in()
    assert bids(small) == [(float(second), 98.0 if 2 <= second <= 5 else 99.0) for second in range(8)]


def test_a_late_segment_joins_pieces_that_have_no_segment_any_more(small: World) -> None:
    """Ten seconds are stored and their segments deleted; one that holds 5 s and 20 s comes late."""
    land_books(small, range(10))
    small.bring_in()
    expire_segments(small.landing, list_segments(small.landing, "order_book"))
    land_books(small, [5, 20], bid=98.0)
    small.bring_in()
    assert bids(small) == [(float(second), 98.0 if second in {5, 20} else 99.0) for second in [*range(10), 20]]


def test_a_piece_that_fails_leaves_the_hour_as_it_was(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last segment is deleted between looking at it and reading its piece: an error, and no new row."""
    land_books(small, range(4))
    small.bring_in()
    before = small.stored()
    land_books(small, range(4), bid=98.0)
    lost = land_books(small, range(4, 8))

    def inspect_and_lose(settings: Settings, segments: Sequence[Segment]) -> Inspected:
        found = inspect(settings, segments)
        lost.unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "inspect", inspect_and_lose)
        with pytest.raises(LakeError, match="order_book: cannot compute its rows"):
            small.bring_in()
    assert small.stored() == before
    small.bring_in()
    assert len(bids(small)) == 4


def test_what_a_killed_run_left_is_gone_with_the_next_one(small: World) -> None:
    """Its files are not taken for rows, and not kept."""
    staged = small.landing / ".order_book.staged"
    staged.mkdir(parents=True)
    (staged / "00000.parquet").write_bytes(b"half a file")
    land_books(small, range(3))
    small.bring_in()
    assert len(bids(small)) == 3
    assert not staged.exists()


def test_several_groups_give_the_rows_of_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three instruments on two exchanges, computed at once and in groups: equal to the last bit."""
    monkeypatch.setenv("MTS_SIGNAL_WINDOW", "10")
    for place, exchange in enumerate(("binance", "bybit")):
        for number, symbol in enumerate(("BNBUSDT", "BTCUSDT", "ETHUSDT")):
            sides = [(CHEAP, DEAR)[place] if second % (number + 2) else EVEN for second in range(15)]
            rows = [book_row(second, exchange, *side, symbol=symbol) for second, side in enumerate(sides)]
            world.land("order_book", rows)
            world.land("tickers", [ticker_row(s, exchange, 1000.0 + s * s * (number + 1), symbol) for s in range(15)])
        world.land("funding", [funding_row(second, exchange, 0.0001 + 0.0005 * place) for second in range(3)])
        others = [funding_row(second, exchange, 0.0009 * place) | {"symbol": "ETHUSDT"} for second in range(4)]
        world.land("funding", others)
    world.bring_in("order_book", "live_tickers", "live_funding", *DERIVED)
    at_once = derived_rows(world)
    cut_small(monkeypatch)
    world.bring_in(*DERIVED)
    assert derived_rows(world) == at_once
    assert [len(at_once[name]) for name in DERIVED[:2]] == [90, 90]
    kinds = "select kind, count(distinct symbol) from live.arbitrage_opportunities group by kind order by kind"
    assert world.rows(kinds) == [("funding", 2), ("spread", 3)]


def derived_rows(world: World) -> dict[str, Rows]:
    stored = world.stored()
    return {name: stored[name] for name in DERIVED}
