"""Simulated and real data never share a lake: a number from the simulator must not be traded on.

What belongs here: the mark in ``MTS_HOME`` that says which kind of services filled it, and the check of the settings
against it. The sidecar checks its own sockets and marks its landing folder (``mts_realtime.origin``); where segments
enter the lake, ``live.ingest`` compares the two marks.
"""

from __future__ import annotations

from mts_dagster.errors import ConfigError, LakeError
from mts_dagster.settings import Settings
from mts_realtime.errors import SettingsError
from mts_realtime.origin import MARK, claim, kind_of


def origin_of_settings(settings: Settings) -> str:
    """``simulated`` when all services are on loopback, else ``real``.

    Raises:
        ConfigError: some services are simulated and others are not.
    """
    urls = {
        "MTS_COINGECKO_URL": settings.coingecko_url,
        **({"MTS_COINGECKO_PRO_URL": settings.coingecko_pro_url} if settings.coingecko_plan == "pro" else {}),
        "MTS_FRED_URL": settings.fred_url,
        "MTS_BINANCE_URL": settings.binance_url,
        "MTS_BYBIT_URL": settings.bybit_url,
    }
    try:
        return kind_of(urls)
    except SettingsError as error:
        raise ConfigError(str(error)) from None


def guard_origin(settings: Settings) -> None:
    """Mark a new home, and refuse to mix simulated and real data in one that has a mark.

    Raises:
        ConfigError: the home holds data of the other kind.
    """
    origin = origin_of_settings(settings)
    try:
        held = claim(settings.home, origin)
    except OSError as error:
        raise LakeError(
            f"cannot write {settings.home / MARK}: {error.strerror}; set MTS_HOME to a folder you own"
        ) from error
    if held != origin:
        raise ConfigError(
            f"{settings.home} holds {held} data, but the settings point at {origin} services; "
            "set MTS_HOME to another folder"
        )
