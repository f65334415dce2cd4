"""The seeded world day by day: the crypto market, its stress episodes, the VIX, and each coin's price.

What belongs here: daily paths from 2017 on, as pure functions of the seed. Minutes are filled in by
``market``, publication dates by ``macro``.

The crypto market factor and the log VIX take daily shocks whose correlation changes by regime (some strongly
negative, some positive); in a stress episode, at least one every ten months, crypto falls while the VIX
jumps. All log prices revert slowly to a growing level, so they stay plausible for decades.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.clock import day_number
from mts_simulator.noise import Floats, generator, key_of

if TYPE_CHECKING:
    from mts_simulator.coins import Coin

FIRST_DAY = day_number(date(2017, 1, 1))
DAYS = day_number(date(2042, 1, 1)) - FIRST_DAY

MARKET_VOLATILITY = 0.024
_MARKET_REVERSION = 0.008
_OWN_REVERSION = 0.004
_PEG_REVERSION = 0.5
_CYCLE_YEARS = 4.0
_CYCLE_SWING = 0.45
_LEVEL_DAY = day_number(date(2021, 7, 1)) - FIRST_DAY

_VIX_CALM = np.log(16.5)
_VIX_REVERSION = 0.05
_VIX_VOLATILITY = 0.055
_VIX_BOUNDS = (9.0, 85.0)

_REGIME_CORRELATIONS = (-0.95, 0.92, -0.90, 0.0, -0.45)
_REGIME_DAYS = (45, 110)

_STRESS_GAP_DAYS = (110, 290)
_STRESS_DAYS = 12
_STRESS_MARKET_DRIFT = -0.022
_STRESS_VIX_DRIFT = 0.085
_STRESS_CORRELATION = -0.95
STRESS_VOLATILITY = 1.7


@dataclass(frozen=True)
class World:
    """The daily state of the seeded world.

    Boundary arrays have ``DAYS + 1`` elements, one for each midnight UTC; the others one for each day.
    """

    seed: int

    @cached_property
    def stress(self) -> Floats:
        """1 on days of a stress episode, else 0."""
        rng = generator(key_of(self.seed, "stress"))
        stress = np.zeros(DAYS)
        day = int(rng.integers(*_STRESS_GAP_DAYS)) // 2
        while day < DAYS:
            stress[day : day + _STRESS_DAYS] = 1.0
            day += _STRESS_DAYS + int(rng.integers(*_STRESS_GAP_DAYS))
        return stress

    @cached_property
    def correlation(self) -> Floats:
        """Correlation of the day's market shock with the day's VIX shock."""
        rng = generator(key_of(self.seed, "regime"))
        rho = np.zeros(DAYS)
        day = 0
        while day < DAYS:
            for value in rng.permutation(_REGIME_CORRELATIONS):
                length = int(rng.integers(*_REGIME_DAYS))
                rho[day : day + length] = value
                day += length
        return np.where(self.stress > 0, _STRESS_CORRELATION, rho)

    @cached_property
    def shocks(self) -> tuple[Floats, Floats]:
        """Standard normal shocks of the market and of the VIX, correlated by regime."""
        first, second = generator(key_of(self.seed, "shocks")).standard_normal((2, DAYS))
        rho = self.correlation
        return first, rho * first + np.sqrt(1 - rho**2) * second

    @cached_property
    def market(self) -> Floats:
        """Log of the crypto market at each midnight, without growth and cycle."""
        shocks = MARKET_VOLATILITY * self.shocks[0] + _STRESS_MARKET_DRIFT * self.stress
        return _reverting(shocks, _MARKET_REVERSION)

    @cached_property
    def vix(self) -> Floats:
        """The VIX at the end of each day (weekends included: the index moves, nobody prints it)."""
        shocks = _VIX_VOLATILITY * self.shocks[1] + _STRESS_VIX_DRIFT * self.stress
        level: Floats = np.exp(_VIX_CALM + _reverting(shocks, _VIX_REVERSION)[1:])
        low, high = _VIX_BOUNDS
        return np.clip(level, low, high)

    def log_price(self, coin: Coin) -> Floats:
        """Log price of a coin at each midnight."""
        own = generator(key_of(self.seed, "coin", coin.id)).standard_normal(DAYS)
        if coin.beta == 0:
            return float(np.log(coin.level_usd)) + _reverting(coin.own_volatility * own, _PEG_REVERSION)
        years = (np.arange(DAYS + 1) - _LEVEL_DAY) / 365.25
        cycle = _CYCLE_SWING * np.sin(2 * np.pi * years / _CYCLE_YEARS)
        level: Floats = np.log(coin.level_usd) + coin.growth * years + coin.beta * (cycle + self.market)
        return level + _reverting(coin.own_volatility * own, _OWN_REVERSION)

    def volume_usd(self, coin: Coin) -> Floats:
        """Volume of a coin over all venues on each day, in USD: more when the market moves."""
        noise = generator(key_of(self.seed, "volume", coin.id)).standard_normal(DAYS)
        moved = np.abs(self.shocks[0]) + 1.5 * self.stress
        years = (np.arange(DAYS) - _LEVEL_DAY) / 365.25
        factor: Floats = np.exp(0.25 * noise + 0.35 * (moved - 1.0) + 0.15 * years)
        return coin.volume_usd * factor

    def supply(self, coin: Coin, day: Floats) -> Floats:
        """Circulating supply, in coins, at times counted in days since ``FIRST_DAY``."""
        grown: Floats = coin.supply * np.exp(coin.supply_growth * (day - _LEVEL_DAY) / 365.25)
        return grown


def _reverting(shocks: Floats, reversion: float) -> Floats:
    """An AR(1) path from 0 that takes each shock and keeps ``1 - reversion`` of its level a day."""
    path = np.empty(len(shocks) + 1)
    path[0] = level = 0.0
    keep = 1.0 - reversion
    for i, shock in enumerate(shocks.tolist()):
        level = keep * level + shock
        path[i + 1] = level
    return path
