"""Seeded books: sorted and uncrossed at every step, alive, and now and then open to arbitrage."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_simulator.books import STEP_MS, SeededBooks, changes
from mts_simulator.coins import COINS_BY_ID, COINS_BY_PERPETUAL

from .conftest import NOW_MS, SEED

if TYPE_CHECKING:
    from mts_simulator.market import Market

FIRST_STEP = NOW_MS // STEP_MS
ETHEREUM = COINS_BY_ID["ethereum"]
FEES = 1 + 10.5e-4


@pytest.fixture(scope="module")
def books(market: Market) -> dict[str, SeededBooks]:
    return {venue: SeededBooks(market, venue, SEED) for venue in ("binance", "bybit")}


@settings(max_examples=60, deadline=None)
@given(
    symbol=st.sampled_from(sorted(COINS_BY_PERPETUAL)),
    venue=st.sampled_from(["binance", "bybit"]),
    step=st.integers(FIRST_STEP, FIRST_STEP + 10_000_000),
    levels=st.sampled_from([1, 20, 50, 1000]),
)
def test_books_are_sorted_uncrossed_and_positive(
    books: dict[str, SeededBooks], symbol: str, venue: str, step: int, levels: int
) -> None:
    """Bids fall, asks rise, the spread is at least a tick, every size is positive."""
    state = books[venue].state(COINS_BY_PERPETUAL[symbol], step, levels)
    bids, asks = state.bids.ticks, state.asks.ticks
    assert len(bids) == len(asks) == levels
    assert (bids[:-1] > bids[1:]).all()
    assert (asks[:-1] < asks[1:]).all()
    assert 0 < bids[-1] <= bids[0] < asks[0]
    assert state.bids.sizes.min() > 0
    assert state.asks.sizes.min() > 0


@settings(max_examples=30, deadline=None)
@given(step=st.integers(FIRST_STEP, FIRST_STEP + 1_000_000), distance=st.integers(1, 300))
def test_changes_turn_one_state_into_the_other(books: dict[str, SeededBooks], step: int, distance: int) -> None:
    """Applied to the earlier side, the changes give exactly the later side."""
    before = books["binance"].state(ETHEREUM, step)
    after = books["binance"].state(ETHEREUM, step + distance)
    side = dict(zip(before.bids.ticks.tolist(), before.bids.sizes.tolist(), strict=True))
    for tick, size in changes(before.bids, after.bids):
        if size:
            side[tick] = size
        else:
            del side[tick]
    assert side == dict(zip(after.bids.ticks.tolist(), after.bids.sizes.tolist(), strict=True))


def test_a_top_of_few_levels_is_the_top_of_many(books: dict[str, SeededBooks]) -> None:
    """Twenty levels are the first twenty of a thousand."""
    few, many = (books["bybit"].state(ETHEREUM, FIRST_STEP, levels) for levels in (20, 1000))
    assert few.bids.ticks.tolist() == many.bids.ticks[:20].tolist()
    assert few.asks.sizes.tolist() == many.asks.sizes[:20].tolist()


def test_books_move_but_not_all_at_once(books: dict[str, SeededBooks]) -> None:
    """Between two steps some levels change, most stay."""
    counts = []
    for step in range(FIRST_STEP, FIRST_STEP + 100):
        before, after = (books["binance"].state(ETHEREUM, s) for s in (step, step + 1))
        counts.append(len(changes(before.bids, after.bids)))
    assert min(counts) >= 1
    assert sorted(counts)[50] < 200


@pytest.mark.parametrize("name", ["bitcoin", "ethereum", "binancecoin"])
def test_arbitrage_opens_and_closes(books: dict[str, SeededBooks], name: str) -> None:
    """Within ten minutes an edge beyond both taker fees opens and closes many times, in both directions."""
    coin = COINS_BY_ID[name]
    open_ways = []
    for step in range(FIRST_STEP, FIRST_STEP + 6000, 5):
        one, other = (books[venue].state(coin, step, 1) for venue in ("binance", "bybit"))
        up = other.bids.ticks[0] > one.asks.ticks[0] * FEES
        down = one.bids.ticks[0] > other.asks.ticks[0] * FEES
        open_ways.append((up, down))
    ups = sum(after[0] and not before[0] for before, after in pairwise(open_ways))
    downs = sum(after[1] and not before[1] for before, after in pairwise(open_ways))
    open_part = sum(up or down for up, down in open_ways) / len(open_ways)
    assert ups >= 3
    assert downs >= 3
    assert 0.03 < open_part < 0.4
