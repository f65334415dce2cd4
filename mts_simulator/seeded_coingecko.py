"""Seeded CoinGecko: rankings and irregular price points of the seeded market.

What belongs here: the seeded ``CoinGeckoData``. Points lie up to minutes after their grid time, each always
at the same moment; daily points lie at midnight; the last point of a chart that reaches now is now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.clock import DAY_MS, HOUR_MS, from_ms
from mts_simulator.coingecko import FIVE_MINUTES_MS, Point
from mts_simulator.coins import COINS, COINS_BY_ID, Coin
from mts_simulator.market import FIRST_MS, Market
from mts_simulator.noise import Ints, key_of, uniform

if TYPE_CHECKING:
    from mts_simulator.wire import JsonObject

_LATENESS_MS = {FIVE_MINUTES_MS: 170_000, HOUR_MS: 240_000, DAY_MS: 0}


class SeededCoinGecko:
    """All coins of the seeded market, the stable one included.

    Args:
        market: The seeded market.
        seed: The seed of the market.
    """

    first_ms = FIRST_MS

    def __init__(self, market: Market, seed: int) -> None:
        self._market = market
        self._seed = seed

    def coins(self, now_ms: int) -> list[JsonObject]:
        """Rows of ``/coins/markets`` at this moment, the largest market cap first."""
        rows = sorted((self._row(coin, now_ms) for coin in COINS), key=lambda row: -row["market_cap"])
        for rank, row in enumerate(rows, start=1):
            row["market_cap_rank"] = rank
        return rows

    def chart(self, coin_id: str, start_ms: int, end_ms: int, step_ms: int, now_ms: int) -> list[Point]:
        """Points in ``[start_ms, end_ms]`` about every ``step_ms``, nothing later than now."""
        coin = COINS_BY_ID[coin_id]
        start, end = max(start_ms, FIRST_MS), min(end_ms, now_ms)
        if end < start:
            return []
        slots = np.arange(start // step_ms, end // step_ms + 1, dtype=np.int64)
        key = key_of(self._seed, "late", coin.id, str(step_ms))
        times = slots * step_ms + (uniform(key, slots) * _LATENESS_MS[step_ms]).astype(np.int64)
        times = times[(times >= start) & (times <= end)]
        if end == now_ms and (not len(times) or times[-1] < now_ms):
            times = np.append(times, now_ms)
        return self._points(coin, times)

    def _points(self, coin: Coin, times: Ints) -> list[Point]:
        price = self._market.price(coin, times)
        cap = price * self._market.supply(coin, times)
        volume = self._market.trailing_volume_usd(coin, times)
        columns = (times.tolist(), price.tolist(), cap.tolist(), volume.tolist())
        return [Point(*row) for row in zip(*columns, strict=True)]

    def _row(self, coin: Coin, now_ms: int) -> JsonObject:
        day = np.arange(now_ms - DAY_MS, now_ms + 1, DAY_MS // 48, dtype=np.int64)
        prices = self._market.price(coin, day)
        supply = self._market.supply(coin, day)
        price, before = float(prices[-1]), float(prices[0])
        cap, cap_before = price * float(supply[-1]), before * float(supply[0])
        return {
            "id": coin.id,
            "symbol": coin.symbol.lower(),
            "name": coin.name,
            "image": f"https://assets.coingecko.com/coins/images/{coin.id}.png",
            "current_price": price,
            "market_cap": round(cap),
            "market_cap_rank": 0,
            "fully_diluted_valuation": None,
            "total_volume": round(float(self._market.trailing_volume_usd(coin, day[-1:])[0])),
            "high_24h": float(prices.max()),
            "low_24h": float(prices.min()),
            "price_change_24h": price - before,
            "price_change_percentage_24h": 100 * (price / before - 1),
            "market_cap_change_24h": cap - cap_before,
            "market_cap_change_percentage_24h": 100 * (cap / cap_before - 1),
            "circulating_supply": float(supply[-1]),
            "total_supply": None,
            "max_supply": None,
            "roi": None,
            "last_updated": from_ms(now_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
