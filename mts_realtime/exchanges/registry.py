"""The exchanges that MTS speaks, by name.

What belongs here: one line an exchange. A new exchange is a module beside ``binance`` and ``bybit`` and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mts_realtime.exchanges.binance import Binance
from mts_realtime.exchanges.bybit import Bybit

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_realtime.exchanges.base import Exchange
    from mts_realtime.settings import RealtimeSettings

EXCHANGES: dict[str, Callable[[RealtimeSettings], Exchange]] = {"binance": Binance, "bybit": Bybit}


def build_exchanges(settings: RealtimeSettings) -> dict[str, Exchange]:
    """Adapters of the configured exchanges, by name."""
    return {name: EXCHANGES[name](settings) for name in settings.exchanges}
