"""Seeded order books: the book at any step of 100 ms as a pure function of the step.

What belongs here: ladders of price ticks and sizes, and the differences between two steps. Because the
state is a function of the step, a snapshot and the deltas around it agree by construction, whoever asks
when.

From time to time one venue runs away from the other for a moment (a dislocation), by more than both taker
fees: cross-exchange arbitrage opens and closes in these books.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.clock import SECOND_MS
from mts_simulator.noise import Ints, key_of, uniform

if TYPE_CHECKING:
    from mts_simulator.coins import Coin
    from mts_simulator.market import Market

STEP_MS = 100
LEVELS = 1000

_NOISE_BPS = 0.8
_NOISE_MS = 2 * SECOND_MS
_LEVEL_USD = 60_000.0
_DISLOCATION_EVERY_MS = 15 * SECOND_MS
_DISLOCATION_BPS = (8.0, 40.0)
_DISLOCATION_MS = (400, 6_000)
_LONGEST_LIFE = 256
_TOUCH_LIFE = 3
_CACHED_STATES = 256
_HALF = 0.5


@dataclass(frozen=True)
class Side:
    """One side of a book, best first: price ticks and sizes in units of the quantity step."""

    ticks: Ints
    sizes: Ints


@dataclass(frozen=True)
class BookState:
    """A whole book at one step."""

    step: int
    bids: Side
    asks: Side


class SeededBooks:
    """The books of all perpetuals on one venue.

    Args:
        market: The market whose prices the books follow.
        venue: ``binance`` or ``bybit``.
        seed: The same seed shows the same books.
    """

    def __init__(self, market: Market, venue: str, seed: int) -> None:
        self._market = market
        self._venue = venue
        self._seed = seed
        self._cached = lru_cache(maxsize=_CACHED_STATES)(self._state)

    def state(self, coin: Coin, step: int, levels: int = LEVELS) -> BookState:
        """The book of ``coin`` at ``step`` (a multiple of 100 ms since 1970)."""
        return self._cached(coin, step, levels)

    def _state(self, coin: Coin, step: int, levels: int) -> BookState:
        tick = 10.0**-coin.price_decimals
        middle = self._middle(coin, step * STEP_MS)
        gap = 1 + int(uniform(self._key("gap", coin), step // 10) * 2.2)
        bid = int(np.floor(middle / tick)) - gap // 2
        spacing = max(1, round(middle * 0.5e-4 / tick / 10))
        return BookState(
            step,
            bids=self._side(coin, "bid", step, bid, spacing=-spacing, levels=levels),
            asks=self._side(coin, "ask", step, bid + gap, spacing=spacing, levels=levels),
        )

    def _middle(self, coin: Coin, ms: int) -> float:
        """Mid price with quote noise and, at times, a dislocation."""
        price = float(self._market.venue_price(coin, self._venue, np.array([ms]))[0])
        slot, rest = divmod(ms, _NOISE_MS)
        low, high = uniform(self._key("noise", coin), np.array([slot, slot + 1])) - 0.5
        noise = 2 * _NOISE_BPS * (low + (high - low) * rest / _NOISE_MS)
        middle: float = price * (1 + 1e-4 * (noise + self._dislocation_bps(coin, ms)))
        return middle

    def _dislocation_bps(self, coin: Coin, ms: int) -> float:
        """How far this venue has run away from the market, in basis points."""
        slot, rest = divmod(ms, _DISLOCATION_EVERY_MS)
        venue, side, size, length, start = uniform(key_of(self._seed, "run", coin.id), slot * 8 + np.arange(5))
        if (venue < _HALF) != (self._venue == "binance"):
            return 0.0
        duration = _DISLOCATION_MS[0] + length * (_DISLOCATION_MS[1] - _DISLOCATION_MS[0])
        begin = start * (_DISLOCATION_EVERY_MS - duration)
        if not begin <= rest < begin + duration:
            return 0.0
        reach = _DISLOCATION_BPS[0] + size**2 * (_DISLOCATION_BPS[1] - _DISLOCATION_BPS[0])
        return float(reach if side < _HALF else -reach)

    def _side(self, coin: Coin, name: str, step: int, best: int, *, spacing: int, levels: int) -> Side:
        """One side: the touch, then every grid price beyond it; each level keeps its size for a while."""
        width = abs(spacing)
        grid = (best // width if spacing < 0 else -(-best // width)) * width
        first = grid + spacing if grid == best else grid
        ticks = np.concatenate([[best], first + spacing * np.arange(levels - 1, dtype=np.int64)])
        key = self._key(name, coin)
        life = 2 + (uniform(key ^ 1, ticks) * _LONGEST_LIFE).astype(np.int64)
        life[0] = _TOUCH_LIFE
        age = (step + (ticks % _LONGEST_LIFE)) // life
        drawn = uniform(key, ticks * 1_000_003 + age)
        usual = _LEVEL_USD * (coin.volume_usd / 3e9) ** 0.5 / coin.level_usd * 10**coin.quantity_decimals
        sizes = np.maximum((usual * np.exp(2.5 * (drawn - 0.6))).astype(np.int64), 1)
        positive = ticks > 0
        return Side(ticks[positive], sizes[positive])

    def _key(self, name: str, coin: Coin) -> int:
        return key_of(self._seed, "book", self._venue, name, coin.id)


def changes(before: Side, after: Side) -> list[tuple[int, int]]:
    """What turns ``before`` into ``after``: (price tick, new size), size 0 for a level that is gone."""
    old = dict(zip(before.ticks.tolist(), before.sizes.tolist(), strict=True))
    new = dict(zip(after.ticks.tolist(), after.sizes.tolist(), strict=True))
    gone = [(tick, 0) for tick in old if tick not in new]
    return [(tick, size) for tick, size in new.items() if old.get(tick) != size] + gone
