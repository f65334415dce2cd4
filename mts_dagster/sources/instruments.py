"""Which instrument of a venue stands for a coin, on a given day.

What belongs here: the dated alias table and the rules that turn a CoinGecko id into a symbol of the venue's own
instrument list. A ticker is not unique and changes over time; the id is the key everywhere, and the venue's list
decides what exists. Pure: the list comes from ``perpetuals()`` of a venue.

Facts of the table: Render was renamed from RNDR in July 2024 (Bybit lists RENDERUSDT from 2024-07-26 on). AGIX
and OCEAN were merged into FET on 2024-07-01, 1 AGIX = 0.433350 FET and 1 OCEAN = 0.433226 FET, and their
perpetuals were settled in the week before; Ocean Protocol left the alliance in October 2025: its peg ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

QUOTES = ("USDT",)
MULTIPLIED = re.compile(r"^(?P<before>10{3,})?(?P<base>.+?)(?P<after>10{3,})?$")
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Instrument:
    """A perpetual future as its venue describes it.

    Attributes:
        symbol: the venue's name, e.g. ``BTCUSDT``.
        base: base asset in the venue's spelling, multiplier included, e.g. ``1000SHIB``.
        quote: quote asset.
        tick_size: price step.
        qty_step: size step, in contracts' base units.
        min_notional: smallest order value, in quote.
        is_trading: whether it trades now.
    """

    venue: str
    symbol: str
    base: str
    quote: str
    tick_size: float
    qty_step: float
    min_notional: float
    is_trading: bool


@dataclass(frozen=True)
class Listing:
    """The instrument of a coin during ``[start, end)``.

    Attributes:
        symbol: the venue's symbol.
        multiplier: coins that one unit of the instrument stands for: price of the coin = price / multiplier.
        is_former: whether the coin was renamed since, so that the venue may know this symbol no more.
    """

    symbol: str
    multiplier: float
    start: datetime
    end: datetime
    is_former: bool


@dataclass(frozen=True)
class Alias:
    """Base asset under which venues list a coin in ``[start, end)``; ``units`` coins make one of it."""

    base: str
    start: datetime = ALWAYS
    end: datetime = NEVER
    units: float = 1.0


def _day(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)


ALIASES: dict[str, tuple[Alias, ...]] = {
    "bitcoin": (Alias("BTC"),),
    "ethereum": (Alias("ETH"),),
    "binancecoin": (Alias("BNB"),),
    "ripple": (Alias("XRP"),),
    "solana": (Alias("SOL"),),
    "usd-coin": (Alias("USDC"),),
    "cardano": (Alias("ADA"),),
    "dogecoin": (Alias("DOGE"),),
    "tron": (Alias("TRX"),),
    "litecoin": (Alias("LTC"),),
    "polkadot": (Alias("DOT"),),
    "chainlink": (Alias("LINK"),),
    "avalanche-2": (Alias("AVAX"),),
    "bitcoin-cash": (Alias("BCH"),),
    "stellar": (Alias("XLM"),),
    "uniswap": (Alias("UNI"),),
    "monero": (Alias("XMR"),),
    "cosmos": (Alias("ATOM"),),
    "hyperliquid": (Alias("HYPE"),),
    "shiba-inu": (Alias("SHIB"),),
    "pepe": (Alias("PEPE"),),
    "bonk": (Alias("BONK"),),
    "floki": (Alias("FLOKI"),),
    "fetch-ai": (Alias("FET"),),
    "render-token": (Alias("RNDR", end=_day("2024-07-26")), Alias("RENDER", start=_day("2024-07-26"))),
    "singularitynet": (
        Alias("AGIX", end=_day("2024-07-01")),
        Alias("FET", start=_day("2024-07-01"), units=1 / 0.433350),
    ),
    "ocean-protocol": (
        Alias("OCEAN", end=_day("2024-07-01")),
        Alias("FET", start=_day("2024-07-01"), end=_day("2025-10-09"), units=1 / 0.433226),
    ),
    # Quoted against themselves or pegged to another coin: no perpetual, whatever a ticker match would say.
    "tether": (),
    "staked-ether": (),
    "wrapped-bitcoin": (),
    "wrapped-steth": (),
    "weth": (),
}


class InstrumentList:
    """A venue's perpetuals, looked up by coin."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_base: dict[str, tuple[Instrument, float]] = {}
        for instrument in instruments:
            base, multiplier = split_multiplier(instrument.base)
            known = self._by_base.get(base)
            # The plain contract wins over a multiplied one of the same coin.
            if instrument.quote in QUOTES and (known is None or multiplier < known[1]):
                self._by_base[base] = (instrument, multiplier)

    def resolve(self, coin: str, on: datetime, *, ticker: str = "") -> Listing | None:
        """The instrument of a coin at a moment.

        Args:
            coin: CoinGecko id.
            on: aware time.
            ticker: CoinGecko's ticker, used only for a coin that the alias table does not know.

        Returns:
            None for a coin without a perpetual at that time.
        """
        return next(
            (entry for entry in self.listings(coin, ALWAYS, NEVER, ticker=ticker) if entry.start <= on < entry.end),
            None,
        )

    def listings(self, coin: str, start: datetime, end: datetime, *, ticker: str = "") -> list[Listing]:
        """The instruments of a coin during ``[start, end)``, in order; several where it was renamed.

        A name that is no longer in use cannot be in the venue's list of today, and is taken from the alias table.
        """
        aliases = ALIASES.get(coin, (Alias(ticker.upper()),) if ticker else ())
        return [
            Listing(
                symbol=symbol,
                multiplier=multiplier * alias.units,
                start=max(start, alias.start),
                end=min(end, alias.end),
                is_former=alias.end != NEVER,
            )
            for alias in aliases
            for symbol, multiplier in self._symbols(alias)
            if alias.start < end and start < alias.end
        ]

    def _symbols(self, alias: Alias) -> list[tuple[str, float]]:
        known = self._by_base.get(alias.base)
        if known is not None:
            return [(known[0].symbol, known[1])]
        return [] if alias.end == NEVER else [(alias.base + QUOTES[0], 1.0)]


def split_multiplier(base: str) -> tuple[str, float]:
    """Separate ``1000SHIB`` or ``SHIB1000`` into the coin and how many of it make one unit."""
    match = MULTIPLIED.match(base)
    if match is None:
        return base, 1.0
    return match["base"], float(match["before"] or match["after"] or 1)


def coin_of(symbol: str, on: datetime, tickers: Mapping[str, str]) -> str | None:
    """The coin that a perpetual stands for at a moment: the way back from a venue's symbol.

    Args:
        symbol: a perpetual quoted in USDT, multiplier included.
        on: aware time.
        tickers: CoinGecko ids by ticker, used only for a ticker that the alias table does not know.

    Returns:
        CoinGecko id; None for another quote, or a ticker that nobody knows.
    """
    quote = next((quote for quote in QUOTES if symbol.endswith(quote)), None)
    if quote is None:
        return None
    base, _ = split_multiplier(symbol.removesuffix(quote))
    for coin, aliases in ALIASES.items():
        # A coin that was merged into another one is worth a share of it; the perpetual is the other one's.
        if any(alias.base == base and alias.units == 1 and alias.start <= on < alias.end for alias in aliases):
            return coin
    found = tickers.get(base)
    return None if found in ALIASES else found
