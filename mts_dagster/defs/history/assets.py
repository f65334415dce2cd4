"""Rankings, sampled prices, candles and funding, pulled from CoinGecko, Binance and Bybit.

What belongs here: which partitions ask which client for what. Clients and their combination are in
``mts_dagster.sources``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from mts_dagster.defs.common import FETCH_RETRY, MARKET_DATA, lake_asset
from mts_dagster.lake.read import read_tables
from mts_dagster.partitions import coin_daily, daily, slices_of
from mts_dagster.runs import register_coins
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings
from mts_dagster.sources.clients import Clients
from mts_dagster.sources.history import Collected, candles, funding, prices, universe
from mts_dagster.tracked import tracked_coins

FETCHED: dict[str, Any] = {
    "group_name": "history",
    "retry_policy": FETCH_RETRY,
    "owners": MARKET_DATA,
    "tags": {"domain": "market"},
    "io_manager_key": "lake",
}
ONE_COIN_OF_DAY = dg.MultiToSingleDimensionPartitionMapping("date")


@lake_asset(
    TABLES["coin_universe"],
    partitions_def=daily,
    pool="coingecko",
    kinds={"coingecko", "duckdb"},
    description="Coins by market cap as of each day: the top of CoinGecko's ranking and the tracked coins. Today is "
    "the live ranking; a day filled in later ranks the tracked coins among themselves and says so; a stored live "
    "ranking is kept. Feeds the coin partitions.",
    **FETCHED,
)
def coin_universe(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], clients: dg.ResourceParam[Clients]
) -> pd.DataFrame:
    """Ranking of each day of the run."""
    slices = slices_of(context.partition_keys)
    (stored,) = read_tables(settings, [(TABLES["coin_universe"], slices)])
    now = datetime.now(UTC)
    ranked = universe(clients.coingecko, slices, stored, tracked_coins(settings), settings.universe_size, now)
    frame = _told(context, ranked)
    register_coins(context.instance, [*tracked_coins(settings), *frame.loc[frame["in_universe"], "coin"]])
    return frame


@lake_asset(
    TABLES["price_points"],
    deps=[dg.AssetDep(coin_universe, partition_mapping=ONE_COIN_OF_DAY)],
    partitions_def=coin_daily,
    pool="coingecko",
    kinds={"coingecko", "duckdb"},
    description="Sampled prices, market caps and trailing 24 h volumes of CoinGecko. Points, not OHLCV.",
    **FETCHED,
)
def price_points(context: dg.AssetExecutionContext, clients: dg.ResourceParam[Clients]) -> pd.DataFrame:
    """Price points of each coin and day of the run."""
    return _told(context, prices(clients.coingecko, slices_of(context.partition_keys)))


@lake_asset(
    TABLES["klines"],
    deps=[dg.AssetDep(coin_universe, partition_mapping=ONE_COIN_OF_DAY)],
    partitions_def=coin_daily,
    pool="exchanges",
    kinds={"binance", "bybit", "duckdb"},
    description="Closed candles of the coin's USDT perpetual, 1 h and 1 d by default: Binance, and Bybit where Binance "
    "has none. A coin without a perpetual has no rows.",
    **FETCHED,
)
def klines(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], clients: dg.ResourceParam[Clients]
) -> pd.DataFrame:
    """Candles of each coin and day of the run."""
    slices = slices_of(context.partition_keys)
    return _told(context, candles(clients.venues, slices, settings.kline_intervals, _tickers(settings)))


@lake_asset(
    TABLES["funding_rates"],
    deps=[dg.AssetDep(coin_universe, partition_mapping=ONE_COIN_OF_DAY)],
    partitions_def=coin_daily,
    pool="exchanges",
    kinds={"binance", "bybit", "duckdb"},
    description="Settled funding of the coin's USDT perpetual at every exchange, with the interval that each rate was "
    "for. Special settlements stand apart. Rows of an exchange that refuses stay. A coin without a perpetual has no "
    "rows.",
    **FETCHED,
)
def funding_rates(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], clients: dg.ResourceParam[Clients]
) -> pd.DataFrame:
    """Settlements of each coin and day of the run."""
    slices = slices_of(context.partition_keys)
    (stored,) = read_tables(settings, [(TABLES["funding_rates"], slices)])
    return _told(context, funding(clients.venues, slices, stored, _tickers(settings), delay_s=settings.bar_delay_s))


def _tickers(settings: Settings) -> dict[str, str]:
    """CoinGecko's ticker of every coin that was ever ranked."""
    (ranking,) = read_tables(settings, [(TABLES["coin_universe"], None)])
    return dict(zip(ranking["coin"], ranking["symbol"], strict=True))


def _told(context: dg.AssetExecutionContext, collected: Collected) -> pd.DataFrame:
    """Put what a source could not give into the log and the metadata, so that no gap is silent."""
    for problem in collected.problems:
        context.log.warning(problem)
    if collected.problems:
        context.add_output_metadata(
            {"not_covered": dg.MetadataValue.md("\n".join(f"- {p}" for p in collected.problems))}
        )
    return collected.frame
