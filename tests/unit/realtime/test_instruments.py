"""Symbols: our spelling, dated renames, resolution against a list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from mts_realtime.errors import SettingsError
from mts_realtime.events import Instrument
from mts_realtime.instruments import RENAMES, Rename, canonical_symbol, parse_renames, renamed, resolve

TODAY = date(2026, 11, 20)


@pytest.mark.parametrize(
    ("base", "symbol"),
    [
        ("BTC", "BTCUSDT"),
        ("1000SHIB", "1000SHIBUSDT"),
        ("SHIB1000", "1000SHIBUSDT"),
        ("1000000MOG", "1000000MOGUSDT"),
        ("1INCH", "1INCHUSDT"),
        ("C98", "C98USDT"),
        ("100X", "100XUSDT"),
    ],
)
def test_multipliers_are_written_in_front(base: str, symbol: str) -> None:
    """Contracts of equal price get equal symbols; digits that are part of a name stay."""
    assert canonical_symbol(base, "USDT") == symbol


@pytest.mark.parametrize(
    ("symbol", "on", "expected"),
    [
        ("RNDRUSDT", date(2024, 7, 21), "RNDRUSDT"),
        ("RNDRUSDT", date(2024, 7, 22), "RENDERUSDT"),
        ("OCEANUSDT", TODAY, "FETUSDT"),
        ("RNDRSUSDT", TODAY, "RNDRSUSDT"),
        ("BTCUSDT", TODAY, "BTCUSDT"),
    ],
)
def test_renames_are_dated(symbol: str, on: date, expected: str) -> None:
    """A name counts from its first day on, and only as a whole base asset."""
    assert renamed(symbol, on, RENAMES) == expected


def test_renames_follow_each_other() -> None:
    """An asset renamed twice arrives at its newest name."""
    renames = [Rename("B", "C", date(2026, 1, 1)), Rename("A", "B", date(2025, 1, 1))]
    assert renamed("AUSDT", TODAY, renames) == "CUSDT"


def test_renames_from_settings() -> None:
    """Users extend the table without code."""
    assert parse_renames(["matic=pol@2024-09-10"]) == (Rename("MATIC", "POL", date(2024, 9, 10)),)
    with pytest.raises(SettingsError, match="MTS_SYMBOL_ALIASES"):
        parse_renames(["MATIC>POL"])


def test_resolution_finds_both_spellings(make_instrument: Callable[..., Instrument]) -> None:
    """Our spelling and the exchange's lead to the same instrument, once."""
    shib = make_instrument("bybit", "1000SHIBUSDT", venue_symbol="SHIB1000USDT")
    found = resolve("bybit", ["1000SHIBUSDT", "SHIB1000USDT"], {"SHIB1000USDT": shib}, TODAY)
    assert found.instruments == (shib,)
    assert found.unknown == ()


def test_unknown_symbols_do_not_stop_the_others(make_instrument: Callable[..., Instrument]) -> None:
    """What is not listed is named, with the name it has today where there is one."""
    bitcoin = make_instrument()
    found = resolve("binance", ["BTCUSDT", "AGIXUSDT", "NOPEUSDT"], {"BTCUSDT": bitcoin}, TODAY)
    assert found.instruments == (bitcoin,)
    assert [str(error) for error in found.unknown] == [
        "binance lists no trading instrument AGIXUSDT: it is called FETUSDT today and is not listed either",
        "binance lists no trading instrument NOPEUSDT: check its name",
    ]


def test_all_means_every_usdt_perpetual(make_instrument: Callable[..., Instrument]) -> None:
    """Contracts in other quotes are left out."""
    listed = {name: make_instrument(symbol=name) for name in ("BTCUSDT", "BTCUSDC", "ETHUSDT")}
    found = resolve("binance", ["ALL"], listed, TODAY)
    assert [instrument.symbol for instrument in found.instruments] == ["BTCUSDT", "ETHUSDT"]
