"""Which coins are always tracked: those of the settings and those that strategy configs name.

What belongs here: that one list, used by the assets and the command line alike.
"""

from __future__ import annotations

from pathlib import Path

from mts_dagster.settings import Settings
from mts_dagster.strategies.config import configured_coins


def tracked_coins(settings: Settings) -> tuple[str, ...]:
    """CoinGecko ids, in the order of the settings first, each once."""
    folders = [settings.strategy_config_folder, *(Path(folder).expanduser() for folder in settings.strategy_folders)]
    return tuple(dict.fromkeys([*settings.coins, *configured_coins(*folders)]))
