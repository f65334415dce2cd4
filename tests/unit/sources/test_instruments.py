"""Which instrument stands for a coin, and since when."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mts_dagster.sources import binance, bybit
from mts_dagster.sources.instruments import NEVER, Instrument, InstrumentList, coin_of, split_multiplier

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def perpetual(symbol: str, base: str, quote: str = "USDT") -> Instrument:
    return Instrument("binance", symbol, base, quote, 0.1, 0.001, 5.0, is_trading=True)


LISTED = InstrumentList(
    [
        perpetual("BTCUSDT", "BTC"),
        perpetual("BTCUSDC", "BTC", "USDC"),
        perpetual("1000SHIBUSDT", "1000SHIB"),
        perpetual("FETUSDT", "FET"),
        perpetual("RENDERUSDT", "RENDER"),
        perpetual("USDCUSDT", "USDC"),
        perpetual("1INCHUSDT", "1INCH"),
    ]
)


def test_a_coin_is_found_by_its_id() -> None:
    """The id leads to the contract in USDT, not to the one in USDC."""
    listing = LISTED.resolve("bitcoin", NOW)
    assert listing is not None
    assert (listing.symbol, listing.multiplier) == ("BTCUSDT", 1.0)


@pytest.mark.parametrize("coin", ["tether", "staked-ether", "wrapped-bitcoin", "no-such-coin"])
def test_a_coin_without_a_perpetual_is_none(coin: str) -> None:
    """No symbol is made up."""
    assert LISTED.resolve(coin, NOW) is None


def test_tether_has_none_even_with_its_ticker() -> None:
    """A coin that the table knows is not matched by ticker."""
    listed = InstrumentList([perpetual("USDTUSDT", "USDT")])
    assert listed.resolve("tether", NOW, ticker="usdt") is None


def test_an_unknown_coin_is_matched_by_its_ticker() -> None:
    """CoinGecko's ticker is the last resort, in the venue's spelling."""
    listing = LISTED.resolve("1inch", NOW, ticker="1inch")
    assert listing is not None
    assert (listing.symbol, listing.multiplier) == ("1INCHUSDT", 1.0)


def test_a_multiplied_contract_carries_its_multiplier() -> None:
    """One unit of 1000SHIB is a thousand coins."""
    listing = LISTED.resolve("shiba-inu", NOW)
    assert listing is not None
    assert (listing.symbol, listing.multiplier) == ("1000SHIBUSDT", 1000.0)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("BTC", ("BTC", 1.0)),
        ("1000SHIB", ("SHIB", 1000.0)),
        ("SHIB1000", ("SHIB", 1000.0)),
        ("1000000MOG", ("MOG", 1_000_000.0)),
        ("10000SATS", ("SATS", 10_000.0)),
        ("1INCH", ("1INCH", 1.0)),
        ("100X", ("100X", 1.0)),
        ("0G", ("0G", 1.0)),
    ],
)
def test_multipliers_are_told_from_names(base: str, expected: tuple[str, float]) -> None:
    """Ten to the third and more is a multiplier; 1INCH, 100X and 0G are names."""
    assert split_multiplier(base) == expected


def test_a_renamed_coin_has_two_symbols_in_order() -> None:
    """A window over Render's renaming is cut there; the old name need not be listed any more."""
    start, end = datetime(2024, 7, 1, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC)
    switch = datetime(2024, 7, 26, tzinfo=UTC)
    found = LISTED.listings("render-token", start, end)
    assert [(entry.symbol, entry.start, entry.end, entry.is_former) for entry in found] == [
        ("RNDRUSDT", start, switch, True),
        ("RENDERUSDT", switch, end, False),
    ]


def test_a_merged_coin_is_priced_through_its_successor() -> None:
    """After the merger 1 AGIX is 0.43335 FET: price of AGIX = price of FET / (1 / 0.43335)."""
    before = LISTED.resolve("singularitynet", datetime(2024, 5, 1, tzinfo=UTC))
    after = LISTED.resolve("singularitynet", datetime(2024, 8, 1, tzinfo=UTC))
    assert before is not None
    assert after is not None
    assert (before.symbol, before.multiplier) == ("AGIXUSDT", 1.0)
    assert after.symbol == "FETUSDT"
    assert 2.0 / after.multiplier == pytest.approx(0.8667)


def test_a_peg_that_ended_is_none() -> None:
    """Ocean left the alliance: from then on there is no perpetual for it."""
    assert LISTED.resolve("ocean-protocol", NOW) is None


def test_a_lookup_has_no_end_by_itself() -> None:
    """A coin that was never renamed has one listing for all time."""
    listing = LISTED.resolve("bitcoin", NOW)
    assert listing is not None
    assert listing.end == NEVER


def test_recorded_bybit_list(recordings: Path) -> None:
    """Of 800 recorded rows 760 are perpetuals (40 are dated futures), and known coins are found in them."""
    answer = json.loads(
        gzip.decompress((recordings / "rest/bybit_v5_instruments-info_linear_20260809.json.gz").read_bytes())
    )
    perpetuals, cursor = bybit.read_perpetuals(answer["result"])
    assert (len(perpetuals), cursor) == (760, "")
    listed = InstrumentList(perpetuals)
    found = {coin: listed.resolve(coin, NOW) for coin in ("bitcoin", "shiba-inu", "pepe", "render-token", "tether")}
    assert {coin: listing and (listing.symbol, listing.multiplier) for coin, listing in found.items()} == {
        "bitcoin": ("BTCUSDT", 1.0),
        "shiba-inu": ("SHIB1000USDT", 1000.0),
        "pepe": ("1000PEPEUSDT", 1000.0),
        "render-token": ("RENDERUSDT", 1.0),
        "tether": None,
    }


def test_recorded_binance_list(recordings: Path) -> None:
    """Of 122 recorded symbols the perpetuals are chosen by type; steps come from the filters."""
    answer = json.loads(
        gzip.decompress((recordings / "rest/binance_fapi_v1_exchangeInfo_20210721.json.gz").read_bytes())
    )
    perpetuals = {entry.symbol: entry for entry in binance.read_perpetuals(answer)}
    assert len(perpetuals) == sum(row["contractType"] == "PERPETUAL" for row in answer["symbols"])
    assert "BTCUSDT_210924" not in perpetuals
    assert perpetuals["BTCUSDT"] == Instrument(
        "binance", "BTCUSDT", "BTC", "USDT", tick_size=0.01, qty_step=0.001, min_notional=5.0, is_trading=True
    )


@pytest.mark.parametrize(
    ("symbol", "coin"),
    [
        ("BTCUSDT", "bitcoin"),
        ("1000SHIBUSDT", "shiba-inu"),
        ("FETUSDT", "fetch-ai"),
        ("RENDERUSDT", "render-token"),
        ("RNDRUSDT", None),
        ("1INCHUSDT", "1inch"),
        ("WBTCUSDT", None),
        ("NEWUSDT", None),
        ("BTCUSDC", None),
    ],
)
def test_a_perpetual_leads_back_to_its_coin(symbol: str, coin: str | None) -> None:
    """By the alias table as of today, then by ticker; a coin that the table keeps apart is never matched by ticker."""
    assert coin_of(symbol, NOW, {"1INCH": "1inch", "WBTC": "wrapped-bitcoin", "BTC": "an-impostor"}) == coin


def test_a_former_name_leads_back_while_it_was_in_use() -> None:
    """RNDR until July 2024."""
    assert coin_of("RNDRUSDT", datetime(2024, 1, 1, tzinfo=UTC), {}) == "render-token"
