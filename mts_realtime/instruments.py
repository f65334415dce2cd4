"""Which instrument a symbol means on each exchange, today.

What belongs here: our spelling of symbols, the dated table of renames, and the resolution of what a user asked for
against an exchange's instruments list. Reading and parsing those lists is the exchanges' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime

from msgspec import Struct

from mts_realtime.errors import SettingsError, UnknownSymbolError
from mts_realtime.events import Instrument
from mts_realtime.settings import ALL_SYMBOLS

_PREFIXED = re.compile(r"^(10{3,})([A-Z].*)$")
_SUFFIXED = re.compile(r"^(.*[A-Z])(10{3,})$")


class Rename(Struct, frozen=True):
    """A contract that continues under another name.

    Attributes:
        old: Base asset before.
        new: Base asset after.
        effective: First day of the new name.
        ratio: Units of the new asset for one of the old; history continues only after scaling by it.
    """

    old: str
    new: str
    effective: date
    ratio: float = 1.0


RENAMES: tuple[Rename, ...] = (
    Rename("AGIX", "FET", date(2024, 7, 1), 0.433350),
    Rename("OCEAN", "FET", date(2024, 7, 1), 0.433226),
    Rename("RNDR", "RENDER", date(2024, 7, 22)),
)
"""Known renames of base assets. Sources: the merge notice of 2024-07-01, and the hole in RNDR's archive."""


def canonical_symbol(base: str, quote: str) -> str:
    """Our spelling of a contract: contract multiplier, base and quote.

    Exchanges write the multiplier of cheap coins before or after the base (``1000SHIB``, ``SHIB1000``). Contracts
    with unequal multipliers stay unequal, so that prices of equal symbols can be compared.

    >>> canonical_symbol("SHIB1000", "USDT"), canonical_symbol("1INCH", "USDT")
    ('1000SHIBUSDT', '1INCHUSDT')
    """
    multiplier, asset = "", base
    if match := _PREFIXED.match(base):
        multiplier, asset = match.groups()
    elif match := _SUFFIXED.match(base):
        asset, multiplier = match.groups()
    return f"{multiplier}{asset}{quote}"


def parse_renames(entries: Iterable[str]) -> tuple[Rename, ...]:
    """Read ``OLD=NEW@YYYY-MM-DD`` entries of the settings.

    Raises:
        SettingsError: Naming the entry that does not have this form.
    """
    found = []
    for entry in entries:
        match = re.fullmatch(r"([A-Z0-9]+)=([A-Z0-9]+)@(\d{4}-\d{2}-\d{2})", entry.upper())
        if match is None:
            raise SettingsError(f"setting MTS_SYMBOL_ALIASES: {entry!r} is not of the form OLD=NEW@YYYY-MM-DD")
        old, new, day = match.groups()
        found.append(Rename(old, new, datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).date()))
    return tuple(found)


def renamed(symbol: str, on: date, renames: Iterable[Rename]) -> str:
    """The symbol's name on a day, following every rename in effect by then.

    >>> renamed("RNDRUSDT", date(2026, 1, 1), RENAMES), renamed("RNDRUSDT", date(2024, 7, 1), RENAMES)
    ('RENDERUSDT', 'RNDRUSDT')
    """
    for rename in sorted(renames, key=lambda rename: rename.effective):
        quote = symbol.removeprefix(rename.old)
        if rename.effective <= on and quote != symbol and quote in ("USDT", "USDC"):
            symbol = rename.new + quote
    return symbol


class Resolution(Struct, frozen=True):
    """What a request came to on one exchange."""

    instruments: tuple[Instrument, ...]
    unknown: tuple[UnknownSymbolError, ...]


def resolve(
    exchange: str,
    wanted: Iterable[str],
    listed: Mapping[str, Instrument],
    on: date,
    renames: Iterable[Rename] = RENAMES,
) -> Resolution:
    """Find the instruments that ``wanted`` names in an exchange's list.

    Args:
        exchange: Name of the exchange, for errors.
        wanted: Symbols in our or the exchange's spelling, old names included, or ``ALL``.
        listed: Trading instruments by the exchange's own name.
        on: The day whose names count.
        renames: Table of renames.
    """
    renames = tuple(renames)
    by_symbol = {instrument.symbol: instrument for instrument in listed.values()}
    found: dict[str, Instrument] = {}
    unknown = []
    for symbol in wanted:
        if symbol == ALL_SYMBOLS:
            found |= {i.venue_symbol: i for i in listed.values() if i.symbol.endswith("USDT")}
            continue
        current = renamed(symbol, on, renames)
        instrument = by_symbol.get(current) or listed.get(current)
        if instrument is None:
            hint = f"it is called {current} today and is not listed either" if current != symbol else "check its name"
            unknown.append(UnknownSymbolError(exchange, symbol, hint))
        else:
            found[instrument.venue_symbol] = instrument
    return Resolution(tuple(found[name] for name in sorted(found)), tuple(unknown))
