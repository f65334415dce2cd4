"""Table contracts: one pandera class a table that Python writes, with columns, units, keys and checks.

What belongs here: the shape and meaning of stored rows. The lake creates its tables from these classes, the IO
manager validates every frame against them, and the UI shows their descriptions. Tables written by SQL models have
their contract in the YAML file beside the model (``dbt_like_sql/models``).

Conventions: times are ``TIMESTAMPTZ`` in UTC, calendar days are ``DATE``, prices and sizes are float64. A unit
that the column's name does not tell stands in ``metadata["unit"]``. ``available_at`` is when a row could first be
known: a decision at time t may only use rows with ``available_at <= t``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

UTC_TIMESTAMP = {"unit": "us", "tz": "UTC"}
Utc = pd.DatetimeTZDtype
Day = pd.Timestamp
SQL_TYPES = {
    "datetime64[us, UTC]": "TIMESTAMPTZ",
    "float64": "DOUBLE",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "string[pyarrow]": "VARCHAR",
    "Int64": "BIGINT",
    "datetime64[ns]": "DATE",
}

# What a column of a SQL model may be; lists are written by no frame.
KNOWN_SQL_TYPES = {*SQL_TYPES.values(), "DOUBLE[]"}

# DuckDB reports some types by their long name.
SQL_TYPE_NAMES = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}


@dataclass(frozen=True)
class Column:
    """A stored column."""

    name: str
    sql_type: str
    description: str
    nullable: bool
    unit: str | None = None


@dataclass(frozen=True)
class Table:
    """A stored table: where it lives, its columns, and how its rows are told apart.

    Attributes:
        schema: DuckDB schema, and the first part of the asset key.
        name: table name, unique in the whole lake so that it can be used without its schema.
        columns: in stored order.
        key: columns that are unique together.
        time_column: column that decides which day partition a row belongs to; None for a table without partitions.
        partition_column: column of the second partition dimension (coin, indicator), or None.
        description: what one row is.
        model: pandera class that validates frames; None for tables written by SQL models.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str | None
    partition_column: str | None = None
    description: str = ""
    model: type[pa.DataFrameModel] | None = None

    @property
    def qualified(self) -> str:
        """``schema.name``, as it is written in SQL."""
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> Column:
        """Look a column up by name."""
        return next(column for column in self.columns if column.name == name)


TABLES: dict[str, Table] = {}


class TableSchema(pa.DataFrameModel):
    """Base of all contracts: strict columns, no silent coercion of meaning."""

    class Config:
        """An unknown column is an error; integers may become floats, text never becomes a number."""

        strict = True
        coerce = True


Schema = TypeVar("Schema", bound=type[TableSchema])


def table(
    *, schema: str, key: tuple[str, ...], time_column: str | None, partition_column: str | None = None
) -> Callable[[Schema], Schema]:
    """Register a contract under its table name, the class name in snake case."""

    def register(model: Schema) -> Schema:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
        TABLES[name] = Table(
            schema=schema,
            name=name,
            columns=_columns(model),
            key=key,
            time_column=time_column,
            partition_column=partition_column,
            description=(model.__doc__ or "").strip().splitlines()[0],
            model=model,
        )
        return model

    return register


def _columns(model: type[TableSchema]) -> tuple[Column, ...]:
    """Read the stored columns out of a pandera class."""
    return tuple(
        Column(
            name=name,
            sql_type=SQL_TYPES[str(column.dtype)],
            description=column.description or "",
            nullable=column.nullable,
            unit=(column.metadata or {}).get("unit"),
        )
        for name, column in model.to_schema().columns.items()
    )


def table_of(model: type[TableSchema]) -> Table:
    """The registered table of a contract."""
    return next(entry for entry in TABLES.values() if entry.model is model)


def utc_column(description: str, *, nullable: bool = False) -> Any:  # noqa: ANN401 - pandera's Field is untyped
    """Declare a time column: microseconds, UTC."""
    return pa.Field(dtype_kwargs=UTC_TIMESTAMP, nullable=nullable, description=description)


def day_column(description: str) -> Any:  # noqa: ANN401 - as above
    """Declare a calendar day."""
    return pa.Field(description=description)


def text_column(description: str, *, nullable: bool = False, one_of: list[str] | None = None) -> Any:  # noqa: ANN401
    """Declare a text column, optionally one of a closed list."""
    return pa.Field(description=description, nullable=nullable, isin=one_of)


def number_column(
    description: str,
    *,
    unit: str,
    nullable: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:  # noqa: ANN401
    """Declare a number with its unit and bounds."""
    return pa.Field(description=description, metadata={"unit": unit}, nullable=nullable, ge=ge, gt=gt, le=le)


AVAILABLE_AT = "When this row could first be known; a decision at t may use it only if this is <= t."
SOURCE_TIER = "Which CoinGecko service answered: keyless, demo, pro, or public_fallback."


@table(schema="raw", key=("date", "coin"), time_column="date")
class CoinUniverse(TableSchema):
    """Ranking of coins by market capitalisation as of a day. Past rankings are kept, never recomputed."""

    date: Series[Day] = day_column("Day of the ranking (UTC).")
    coin: Series[str] = text_column("CoinGecko id, the key of a coin everywhere in MTS.")
    symbol: Series[str] = text_column("Ticker in upper case; not unique across coins.")
    name: Series[str] = text_column("Name as CoinGecko gives it.")
    rank: Series[int] = number_column("Rank by market cap, 1 is the largest.", unit="1", ge=1)
    market_cap_usd: Series[float] = number_column("Market capitalisation.", unit="usd", nullable=True, ge=0)
    price_usd: Series[float] = number_column("Price.", unit="usd", nullable=True, gt=0)
    volume_24h_usd: Series[float] = number_column("Trailing 24 h volume.", unit="usd", nullable=True, ge=0)
    in_universe: Series[bool] = pa.Field(description="Whether the coin belongs to the top N of that day.")
    ranking_source: Series[str] = text_column(
        "live_ranking: CoinGecko's ranking of all coins, taken on the day itself. tracked_coins: a day filled in "
        "later, the tracked coins ranked among themselves by their own market caps of that day.",
        one_of=["live_ranking", "tracked_coins"],
    )
    source_tier: Series[str] = text_column(SOURCE_TIER)
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)


@table(schema="raw", key=("coin", "sampled_at"), time_column="sampled_at", partition_column="coin")
class PricePoints(TableSchema):
    """Sampled prices of CoinGecko's ``market_chart``. Not OHLCV: points, and a trailing volume."""

    coin: Series[str] = text_column("CoinGecko id.")
    sampled_at: Series[Utc] = utc_column("Time of the sample as CoinGecko gives it; spacing is irregular.")
    price_usd: Series[float] = number_column("Price.", unit="usd", gt=0)
    market_cap_usd: Series[float] = number_column("Market capitalisation.", unit="usd", nullable=True, ge=0)
    volume_24h_usd: Series[float] = number_column(
        "Volume of the 24 hours before the sample; must not be summed.", unit="usd", nullable=True, ge=0
    )
    source_tier: Series[str] = text_column(SOURCE_TIER)
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)


@table(
    schema="raw",
    key=("coin", "venue", "interval", "open_time"),
    time_column="open_time",
    partition_column="coin",
)
class Klines(TableSchema):
    """Closed candles of perpetual futures from the exchanges: true OHLCV."""

    coin: Series[str] = text_column("CoinGecko id.")
    venue: Series[str] = text_column("Exchange.", one_of=["binance", "bybit"])
    symbol: Series[str] = text_column("The venue's instrument, e.g. BTCUSDT.")
    interval: Series[str] = text_column("Length of the candle: 1m, 5m, 15m, 30m, 1h, 4h, 1d.")
    open_time: Series[Utc] = utc_column("Start of the candle, inclusive.")
    close_time: Series[Utc] = utc_column("End of the candle, exclusive.")
    open: Series[float] = number_column("First price.", unit="usdt", gt=0)
    high: Series[float] = number_column("Highest price.", unit="usdt", gt=0)
    low: Series[float] = number_column("Lowest price.", unit="usdt", gt=0)
    close: Series[float] = number_column("Last price.", unit="usdt", gt=0)
    volume_base: Series[float] = number_column("Traded amount in the coin.", unit="coin", ge=0)
    volume_quote_usd: Series[float] = number_column("Traded amount in USDT, taken as USD.", unit="usdt", ge=0)
    trades: Series[pd.Int64Dtype] = number_column(
        "Number of trades; Bybit does not tell it.", unit="1", nullable=True, ge=0
    )
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)

    @pa.dataframe_check(error="high must be the greatest and low the least of the four prices")
    @classmethod
    def high_and_low_bound_the_bar(cls, df: pd.DataFrame) -> pd.Series[bool]:
        """No price of the bar lies outside [low, high]."""
        return (df["high"] >= df[["open", "close", "low"]].max(axis=1)) & (
            df["low"] <= df[["open", "close"]].min(axis=1)
        )


@table(schema="raw", key=("coin", "venue", "settled_at", "kind"), time_column="settled_at", partition_column="coin")
class FundingRates(TableSchema):
    """Settled funding of perpetual futures. A positive rate is what longs paid shorts."""

    coin: Series[str] = text_column("CoinGecko id.")
    venue: Series[str] = text_column("Exchange.", one_of=["binance", "bybit"])
    symbol: Series[str] = text_column("The venue's instrument, e.g. BTCUSDT.")
    settled_at: Series[Utc] = utc_column("Time of the settlement, floored to the minute.")
    stamped_at: Series[Utc] = utc_column("The same as the venue stamped it, some milliseconds later.")
    funding_rate: Series[float] = number_column("Rate that was settled.", unit="fraction of the position's value")
    mark_price: Series[float] = number_column(
        "Mark price that it was settled at; Bybit does not tell it.", unit="usdt", nullable=True, gt=0
    )
    interval_hours: Series[float] = number_column(
        "Time since the regular settlement before, which is what the rate was for; null where none of the 24 hours "
        "before is known, and for special rows.",
        unit="h",
        nullable=True,
        gt=0,
        le=24,
    )
    kind: Series[str] = text_column(
        "regular: the periodic settlement. special: an adjustment of another sort, for example for a dividend; it "
        "must not be averaged into the carry.",
        one_of=["regular", "special"],
    )
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)


@table(schema="raw", key=("indicator", "date", "vintage_date"), time_column="date", partition_column="indicator")
class MacroData(TableSchema):
    """Observations of FRED series, one row for each vintage of a value."""

    indicator: Series[str] = text_column("FRED series id, e.g. VIXCLS.")
    date: Series[Day] = day_column("Day that the value describes.")
    value: Series[float] = number_column("Value; null where FRED says '.'.", unit="of the series", nullable=True)
    vintage_date: Series[Day] = day_column("Real-time start: US Central day on which FRED first gave this value.")
    pit_quality: Series[str] = text_column(
        "vintage: availability comes from FRED's own vintage. assumed_lag: FRED keeps no vintage that old, "
        "availability is the observation day plus the configured lag.",
        one_of=["vintage", "assumed_lag"],
    )
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)


@table(schema="signals", key=("strategy", "asset", "timestamp"), time_column="date")
class TradingSignals(TableSchema):
    """Decisions of the strategies, one row for each strategy, asset and day, flat ones included."""

    date: Series[Day] = day_column("Day on whose close was decided (UTC).")
    timestamp: Series[Utc] = utc_column("When the decision was possible: close of the bar plus delay.")
    strategy: Series[str] = text_column("Name of the strategy.")  # type: ignore[assignment]  # hides pandera's test-data method on purpose
    asset: Series[str] = text_column("CoinGecko id.")
    direction: Series[str] = text_column("What to hold from the next open on.", one_of=["long", "short", "flat"])
    confidence: Series[float] = number_column("How sure the rule is.", unit="0..1", ge=0, le=1)
    position_size: Series[float] = number_column("Size to hold.", unit="fraction of equity", ge=0, le=1)
    risk_level: Series[str] = text_column("Risk of the position.", one_of=["low", "medium", "high"])
    price: Series[float] = number_column("Close that was decided on.", unit="usd", nullable=True, gt=0)
    reason: Series[str] = text_column("The rule that decided, with its numbers.")
    config_hash: Series[str] = text_column("SHA-256 of the strategy's configuration, first 12 digits.")
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)


@table(schema="signals", key=("asset", "timestamp"), time_column="date")
class AggregatedSignals(TableSchema):
    """One decision for each asset and day out of all directional strategies, with the rule that had the last word."""

    date: Series[Day] = day_column("Day on whose close was decided (UTC).")
    timestamp: Series[Utc] = utc_column("When the last contributing signal of the day was known.")
    strategy: Series[str] = text_column("Always aggregate, so that rows can be traded like a strategy's.")  # type: ignore[assignment]  # as above
    asset: Series[str] = text_column("CoinGecko id.")
    direction: Series[str] = text_column("What to hold from the next open on.", one_of=["long", "short", "flat"])
    confidence: Series[float] = number_column("Net votes over all weights heard.", unit="0..1", ge=0, le=1)
    position_size: Series[float] = number_column("Size to hold.", unit="fraction of equity", ge=0, le=1)
    risk_level: Series[str] = text_column("Highest risk among the winners.", one_of=["low", "medium", "high"])
    price: Series[float] = number_column("Close that was decided on.", unit="usd", nullable=True, gt=0)
    reason: Series[str] = text_column("All that happened to the size, in words.")
    config_hash: Series[str] = text_column("SHA-256 of the aggregation's configuration, first 12 digits.")
    available_at: Series[Utc] = utc_column(AVAILABLE_AT)
    decided_by: Series[str] = text_column(
        "Rule that had the last word: vote, no_vote, conflict, volatility, volatility_unknown, position_limit, "
        "drawdown_stop, unchanged, portfolio_risk, trade_limit."
    )
    contributions: Series[str] = text_column(
        "JSON list of the signals heard: strategy, direction, confidence, position_size, risk_level, reason, weight, "
        "vote (weight times confidence, negative for short)."
    )
    paper_equity: Series[float] = number_column("Paper portfolio's growth without costs.", unit="1 at its start", ge=0)
    paper_peak: Series[float] = number_column("Its peak since the last drawdown stop.", unit="1 at its start", gt=0)
    stopped_until: Series[Day] = pa.Field(
        nullable=True, description="First day on which positions are allowed again; null unless stopped."
    )
