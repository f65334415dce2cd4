"""The candle calendar: where candles of each interval open.

What belongs here: interval names of both exchanges and the arithmetic of open times. Weeks open on Monday,
months on the first, everything else on multiples of its length since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS

if TYPE_CHECKING:
    from mts_simulator.noise import Ints

_FIRST_MONDAY_MS = 4 * DAY_MS


@dataclass(frozen=True)
class Interval:
    """A candle length.

    Attributes:
        name: Binance's spelling, such as ``1h``.
        length_ms: The length, or 0 for calendar months.
        anchor_ms: A time at which a candle opens.
    """

    name: str
    length_ms: int
    anchor_ms: int = 0

    def floor(self, ms: int) -> int:
        """Open time of the candle that contains ``ms``."""
        if self.length_ms:
            return ms - (ms - self.anchor_ms) % self.length_ms
        return int(_month_open(_month_of(ms)))

    def ceil(self, ms: int) -> int:
        """The first open time at or after ``ms``."""
        opened = self.floor(ms)
        return opened if opened == ms else self.shift(opened, 1)

    def shift(self, opened: int, candles: int) -> int:
        """The open time ``candles`` candles after the one that opens at ``opened``."""
        if self.length_ms:
            return opened + candles * self.length_ms
        return int(_month_open(_month_of(opened) + candles))

    def opens(self, first: int, last: int) -> Ints:
        """All open times from ``first`` to ``last``, both of which are open times."""
        if self.length_ms:
            return np.arange(first, last + 1, self.length_ms, dtype=np.int64)
        months = np.arange(_month_of(first), _month_of(last) + 1)
        return months.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)


def _month_of(ms: int) -> int:
    return int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(np.int64))


def _month_open(month: int) -> np.int64:
    opened: np.int64 = np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64)
    return opened


_LENGTHS_MS = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
}

INTERVALS: dict[str, Interval] = {
    **{name: Interval(name, length) for name, length in _LENGTHS_MS.items()},
    "1w": Interval("1w", 7 * DAY_MS, _FIRST_MONDAY_MS),
    "1M": Interval("1M", 0),
}
"""Binance's intervals by name."""

BYBIT_INTERVALS: dict[str, Interval] = {
    "1": INTERVALS["1m"],
    "3": INTERVALS["3m"],
    "5": INTERVALS["5m"],
    "15": INTERVALS["15m"],
    "30": INTERVALS["30m"],
    "60": INTERVALS["1h"],
    "120": INTERVALS["2h"],
    "240": INTERVALS["4h"],
    "360": INTERVALS["6h"],
    "720": INTERVALS["12h"],
    "D": INTERVALS["1d"],
    "W": INTERVALS["1w"],
    "M": INTERVALS["1M"],
}
"""Bybit's intervals by name."""
