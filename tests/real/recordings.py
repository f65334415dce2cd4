"""Reading the recordings and computing from them, independently of MTS: pandas and the standard library alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

SYMBOLS = {"bitcoin": "BTC", "ethereum": "ETH", "binancecoin": "BNB"}
CHICAGO = ZoneInfo("America/Chicago")
PUBLICATION_HOUR = 17
BAR_DELAY = timedelta(seconds=60)
PAIRS = 30


@cache
def daily_futures(folder: Path, coin: str) -> pd.DataFrame:
    """Daily candles of the perpetual, by day; the last row of the file is a candle still in progress."""
    frame = pd.read_csv(folder / "ohlcv" / f"binance_usdm_{SYMBOLS[coin]}USDT_1d_2024-2026.csv")
    return frame.set_index(pd.to_datetime(frame["timestamp"], unit="ms"))


@cache
def vix(folder: Path) -> pd.Series:
    """VIX closes by observation day, without the empty cells."""
    frame = pd.read_csv(folder / "macro" / "VIXCLS.csv", parse_dates=["observation_date"])
    return frame.set_index("observation_date")["VIXCLS"].dropna()


@cache
def vix_publication_times(folder: Path) -> pd.Series:
    """When each VIX close was out: 17:00 in Chicago on the next US business day."""
    holidays = set(USFederalHolidayCalendar().holidays("2013-01-01", "2026-12-31"))
    times = []
    for observed in vix(folder).index:
        day = observed + timedelta(days=1)
        while day.weekday() >= 5 or day in holidays:
            day += timedelta(days=1)
        local = datetime(day.year, day.month, day.day, PUBLICATION_HOUR, tzinfo=CHICAGO)
        times.append(local.astimezone(UTC))
    return pd.Series(times, index=vix(folder).index)


def known_vix(folder: Path, moment: datetime) -> pd.Series:
    """The part of the series that was out at a moment."""
    return vix(folder)[vix_publication_times(folder) <= moment]
