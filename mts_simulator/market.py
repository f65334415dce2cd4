"""The seeded market minute by minute: prices, candles and volumes between the daily boundaries of ``paths``.

What belongs here: pure numpy over cached blocks of 32 days. A block depends on the seed, the coin and its
number only, so every window shows the same bars. Within a day the log price is a Brownian bridge from
midnight to midnight; the last minute of a still open candle is shown as far as it has got.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS
from mts_simulator.noise import Floats, Ints, generator, key_of, uniform
from mts_simulator.paths import DAYS, FIRST_DAY, MARKET_VOLATILITY, STRESS_VOLATILITY, World

if TYPE_CHECKING:
    from mts_simulator.coins import Coin
    from mts_simulator.intervals import Interval

FIRST_MS = FIRST_DAY * DAY_MS
LAST_MS = (FIRST_DAY + DAYS) * DAY_MS

_BLOCK_DAYS = 32
_MINUTES = DAY_MS // MINUTE_MS
_BLOCK_MINUTES = _BLOCK_DAYS * _MINUTES
_BLOCK_MS = _BLOCK_DAYS * DAY_MS
_CACHED_BLOCKS = 40
_CACHED_VENUE_BLOCKS = 24
_WICK = 0.6
_VOLUME_NOISE = 0.5

VENUE_SHARE = {"binance": 0.30, "bybit": 0.11}
"""Part of a coin's volume that trades on each exchange's perpetual."""

_BASIS_BPS = {"binance": 1.2, "bybit": 1.6}
_BASIS_PERIODS_MS = (37 * MINUTE_MS, 11 * HOUR_MS)
_TRADE_USD = 4_000.0


@dataclass(frozen=True)
class Bars:
    """Candles of one market, column by column; all arrays have the same length.

    ``volume`` is in coins, ``quote_volume`` in USD, ``taker_share`` the part of it bought by takers.
    """

    open_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    quote_volume: Floats
    trades: Ints
    taker_share: Floats


@dataclass(frozen=True)
class _Block:
    """One block of minutes: ``price`` and ``traded`` (USD so far) at its ``n + 1`` minute boundaries."""

    price: Floats
    high: Floats
    low: Floats
    traded: Floats

    def rows(self, first: int, last: int) -> _Block:
        """The minutes ``[first, last)`` of this block."""
        boundary = slice(first, last + 1)
        return _Block(self.price[boundary], self.high[first:last], self.low[first:last], self.traded[boundary])


class Market:
    """Prices and volumes of every coin at any time from 2017 on.

    Args:
        seed: The same seed shows the same market.
    """

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self._seed = seed
        self._daily = lru_cache(maxsize=None)(self._load_daily)
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._load_block)
        self._minutes = lru_cache(maxsize=_CACHED_VENUE_BLOCKS)(self._load_minutes)
        self._hours = lru_cache(maxsize=None)(self._load_hours)

    def price(self, coin: Coin, ms: Ints) -> Floats:
        """Price over all venues in USD at each time."""
        return self._interpolate(coin, ms, "price")

    def supply(self, coin: Coin, ms: Ints) -> Floats:
        """Circulating supply in coins at each time."""
        return self.world.supply(coin, (ms - FIRST_MS) / DAY_MS)

    def trailing_volume_usd(self, coin: Coin, ms: Ints) -> Floats:
        """Volume over all venues in the 24 hours before each time, in USD."""
        start = np.maximum(ms - DAY_MS, FIRST_MS)
        return self._interpolate(coin, ms, "traded") - self._interpolate(coin, start, "traded")

    def venue_price(self, coin: Coin, venue: str, ms: Ints) -> Floats:
        """Price of the perpetual on one exchange: a few bps around the price over all venues."""
        return self.price(coin, ms) * self._basis(coin, venue, ms)

    def bars(self, coin: Coin, venue: str, interval: Interval, opens: Ints, now_ms: int) -> Bars:
        """Candles of the perpetual that open at ``opens`` (ascending, contiguous, none in the future).

        The candle that contains ``now_ms`` holds what has happened so far.
        """
        hourly = interval.length_ms == 0 or interval.length_ms % HOUR_MS == 0
        step = HOUR_MS if hourly else MINUTE_MS
        end = min(interval.shift(int(opens[-1]), 1), (now_ms // step + 1) * step)
        cut = self._steps(coin, venue, int(opens[0]), end, step)
        if end > now_ms:
            cut = self._open_step(coin, venue, cut, end - step, now_ms)
        starts = ((opens - opens[0]) // step).astype(np.int64)
        stops = np.append(starts[1:], len(cut.high))
        traded = (cut.traded[stops] - cut.traded[starts]) * VENUE_SHARE[venue]
        high = np.maximum.reduceat(cut.high, starts)
        low = np.minimum.reduceat(cut.low, starts)
        key = key_of(self._seed, "taker", venue, coin.id, interval.name)
        return Bars(
            open_ms=opens,
            open=cut.price[starts],
            high=high,
            low=low,
            close=cut.price[stops],
            volume=traded / np.sqrt(high * low),
            quote_volume=traded,
            trades=(traded / _TRADE_USD).astype(np.int64) + 1,
            taker_share=0.4 + 0.2 * uniform(key, opens),
        )

    def _interpolate(self, coin: Coin, ms: Ints, field: str) -> Floats:
        """Value at each time, straight between minute boundaries; whole days need no minutes."""
        daily_price, daily_traded = self._daily(coin)
        daily = daily_price if field == "price" else daily_traded
        at = np.clip(ms, FIRST_MS, LAST_MS) - FIRST_MS
        day, rest = np.divmod(at, DAY_MS)
        values: Floats = daily[day]
        inside = np.flatnonzero(rest)
        numbers = at[inside] // _BLOCK_MS
        for number in np.unique(numbers).tolist():
            here = inside[numbers == number]
            line: Floats = getattr(self._block(coin, number), field)
            base = 0.0 if field == "price" else daily[number * _BLOCK_DAYS]
            minute, part = np.divmod(at[here] - number * _BLOCK_MS, MINUTE_MS)
            before = line[minute]
            values[here] = base + before + (line[minute + 1] - before) * (part / MINUTE_MS)
        return values

    def _basis(self, coin: Coin, venue: str, ms: Ints) -> Floats:
        """Factor of a venue's price: two slow waves whose phases belong to coin and venue."""
        waves = np.zeros(len(ms))
        for i, period in enumerate(_BASIS_PERIODS_MS):
            phase = key_of(self._seed, "basis", venue, coin.id, str(i)) % period
            waves += np.sin(2 * np.pi * ((ms + phase) % period) / period)
        return 1.0 + _BASIS_BPS[venue] * 1e-4 * waves

    def _steps(self, coin: Coin, venue: str, start: int, end: int, step: int) -> _Block:
        """All minutes or hours of ``[start, end)`` on one venue, across blocks."""
        load = self._minutes if step == MINUTE_MS else self._hours
        size = _BLOCK_MS // step
        first, last = (start - FIRST_MS) // step, (end - FIRST_MS) // step
        numbers = range(first // size, (last - 1) // size + 1)
        parts = [load(coin, venue, n).rows(max(first - n * size, 0), min(last - n * size, size)) for n in numbers]
        before = self._daily(coin)[1]
        traded = [part.traded + before[n * _BLOCK_DAYS] for n, part in zip(numbers, parts, strict=True)]
        return _Block(
            price=np.concatenate([parts[0].price[:1], *(part.price[1:] for part in parts)]),
            high=np.concatenate([part.high for part in parts]),
            low=np.concatenate([part.low for part in parts]),
            traded=np.concatenate([traded[0][:1], *(line[1:] for line in traded)]),
        )

    def _open_step(self, coin: Coin, venue: str, cut: _Block, opened: int, now_ms: int) -> _Block:
        """``cut`` with its last minute or hour, which opened at ``opened``, as far as ``now_ms``."""
        minute = now_ms - now_ms % MINUTE_MS
        reached = self.venue_price(coin, venue, np.array([opened, minute, now_ms]))
        high, low = float(reached.max()), float(reached.min())
        if minute > opened:
            done = self._steps(coin, venue, opened, minute, MINUTE_MS)
            high, low = max(high, float(done.high.max())), min(low, float(done.low.min()))
        traded = self._interpolate(coin, np.array([now_ms]), "traded")
        return _Block(
            price=np.append(cut.price[:-1], reached[-1]),
            high=np.append(cut.high[:-1], high),
            low=np.append(cut.low[:-1], low),
            traded=np.append(cut.traded[:-1], traded),
        )

    def _load_daily(self, coin: Coin) -> tuple[Floats, Floats]:
        """Price and USD traded so far at each midnight."""
        traded = np.append(0.0, np.cumsum(self.world.volume_usd(coin)))
        return np.exp(self.world.log_price(coin)), traded

    def _load_block(self, coin: Coin, number: int) -> _Block:
        days = slice(number * _BLOCK_DAYS, min((number + 1) * _BLOCK_DAYS, DAYS))
        price, traded = self._daily(coin)
        bounds = np.log(price[days.start : days.stop + 1])
        count = len(bounds) - 1
        rng = generator(key_of(self._seed, "minutes", coin.id), number)
        steps, up, down, busy = (rng.standard_normal((count, _MINUTES), dtype=np.float32) for _ in range(4))
        sigma = self._minute_sigma(coin, days)[:, None]
        walk = np.cumsum(steps, axis=1, dtype=np.float64) * sigma
        share = np.arange(1, _MINUTES + 1) / _MINUTES
        inner = bounds[:-1, None] + share * (np.diff(bounds)[:, None] - walk[:, -1:]) + walk
        inner[:, -1] = bounds[1:]
        line = np.exp(np.append(bounds[0], inner.ravel()))
        wick = _WICK * sigma
        high = np.maximum(line[:-1], line[1:]) * np.exp(np.abs(up) * wick).ravel()
        low = np.minimum(line[:-1], line[1:]) * np.exp(-np.abs(down) * wick).ravel()
        return _Block(line, high, low, _traded(busy, traded[days.start : days.stop + 1]))

    def _load_minutes(self, coin: Coin, venue: str, number: int) -> _Block:
        """The block as one venue's perpetual trades it."""
        block = self._block(coin, number)
        at = FIRST_MS + number * _BLOCK_MS + np.arange(len(block.price), dtype=np.int64) * MINUTE_MS
        basis = self._basis(coin, venue, at)
        return _Block(
            price=block.price * basis,
            high=block.high * np.maximum(basis[:-1], basis[1:]),
            low=block.low * np.minimum(basis[:-1], basis[1:]),
            traded=block.traded,
        )

    def _load_hours(self, coin: Coin, venue: str, number: int) -> _Block:
        minutes = self._minutes(coin, venue, number)
        starts = np.arange(0, len(minutes.high), HOUR_MS // MINUTE_MS)
        return _Block(
            price=minutes.price[:: HOUR_MS // MINUTE_MS].copy(),
            high=np.maximum.reduceat(minutes.high, starts),
            low=np.minimum.reduceat(minutes.low, starts),
            traded=minutes.traded[:: HOUR_MS // MINUTE_MS].copy(),
        )

    def _minute_sigma(self, coin: Coin, days: slice) -> Floats:
        stress = self.world.stress[days]
        daily = np.hypot(coin.beta * MARKET_VOLATILITY, coin.own_volatility)
        lively = 0.7 + 0.6 * uniform(key_of(self._seed, "lively", coin.id), np.arange(days.start, days.stop))
        sigma: Floats = daily * lively * np.where(stress > 0, STRESS_VOLATILITY, 1.0) / np.sqrt(_MINUTES)
        return sigma


def _traded(busy: npt.NDArray[np.float32], daily: Floats) -> Floats:
    """USD traded since the start of the block at each minute, from the days' totals."""
    minutes = np.arange(_MINUTES) / _MINUTES
    clock = 1.0 + 0.5 * np.sin(2 * np.pi * (minutes - 0.35))
    weight = clock * np.exp(_VOLUME_NOISE * busy)
    share = np.cumsum(weight, axis=1, dtype=np.float64)
    share /= share[:, -1:]
    inner = daily[:-1, None] + share * np.diff(daily)[:, None]
    traded: Floats = np.append(daily[0], inner.ravel()) - daily[0]
    return traded
