"""All clients of a run: opened when first used, closed together.

What belongs here: lifetimes. Which client answers what is in ``history``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Self

from mts_dagster.errors import ConfigError
from mts_dagster.settings import Settings
from mts_dagster.sources.binance import Binance
from mts_dagster.sources.bybit import Bybit
from mts_dagster.sources.coingecko import CoinGecko
from mts_dagster.sources.fred import Fred
from mts_dagster.sources.klines import Venue

VENUES: Mapping[str, type[Binance | Bybit]] = {"binance": Binance, "bybit": Bybit}


class Clients:
    """CoinGecko, FRED and the venues for one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients that were used."""
        self._open.close()

    @cached_property
    def coingecko(self) -> CoinGecko:
        """CoinGecko with the plan of the settings."""
        return self._open.enter_context(CoinGecko(self._settings))

    @cached_property
    def fred(self) -> Fred:
        """FRED with the key of the settings."""
        return self._open.enter_context(Fred(self._settings))

    @cached_property
    def venues(self) -> tuple[Venue, ...]:
        """Exchanges in the order of ``MTS_KLINE_VENUES``.

        Raises:
            ConfigError: an exchange that MTS does not know.
        """
        names = self._settings.kline_venues
        if unknown := [name for name in names if name not in VENUES]:
            raise ConfigError(f"setting MTS_KLINE_VENUES: unknown {', '.join(unknown)}; allowed: {', '.join(VENUES)}")
        venues = [VENUES[name](self._settings) for name in names]
        for venue in venues:
            self._open.callback(venue.close)
        return tuple(venues)
