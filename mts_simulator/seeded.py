"""Seeded perpetuals: the market of ``market`` and the books of ``books`` as the exchanges' data.

What belongs here: candles as text, funding, mark prices, ladders. Wire shapes that only one exchange has are
built in its wire module.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.books import STEP_MS, SeededBooks, Side
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS
from mts_simulator.coins import COINS_BY_PERPETUAL, DEFAULT_FUNDING_HOURS, Coin
from mts_simulator.market import FIRST_MS, Bars, Market
from mts_simulator.noise import Floats, Ints, key_of, uniform
from mts_simulator.paths import DAYS, FIRST_DAY
from mts_simulator.perpetuals import Candle, Ladder, Mark, Settlement, Window

if TYPE_CHECKING:
    from mts_simulator.intervals import Interval

FUNDING_SWITCH_MS = 1_740_787_200_000
"""2025-03-01: before it every symbol settled every 8 hours."""

_INTEREST_RATE = 1e-4
_RATE_SWING = 2.2e-4
_RATE_LIMIT = 3e-3
_SETTLE_JITTER_MS = 15
_USUAL_WEEK = 0.06
_UPDATES_A_STEP = 37
_MIDNIGHTS = FIRST_DAY + np.arange(DAYS + 1)


class SeededPerpetuals:
    """The perpetuals of one exchange.

    Args:
        market: The seeded market.
        venue: ``binance`` or ``bybit``.
        seed: The seed of the market.
        funding_every_s: Settle this often instead of every 8, 4 or 1 hours, for tests that cannot wait.
    """

    def __init__(self, market: Market, venue: str, seed: int, funding_every_s: int | None = None) -> None:
        self.market = market
        self.venue = venue
        self.books = SeededBooks(market, venue, seed)
        self._seed = seed
        self._funding_every_ms = None if funding_every_s is None else funding_every_s * 1000

    def symbols(self) -> list[str]:
        """Symbols of all perpetuals."""
        return list(COINS_BY_PERPETUAL)

    def candles(self, symbol: str, interval: Interval, window: Window, now_ms: int) -> list[Candle]:
        """Candles in ascending order, the still open one included."""
        opens = _opens(interval, window, now_ms)
        coin = COINS_BY_PERPETUAL.get(symbol)
        if coin is None or not len(opens):
            return []
        bars = self.market.bars(coin, self.venue, interval, opens, now_ms)
        return _candles(coin, bars, interval)

    def settlements(self, symbol: str, window: Window, now_ms: int) -> list[Settlement]:
        """Settled funding in ascending order, nothing later than ``now_ms``."""
        coin = COINS_BY_PERPETUAL.get(symbol)
        if coin is None:
            return []
        start = max(FIRST_MS, window.start_ms or 0)
        end = min(now_ms, now_ms if window.end_ms is None else window.end_ms)
        times = self._settle_times(coin, start, end, window)
        raw = times + (uniform(self._key("late", coin), times // MINUTE_MS) * _SETTLE_JITTER_MS).astype(np.int64)
        kept = (raw >= start) & (raw <= end)
        times, raw = times[kept], raw[kept]
        if window.newest:
            times, raw = times[-window.limit :], raw[-window.limit :]
        times, raw = times[: window.limit], raw[: window.limit]
        rates = self.funding_rate(coin, times)
        marks = self.market.venue_price(coin, self.venue, times)
        return [
            Settlement(int(ms), f"{rate:.8f}", f"{mark:.8f}") for ms, rate, mark in zip(raw, rates, marks, strict=True)
        ]

    def mark(self, symbol: str, now_ms: int) -> Mark | None:
        """Mark and index price and the running estimate of the coming settlement."""
        coin = COINS_BY_PERPETUAL.get(symbol)
        if coin is None:
            return None
        at = np.array([now_ms], dtype=np.int64)
        step = self.funding_step_ms(coin, now_ms)
        coming = now_ms - now_ms % step + step
        left = (coming - now_ms) / step
        wobble = float(uniform(self._key("estimate", coin), now_ms // MINUTE_MS)) - 0.5
        rate = float(self.funding_rate(coin, np.array([coming]))[0]) + 0.4e-4 * wobble * left
        mark = float(self.market.venue_price(coin, self.venue, at)[0])
        index = float(self.market.price(coin, at)[0])
        return Mark(
            mark_price=f"{mark:.8f}",
            index_price=f"{index:.8f}",
            settle_price=f"{(mark + index) / 2:.8f}",
            rate=f"{rate:.8f}",
            next_funding_ms=coming,
            funding_hours=max(1, step // HOUR_MS),
        )

    def ladder(self, symbol: str, levels: int, now_ms: int) -> Ladder:
        """The book at the last whole step, at most ``levels`` a side."""
        coin = COINS_BY_PERPETUAL.get(symbol)
        step = now_ms // STEP_MS
        if coin is None:
            return Ladder([], [], 0, 0, step * STEP_MS)
        state = self.books.state(coin, step, levels)
        return Ladder(
            bids=ladder_rows(coin, state.bids),
            asks=ladder_rows(coin, state.asks),
            update_id=update_id(step),
            sequence=update_id(step) * 3,
            time_ms=step * STEP_MS,
        )

    def funding_hours(self, coin: Coin, ms: int) -> int:
        """Hours between settlements at ``ms``."""
        if ms < FUNDING_SWITCH_MS:
            return DEFAULT_FUNDING_HOURS
        return coin.binance_funding_hours if self.venue == "binance" else coin.bybit_funding_hours

    def funding_step_ms(self, coin: Coin, ms: int) -> int:
        """Time between settlements at ``ms``."""
        return self._funding_every_ms or self.funding_hours(coin, ms) * HOUR_MS

    def funding_rate(self, coin: Coin, times: Ints) -> Floats:
        """The rate settled at each of ``times``: interest, the market's mood, and the venue's own drift."""
        mood = np.interp(times / DAY_MS, _MIDNIGHTS, self._mood)
        own = np.zeros(len(times))
        for i, period in enumerate((3 * DAY_MS, 17 * DAY_MS)):
            phase = self._key(f"funding{i}", coin) % period
            own += np.sin(2 * np.pi * ((times + phase) % period) / period)
        noise = uniform(self._key("rate", coin), times // MINUTE_MS) - 0.5
        hours = np.array([self.funding_hours(coin, int(ms)) for ms in times])
        rate = _INTEREST_RATE + _RATE_SWING * (0.7 * mood + 0.5 * own + 0.4 * noise)
        settled: Floats = np.clip(rate, -_RATE_LIMIT, _RATE_LIMIT) * hours / DEFAULT_FUNDING_HOURS
        return settled

    @cached_property
    def _mood(self) -> Floats:
        """The market's move over a week, in units of its usual size, at each midnight."""
        market = self.market.world.market
        week = market - np.concatenate([np.repeat(market[0], 7), market[:-7]])
        mood: Floats = np.tanh(week / _USUAL_WEEK)
        return mood

    def _settle_times(self, coin: Coin, start: int, end: int, window: Window) -> Ints:
        """Settlement times in ``[start, end]``, a little more than the window's limit at its wanted end."""
        pieces = []
        for low, high in ((start, min(end, FUNDING_SWITCH_MS - 1)), (max(start, FUNDING_SWITCH_MS), end)):
            if high < low:
                continue
            step = self.funding_step_ms(coin, low)
            first = -(-(low - _SETTLE_JITTER_MS) // step)
            pieces.append(np.arange(first, high // step + 1, dtype=np.int64) * step)
        times: Ints = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
        spare = window.limit + 2
        return times[-spare:] if window.newest else times[:spare]

    def _key(self, name: str, coin: Coin) -> int:
        return key_of(self._seed, self.venue, name, coin.id)


def update_id(step: int) -> int:
    """The id of the last change that the book of ``step`` contains."""
    return step * _UPDATES_A_STEP


def side_pairs(side: Side) -> list[tuple[int, int]]:
    """(price tick, size) of one side, best first."""
    return list(zip(side.ticks.tolist(), side.sizes.tolist(), strict=True))


def ladder_rows(coin: Coin, side: Side) -> list[list[str]]:
    """[price, size] texts of one side."""
    price, size = 10**coin.price_decimals, 10**coin.quantity_decimals
    as_price, as_size = f"%.{coin.price_decimals}f", f"%.{coin.quantity_decimals}f"
    return [[as_price % (tick / price), as_size % (units / size)] for tick, units in side_pairs(side)]


def levels_json(coin: Coin, levels: list[tuple[int, int]], gone: str | None = None) -> str:
    """(price tick, size) pairs as the JSON array of a frame; ``gone`` is how a size of 0 is written."""
    price, size = 10**coin.price_decimals, 10**coin.quantity_decimals
    full = f'["%.{coin.price_decimals}f","%.{coin.quantity_decimals}f"]'
    empty = full if gone is None else f'["%.{coin.price_decimals}f","{gone}%.0s"]'
    rows = [(full if units else empty) % (tick / price, units / size) for tick, units in levels]
    return f"[{','.join(rows)}]"


def _opens(interval: Interval, window: Window, now_ms: int) -> Ints:
    """Open times that the window asks for, none in the future, none before the first day."""
    newest = interval.floor(min(now_ms, now_ms if window.end_ms is None else window.end_ms))
    oldest = interval.ceil(max(FIRST_MS, window.start_ms or 0))
    if newest < oldest:
        return np.empty(0, dtype=np.int64)
    if window.newest:
        oldest = max(oldest, interval.shift(newest, 1 - window.limit))
    else:
        newest = min(newest, interval.shift(oldest, window.limit - 1))
    return interval.opens(oldest, newest)


def _candles(coin: Coin, bars: Bars, interval: Interval) -> list[Candle]:
    """Bars as text, prices on the tick."""
    price, quantity = f"%.{coin.price_decimals}f", f"%.{coin.quantity_decimals}f"
    rows = zip(
        bars.open_ms.tolist(),
        bars.open.tolist(),
        bars.high.tolist(),
        bars.low.tolist(),
        bars.close.tolist(),
        bars.volume.tolist(),
        bars.quote_volume.tolist(),
        bars.trades.tolist(),
        bars.taker_share.tolist(),
        strict=True,
    )
    return [
        Candle(
            open_ms=opened,
            open=price % o,
            high=price % h,
            low=price % low,
            close=price % c,
            volume=quantity % volume,
            close_ms=interval.shift(opened, 1) - 1,
            quote_volume=f"{quote:.5f}",
            trades=trades,
            taker_volume=quantity % (volume * taker),
            taker_quote_volume=f"{quote * taker:.5f}",
        )
        for opened, o, h, low, c, volume, quote, trades, taker in rows
    ]
