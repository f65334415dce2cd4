"""Synthetic load: many symbols, cheap frames, any rate, for benchmarks.

What belongs here: frames of the usual shapes (20-level pictures, 50-level deltas) whose ladders come from a
small prepared pool, so that one process can send a hundred thousand a second. Time stamps and update ids
are true: ``E`` and ``ts`` are the moment of sending, books are uncrossed, deltas fit the snapshot.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.binance import instrument_row
from mts_simulator.bybit import SeededBybit
from mts_simulator.clock import HOUR_MS, SECOND_MS
from mts_simulator.market import FIRST_MS
from mts_simulator.noise import generator, key_of
from mts_simulator.seeded_binance import SeededBinance
from mts_simulator.streams import FeedSource

if TYPE_CHECKING:
    from mts_simulator.market import Market
    from mts_simulator.streams import Feed
    from mts_simulator.wire import JsonObject

_SYMBOL = re.compile(r"L(\d+)USDT")
_POOL = 64
_BINANCE_LEVELS = 20
_BYBIT_LEVELS = 50
_CHANGED_LEVELS = 3
_MIDDLE = 10_000
_SLOW_PERIOD_MS = SECOND_MS
_NEXT_FUNDING_MS = 8 * HOUR_MS


@dataclass(frozen=True)
class LoadProfile:
    """How much load.

    Attributes:
        symbols: Number of symbols, the same on both exchanges: L0001USDT and so on.
        frames_per_s: Book frames that each exchange sends in a second when all its books are subscribed to;
            infinity for as fast as the client reads.
    """

    symbols: int
    frames_per_s: float = math.inf

    @property
    def period_ms(self) -> float:
        """Time between two book frames of one symbol."""
        return self.symbols / self.frames_per_s * SECOND_MS

    def names(self) -> list[str]:
        """All symbols."""
        return [f"L{number:04d}USDT" for number in range(1, self.symbols + 1)]


def binance_instruments(profile: LoadProfile) -> list[JsonObject]:
    """Rows of exchangeInfo for the load symbols."""
    return [instrument_row(name, name.removesuffix("USDT"), 2, 3) for name in profile.names()]


def bybit_instruments(profile: LoadProfile) -> list[JsonObject]:
    """Rows of instruments-info for the load symbols."""
    return [
        {
            "symbol": name,
            "contractType": "LinearPerpetual",
            "status": "Trading",
            "baseCoin": name.removesuffix("USDT"),
            "quoteCoin": "USDT",
            "launchTime": str(FIRST_MS),
            "deliveryTime": "0",
            "priceScale": "2",
            "priceFilter": {"minPrice": "0.01", "maxPrice": "1999999.80", "tickSize": "0.01"},
            "lotSizeFilter": {
                "maxOrderQty": "1000000",
                "minOrderQty": "0.001",
                "qtyStep": "0.001",
                "minNotionalValue": "5",
            },
            "fundingInterval": 480,
            "settleCoin": "USDT",
        }
        for name in profile.names()
    ]


class LoadBinance(SeededBinance):
    """Binance's REST side of the load symbols: they are listed, and nothing more is known of them."""

    def __init__(self, market: Market, profile: LoadProfile) -> None:
        super().__init__(market, "binance", 0)
        self._profile = profile

    def symbols(self) -> list[str]:
        """The load symbols."""
        return self._profile.names()

    def instruments(self) -> list[JsonObject]:
        """Rows of exchangeInfo for the load symbols."""
        return binance_instruments(self._profile)


class LoadBybit(SeededBybit):
    """Bybit's REST side of the load symbols: they are listed, and nothing more is known of them."""

    def __init__(self, market: Market, profile: LoadProfile) -> None:
        super().__init__(market, "bybit", 0)
        self._profile = profile

    def symbols(self) -> list[str]:
        """The load symbols."""
        return self._profile.names()

    def instruments(self) -> list[JsonObject]:
        """Rows of instruments-info for the load symbols."""
        return bybit_instruments(self._profile)


class _Paced:
    """A feed that speaks every ``period_ms``, each symbol at its own phase; a period of 0 never rests."""

    def __init__(self, period_ms: float, symbol: str, now_ms: int) -> None:
        self._period_ms = period_ms
        self._count = key_of(0, "load", symbol) % _POOL
        self.next_ms = now_ms + (key_of(1, "load", symbol) % 1000) / 1000 * period_ms

    def _move_on(self) -> int:
        self.next_ms += self._period_ms
        self._count += 1
        return self._count

    def restart(self) -> None:
        """Load does not restart."""


class _Picture(_Paced):
    """Binance partial depth."""

    def __init__(self, pool: list[str], symbol: str, period_ms: float, now_ms: int) -> None:
        super().__init__(period_ms, symbol, now_ms)
        self._pool = pool
        self._head = f'"s":"{symbol}","ps":"{symbol}"'

    def pop(self, now_ms: int) -> list[str]:
        number = self._move_on()
        last = now_ms * 1000 + number % 1000
        ladders = self._pool[number % _POOL]
        return [
            (
                f'{{"e":"depthUpdate","E":{now_ms},"T":{now_ms},{self._head},"U":{last - 40},"u":{last},'
                f'"pu":{last - 41},{ladders},"st":1}}'
            )
        ]


class _Deltas(_Paced):
    """Bybit order book: one snapshot, then deltas that go round the pool."""

    def __init__(self, pool: tuple[str, list[str]], depth: int, symbol: str, period_ms: float, now_ms: int) -> None:
        super().__init__(period_ms, symbol, now_ms)
        self._snapshot, self._pool = pool
        self._topic, self._symbol = f"orderbook.{depth}.{symbol}", symbol
        self._update = 0
        self.next_ms = now_ms

    def pop(self, now_ms: int) -> list[str]:
        self.next_ms += self._period_ms
        update = self._update = self._update + 1
        kind, ladders = ("snapshot", self._snapshot) if update == 1 else ("delta", self._pool[(update - 2) % _POOL])
        return [
            (
                f'{{"topic":"{self._topic}","type":"{kind}","ts":{now_ms},"data":{{"s":"{self._symbol}",{ladders},'
                f'"u":{update + 1000},"seq":{now_ms * 1000 + update}}},"cts":{now_ms}}}'
            )
        ]


class _MarkPrice(_Paced):
    """Binance mark price."""

    def __init__(self, symbol: str, now_ms: int) -> None:
        super().__init__(_SLOW_PERIOD_MS, symbol, now_ms)
        self._symbol = symbol

    def pop(self, now_ms: int) -> list[str]:
        self._move_on()
        coming = now_ms - now_ms % _NEXT_FUNDING_MS + _NEXT_FUNDING_MS
        return [
            (
                f'{{"e":"markPriceUpdate","E":{now_ms},"s":"{self._symbol}","p":"100.00000000","ap":"100.00000000",'
                f'"P":"100.00000000","i":"100.00000000","r":"0.00010000","T":{coming},"st":1}}'
            )
        ]


class _Ticker(_Paced):
    """Bybit ticker: one snapshot, then sparse deltas."""

    def __init__(self, symbol: str, now_ms: int) -> None:
        super().__init__(_SLOW_PERIOD_MS, symbol, now_ms)
        self._symbol = symbol
        self._sent = False
        self.next_ms = now_ms

    def pop(self, now_ms: int) -> list[str]:
        number = self._move_on()
        coming = now_ms - now_ms % _NEXT_FUNDING_MS + _NEXT_FUNDING_MS
        kind, members = "delta", f'"markPrice":"{100 + number % 10 / 100:.2f}"'
        if not self._sent:
            self._sent = True
            kind = "snapshot"
            members = (
                '"lastPrice":"100.00","markPrice":"100.00","indexPrice":"100.00","openInterest":"1000.000",'
                '"turnover24h":"1000000.0000","volume24h":"10000.0000","fundingIntervalHour":"8",'
                f'"fundingCap":"0.005","nextFundingTime":"{coming}","fundingRate":"0.0001",'
                '"bid1Price":"99.99","bid1Size":"1.000","ask1Price":"100.01","ask1Size":"1.000"'
            )
        return [
            (
                f'{{"topic":"tickers.{self._symbol}","type":"{kind}","data":{{"symbol":"{self._symbol}",{members}}},'
                f'"cs":{now_ms},"ts":{now_ms}}}'
            )
        ]


class LoadBinanceFeeds:
    """Makes Binance feeds of the load symbols."""

    def __init__(self, profile: LoadProfile) -> None:
        self._profile = profile
        self._pool = _pictures()

    def source(self) -> FeedSource:
        """A source for one connection."""
        return FeedSource(self.feed)

    def feed(self, stream: str, now_ms: int) -> Feed | None:
        """Pictures for ``@depth20`` streams, mark prices; None for everything else."""
        symbol, _, kind = stream.partition("@")
        if not self._known(symbol.upper()):
            return None
        if kind.startswith(f"depth{_BINANCE_LEVELS}"):
            return _Picture(self._pool, symbol.upper(), self._profile.period_ms, now_ms)
        return _MarkPrice(symbol.upper(), now_ms) if kind.startswith("markPrice") else None

    def _known(self, symbol: str) -> bool:
        found = _SYMBOL.fullmatch(symbol)
        return found is not None and 1 <= int(found[1]) <= self._profile.symbols


class LoadBybitFeeds:
    """Makes Bybit feeds of the load symbols."""

    def __init__(self, profile: LoadProfile) -> None:
        self._profile = profile
        self._pool = _deltas()
        self._names = frozenset(profile.names())

    def source(self) -> FeedSource:
        """A source for one connection."""
        return FeedSource(self.feed)

    def feed(self, topic: str, now_ms: int) -> Feed | None:
        """Books of depth 50 and tickers; None for everything else."""
        kind, _, rest = topic.partition(".")
        symbol = rest.rpartition(".")[2]
        if symbol not in self._names:
            return None
        if kind == "orderbook" and rest.startswith(f"{_BYBIT_LEVELS}."):
            return _Deltas(self._pool, _BYBIT_LEVELS, symbol, self._profile.period_ms, now_ms)
        return _Ticker(symbol, now_ms) if kind == "tickers" else None


def _level(tick: int, units: int) -> str:
    return f'["{tick / 100:.2f}","{units / 1000:.3f}"]'


def _pictures() -> list[str]:
    """Ladders of 20 levels a side around slowly moving middles."""
    rng = generator(key_of(0, "load", "pictures"))
    pool = []
    for number in range(_POOL):
        middle = _MIDDLE + round(20 * math.sin(2 * math.pi * number / _POOL))
        sizes = rng.integers(1, 50_000, (2, _BINANCE_LEVELS)).tolist()
        bids = ",".join(_level(middle - 1 - i, size) for i, size in enumerate(sizes[0]))
        asks = ",".join(_level(middle + 1 + i, size) for i, size in enumerate(sizes[1]))
        pool.append(f'"b":[{bids}],"a":[{asks}]')
    return pool


def _deltas() -> tuple[str, list[str]]:
    """A snapshot of 50 levels a side, and deltas after which the sizes are those of the snapshot again."""
    rng = generator(key_of(0, "load", "deltas"))
    first = rng.integers(1, 50_000, (2, _BYBIT_LEVELS))
    states = [first]
    for _ in range(_POOL - 1):
        state = states[-1].copy()
        for side in (0, 1):
            changed = rng.choice(_BYBIT_LEVELS, _CHANGED_LEVELS, replace=False)
            state[side, changed] = rng.integers(1, 50_000, _CHANGED_LEVELS)
        states.append(state)
    states.append(first)
    snapshot = _sides([(i, size) for i, size in enumerate(first[0].tolist())],
                      [(i, size) for i, size in enumerate(first[1].tolist())])  # fmt: skip
    deltas = []
    for before, after in pairwise(states):
        bids, asks = ([(int(i), int(after[side, i])) for i in np.flatnonzero(before[side] != after[side])]
                      for side in (0, 1))  # fmt: skip
        deltas.append(_sides(bids, asks))
    return snapshot, deltas


def _sides(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> str:
    below = ",".join(_level(_MIDDLE - 1 - i, size) for i, size in bids)
    above = ",".join(_level(_MIDDLE + 1 + i, size) for i, size in asks)
    return f'"b":[{below}],"a":[{above}]'
