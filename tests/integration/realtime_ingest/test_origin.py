"""Simulated segments do not enter a lake of real data, nor the reverse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mts_dagster.errors import ConfigError
from mts_realtime.origin import MARK, claim, read_mark

from .conftest import World, book_row


def land_a_book(world: World, kind: str) -> None:
    """As a sidecar of that kind does."""
    claim(world.landing, kind)
    world.land("order_book", [book_row(1, "binance", [(99.0, 1.0)], [(100.0, 1.0)])])


@pytest.fixture
def unmarked(world: World) -> Iterator[World]:
    """A home that nobody has filled yet."""
    yield world
    (world.settings.home / MARK).unlink(missing_ok=True)


@pytest.mark.parametrize(("streamed", "collected"), [("simulated", "real"), ("real", "simulated")])
def test_segments_of_the_other_kind_stay_out(unmarked: World, streamed: str, collected: str) -> None:
    """The sidecar streamed one, the lake was filled from the other: nothing is stored, the segment stays."""
    claim(unmarked.settings.home, collected)
    land_a_book(unmarked, streamed)
    told = rf"landing holds {streamed} segments, but .*home holds {collected} data; nothing was taken: set MTS_LANDING"
    with pytest.raises(ConfigError, match=told):
        unmarked.bring_in()
    assert unmarked.rows("from live.order_book") == []
    assert len(list(unmarked.landing.rglob("*.parquet"))) == 1


def test_segments_of_the_same_kind_come_in(unmarked: World) -> None:
    """The first ones mark a home that has no mark."""
    land_a_book(unmarked, "simulated")
    unmarked.bring_in()
    assert read_mark(unmarked.settings.home) == "simulated"
    unmarked.bring_in()
    assert len(unmarked.rows("from live.order_book")) == 1


def test_segments_made_by_hand_come_in(unmarked: World) -> None:
    """No sidecar wrote them: they say nothing, and the home stays as it is."""
    unmarked.land("order_book", [book_row(1, "binance", [(99.0, 1.0)], [(100.0, 1.0)])])
    unmarked.bring_in()
    assert len(unmarked.rows("from live.order_book")) == 1
    assert read_mark(unmarked.settings.home) is None
