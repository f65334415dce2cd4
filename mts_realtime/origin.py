"""Invented and real markets never share a folder: which kind of services are asked, and the mark that remembers it.

What belongs here: the one rule for addresses and the one form of the mark, for the sidecar's folders and for whoever
keeps data beside it.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mts_realtime.errors import LandingError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mts_realtime.settings import RealtimeSettings

MARK = "origin.txt"
SIMULATED, REAL = "simulated", "real"


def kind_of(addresses: Mapping[str, str]) -> str:
    """``simulated`` when all addresses are on loopback, ``real`` when none is.

    Args:
        addresses: URLs by the name of their setting.

    Raises:
        SettingsError: Some are on loopback and others are not.
    """
    simulated = [name for name, url in addresses.items() if _is_loopback(urlsplit(url).hostname or "")]
    if simulated and len(simulated) < len(addresses):
        real = ", ".join(name for name in addresses if name not in simulated)
        raise SettingsError(f"at loopback: {', '.join(simulated)}; elsewhere: {real}; set all of them or none")
    return SIMULATED if simulated else REAL


def read_mark(folder: Path) -> str | None:
    """The kind that a folder was marked with; ``None`` for an unmarked one.

    Raises:
        OSError: When the mark cannot be read.
    """
    try:
        return (folder / MARK).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def claim(folder: Path, kind: str) -> str:
    """Mark a folder that has no mark yet; returns the kind that it has then.

    Raises:
        OSError: When the folder cannot be made, or the mark not be read or written.
    """
    held = read_mark(folder)
    if held is not None:
        return held
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(f"{kind}\n", encoding="utf-8")
    return kind


def kind_of_settings(settings: RealtimeSettings) -> str:
    """Kind of the exchanges that are followed, by their REST and their WebSocket addresses.

    Raises:
        SettingsError: Some are on loopback and others are not.
    """
    fields = [f"{exchange}_{part}" for exchange in settings.exchanges for part in ("url", "ws_url")]
    return kind_of({f"MTS_{field.upper()}": getattr(settings, field) for field in fields})


def guard_landing(settings: RealtimeSettings, kind: str) -> None:
    """Mark the landing folder, and refuse one that has segments of the other kind.

    Raises:
        SettingsError: It has.
        LandingError: It cannot be used.
    """
    _guard(settings.landing_dir, kind, "set MTS_LANDING_DIR or MTS_HOME to another folder")


def guard_capture(folder: Path, kind: str) -> None:
    """Mark the folder of a capture, and refuse one that has frames of the other kind.

    Raises:
        SettingsError: It has.
        LandingError: It cannot be used.
    """
    _guard(folder, kind, "capture into another folder")


def _guard(folder: Path, kind: str, remedy: str) -> None:
    try:
        held = claim(folder, kind)
    except OSError as error:
        raise LandingError(f"cannot write {folder / MARK}: {error.strerror}; {remedy}") from error
    if held != kind:
        raise SettingsError(f"{folder} holds {held} data, but what is to be written there is {kind}; {remedy}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
