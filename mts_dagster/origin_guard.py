"""Simulated and real data never share a lake: a number from the simulator must not be traded on.

What belongs here: the mark in ``MTS_HOME`` that says which kind of services filled it, and the check against it.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from mts_dagster.errors import ConfigError, LakeError
from mts_dagster.settings import Settings

MARK = "origin.txt"


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
    simulated = [name for name, url in urls.items() if _is_loopback(urlsplit(url).hostname or "")]
    if simulated and len(simulated) < len(urls):
        real = ", ".join(name for name in urls if name not in simulated)
        raise ConfigError(f"at loopback: {', '.join(simulated)}; elsewhere: {real}; set all of them or none")
    return "simulated" if simulated else "real"


def guard_origin(settings: Settings) -> None:
    """Mark a new home, and refuse to mix simulated and real data in one that has a mark.

    Raises:
        ConfigError: the home holds data of the other kind.
    """
    origin = origin_of_settings(settings)
    mark = settings.home / MARK
    if mark.exists():
        stored = mark.read_text().strip()
        if stored != origin:
            raise ConfigError(
                f"{settings.home} holds {stored} data, but the settings point at {origin} services; "
                "set MTS_HOME to another folder"
            )
        return
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        mark.write_text(origin + "\n")
    except OSError as error:
        raise LakeError(f"cannot write {mark}: {error.strerror}; set MTS_HOME to a folder you own") from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
