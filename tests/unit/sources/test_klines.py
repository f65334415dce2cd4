"""Candles and funding in the contract's shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from mts_dagster.schemas import Klines, table_of
from mts_dagster.sources.errors import BadContentError, BadRequestError
from mts_dagster.sources.klines import Candle, FundingRow, funding_frame, klines_frame, measure_offset

from .loopback import FakeTime

OPEN = datetime(2026, 1, 1, tzinfo=UTC)
OPEN_MS = 1_767_225_600_000
HOUR_MS = 3_600_000


def candle(at: int, *prices: str, trades: int | None = 7) -> Candle:
    first, high, low, last = prices or ("100.5", "110", "90.25", "105")
    return (OPEN_MS + at * HOUR_MS, first, high, low, last, "3.5", "350", trades)


def frame(candles: list[Candle], multiplier: float = 1.0) -> pd.DataFrame:
    return klines_frame(
        candles,
        coin="bitcoin",
        venue="binance",
        symbol="BTCUSDT",
        interval="1h",
        delay_s=60,
        multiplier=multiplier,
    )


def test_a_candle_in_the_contract() -> None:
    """Text becomes floats, the end is exclusive, and the candle is known a minute after its close."""
    (row,) = frame([candle(0)]).to_dict("records")
    assert row == {
        "coin": "bitcoin",
        "venue": "binance",
        "symbol": "BTCUSDT",
        "interval": "1h",
        "open_time": OPEN,
        "close_time": OPEN + timedelta(hours=1),
        "open": 100.5,
        "high": 110.0,
        "low": 90.25,
        "close": 105.0,
        "volume_base": 3.5,
        "volume_quote_usd": 350.0,
        "trades": 7,
        "available_at": OPEN + timedelta(hours=1, seconds=60),
    }


def test_rows_are_sorted_and_unique() -> None:
    """A candle that came twice, in any order, is stored once."""
    assert frame([candle(2), candle(0), candle(2), candle(1)])["open_time"].tolist() == [
        OPEN,
        OPEN + timedelta(hours=1),
        OPEN + timedelta(hours=2),
    ]


def test_no_candles_make_an_empty_frame_of_the_contract() -> None:
    """Nothing fetched has the same columns and types as something fetched."""
    empty = frame([])
    assert len(empty) == 0
    assert empty.dtypes.equals(frame([candle(0)]).dtypes)
    assert tuple(empty.columns) == tuple(column.name for column in table_of(Klines).columns)


def test_unknown_trades_stay_unknown() -> None:
    """Bybit tells no number of trades: null, not zero."""
    assert frame([candle(0, trades=None)])["trades"].isna().all()


def test_a_multiplied_contract_is_stored_per_coin() -> None:
    """1000SHIB at 0.01 is SHIB at 0.00001; the quote volume does not change."""
    (row,) = frame([candle(0, "0.01", "0.02", "0.005", "0.015")], multiplier=1000).to_dict("records")
    assert [row["open"], row["high"], row["low"], row["close"]] == pytest.approx([1e-5, 2e-5, 5e-6, 1.5e-5])
    assert (row["volume_base"], row["volume_quote_usd"]) == (3500.0, 350.0)


def test_a_candle_against_the_contract_is_named() -> None:
    """A high below the low is bad content with the column, not a stored row."""
    with pytest.raises(BadContentError, match=r"binance BTCUSDT: 1 rows break the contract of Klines\..*high"):
        frame([candle(0, "100", "80", "90", "95")])


def test_an_unknown_interval_names_the_known_ones() -> None:
    """The message lists what may be used."""
    with pytest.raises(BadRequestError, match="unknown interval '2h'; use one of 1m, 5m, 15m, 30m, 1h, 4h, 1d"):
        klines_frame([], coin="bitcoin", venue="binance", symbol="BTCUSDT", interval="2h", delay_s=0)


def test_funding_keeps_the_raw_time_and_floors_the_key() -> None:
    """A settlement 7 ms after the hour belongs to the hour; an empty mark price is null."""
    rows = [
        FundingRow(OPEN_MS + 8 * HOUR_MS, "-0.0001", ""),
        FundingRow(OPEN_MS + 7, "0.00005", "100.5", "Special"),
    ]
    assert funding_frame("BTCUSDT", rows).astype(object).where(lambda f: f.notna(), None).to_dict("records") == [
        {
            "symbol": "BTCUSDT",
            "settled_at_ms": OPEN_MS + 7,
            "settled_at": OPEN,
            "funding_rate": 0.00005,
            "mark_price": 100.5,
            "rate_type": "Special",
        },
        {
            "symbol": "BTCUSDT",
            "settled_at_ms": OPEN_MS + 8 * HOUR_MS,
            "settled_at": OPEN + timedelta(hours=8),
            "funding_rate": -0.0001,
            "mark_price": None,
            "rate_type": "Regular",
        },
    ]


def test_clock_offset_belongs_to_the_middle_of_the_round_trip() -> None:
    """Asked at 0 s, answered at 2 s with our 1 s plus 0.3 s: 300 ms ahead, known to a second."""
    time_ = FakeTime(now=1000.0)

    def server_time() -> datetime:
        time_.now += 2
        return datetime.fromtimestamp(1001.3, UTC)

    offset = measure_offset(server_time, time_.clock)
    assert offset.offset_ms == pytest.approx(300)
    assert offset.uncertainty_ms == pytest.approx(1000)
