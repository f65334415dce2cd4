"""Binance's perpetuals of the seeded market: the instrument list, adjusted intervals, special settlements.

What belongs here: what Binance publishes besides the data that both exchanges share.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.binance import instrument_row
from mts_simulator.clock import HOUR_MS, MINUTE_MS, from_ms, to_ms
from mts_simulator.coins import COINS, COINS_BY_PERPETUAL, DEFAULT_FUNDING_HOURS, Coin
from mts_simulator.market import FIRST_MS
from mts_simulator.perpetuals import Settlement, Window
from mts_simulator.seeded import FUNDING_SWITCH_MS, SeededPerpetuals

if TYPE_CHECKING:
    from mts_simulator.wire import JsonObject

SPECIAL_SYMBOL = "ONEUSDT"
"""Has special settlements besides its regular ones. On the exchange they adjust equity perpetuals for dividends."""
_SPECIAL_MONTHS = (1, 4, 7, 10)
_SPECIAL_AFTER_MS = 13 * HOUR_MS + 30 * MINUTE_MS
_SPECIAL_RATE = "-0.00250000"


class SeededBinance(SeededPerpetuals):
    """Seeded perpetuals with Binance's instrument list and special settlements."""

    def settlements(self, symbol: str, window: Window, now_ms: int) -> list[Settlement]:
        """Settled funding in ascending order; the special ones at 13:30 on the first day of a quarter."""
        settled = super().settlements(symbol, window, now_ms)
        if symbol == SPECIAL_SYMBOL:
            settled = sorted(settled + self._specials(window, now_ms))
        return settled[-window.limit :] if window.newest else settled[: window.limit]

    def _specials(self, window: Window, now_ms: int) -> list[Settlement]:
        start = max(FIRST_MS, window.start_ms or 0)
        end = min(now_ms, now_ms if window.end_ms is None else window.end_ms)
        firsts = [
            datetime(year, month, 1, tzinfo=UTC)
            for year in range(from_ms(start).year, from_ms(end).year + 1)
            for month in _SPECIAL_MONTHS
        ]
        times = [ms for first in firsts if start <= (ms := to_ms(first) + _SPECIAL_AFTER_MS) <= end]
        marks = self.market.venue_price(COINS_BY_PERPETUAL[SPECIAL_SYMBOL], self.venue, np.array(times, dtype=np.int64))
        return [Settlement(ms, _SPECIAL_RATE, f"{mark:.8f}", "Special") for ms, mark in zip(times, marks, strict=True)]

    def instruments(self) -> list[JsonObject]:
        """All perpetuals, one delivery future and one delisted perpetual."""
        rows = [perpetual_row(coin) for coin in COINS if coin.has_perpetual]
        delivery = {
            **rows[0],
            "symbol": "BTCUSDT_270326",
            "contractType": "CURRENT_QUARTER",
            "deliveryDate": 1_806_048_000_000,
        }
        settled = {
            **rows[-1],
            "symbol": "RNDRUSDT",
            "pair": "RNDRUSDT",
            "baseAsset": "RNDR",
            "status": "SETTLING",
        }
        return [*rows, delivery, settled]

    def funding_info(self) -> list[JsonObject]:
        """Adjusted symbols only: those that do not settle every 8 hours."""
        return [
            {
                "symbol": coin.perpetual,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": coin.binance_funding_hours,
                "disclaimer": False,
                "updateTime": FUNDING_SWITCH_MS,
            }
            for coin in COINS
            if coin.has_perpetual and coin.binance_funding_hours != DEFAULT_FUNDING_HOURS
        ]


def perpetual_row(coin: Coin) -> JsonObject:
    """The ``exchangeInfo`` row of a coin's perpetual."""
    return instrument_row(coin.perpetual, coin.symbol, coin.price_decimals, coin.quantity_decimals)
