"""The coins of the seeded market: who they are and how they behave.

What belongs here: constants only. Levels and supplies are rounded figures of the right order of magnitude, so
that a chart looks like the coin; nothing here claims to be history.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_FUNDING_HOURS = 8


@dataclass(frozen=True)
class Coin:
    """One coin of the seeded market.

    Attributes:
        id: CoinGecko id.
        symbol: Ticker in upper case.
        name: Display name.
        level_usd: Price around which the coin wanders in mid 2021.
        growth: Logarithmic growth of that level in a year.
        beta: How much of the market's move the coin makes; 0 marks a stable coin.
        own_volatility: Daily standard deviation of the coin's own log moves.
        supply: Circulating supply in coins in mid 2021.
        supply_growth: Logarithmic growth of the supply in a year.
        volume_usd: Traded volume over all venues on a usual day.
        price_decimals: Digits of the perpetual's price; the tick is one unit of the last digit.
        quantity_decimals: Digits of the perpetual's quantity.
        binance_funding_hours: Hours between settlements on Binance.
        bybit_funding_hours: Hours between settlements on Bybit.
        has_perpetual: Whether the exchanges list a perpetual.
    """

    id: str
    symbol: str
    name: str
    level_usd: float
    growth: float
    beta: float
    own_volatility: float
    supply: float
    supply_growth: float
    volume_usd: float
    price_decimals: int
    quantity_decimals: int
    binance_funding_hours: int = DEFAULT_FUNDING_HOURS
    bybit_funding_hours: int = DEFAULT_FUNDING_HOURS
    has_perpetual: bool = True

    @property
    def perpetual(self) -> str:
        """Symbol of the USDT perpetual on both exchanges."""
        return f"{self.symbol}USDT"


COINS: tuple[Coin, ...] = (
    Coin("bitcoin", "BTC", "Bitcoin", 42_000, 0.20, 1.00, 0.008, 18.8e6, 0.012, 30e9, 1, 3),
    Coin("ethereum", "ETH", "Ethereum", 2_100, 0.16, 1.15, 0.013, 119.5e6, 0.003, 16e9, 2, 3),
    Coin("tether", "USDT", "Tether", 1.0, 0.0, 0.0, 0.0003, 66e9, 0.17, 60e9, 4, 1, has_perpetual=False),
    Coin("binancecoin", "BNB", "BNB", 370, 0.16, 0.95, 0.014, 152e6, -0.02, 1.8e9, 2, 2),
    Coin("solana", "SOL", "Solana", 95, 0.15, 1.35, 0.024, 380e6, 0.06, 3e9, 3, 1, 8, 4),
    Coin("ripple", "XRP", "XRP", 0.9, 0.12, 1.05, 0.022, 46e9, 0.04, 2.5e9, 4, 1, 8, 8),
    Coin("dogecoin", "DOGE", "Dogecoin", 0.15, 0.08, 1.25, 0.026, 130e9, 0.03, 1.5e9, 5, 0, 4, 8),
    Coin("cardano", "ADA", "Cardano", 0.75, 0.05, 1.10, 0.018, 32e9, 0.02, 0.9e9, 4, 0),
    Coin("tron", "TRX", "TRON", 0.13, 0.12, 0.70, 0.014, 90e9, -0.01, 0.8e9, 5, 0, 4, 4),
    Coin("chainlink", "LINK", "Chainlink", 16, 0.06, 1.20, 0.020, 440e6, 0.07, 0.7e9, 3, 2),
    Coin("avalanche-2", "AVAX", "Avalanche", 30, 0.04, 1.35, 0.024, 220e6, 0.12, 0.5e9, 3, 0),
    Coin("livepeer", "LPT", "Livepeer", 12, 0.02, 1.30, 0.030, 28e6, 0.06, 0.05e9, 3, 1, 4, 1),
    Coin("harmony", "ONE", "Harmony", 0.05, -0.05, 1.40, 0.032, 12e9, 0.02, 0.04e9, 5, 0, 1, 4),
)
"""The seeded universe, in no particular order."""

COINS_BY_ID: dict[str, Coin] = {coin.id: coin for coin in COINS}
COINS_BY_PERPETUAL: dict[str, Coin] = {coin.perpetual: coin for coin in COINS if coin.has_perpetual}
