"""The container that strategies read: columns, cuts, and safety from writing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

import pandas as pd
import pytest

from mts_dagster.strategies import FEATURES, Market, StrategyError

Rows = Callable[..., pd.DataFrame]


def test_a_table_gives_the_columns_asked_for(rows: Rows) -> None:
    """In the order asked for."""
    table = Market({FEATURES: rows()}).table(FEATURES, ("vix", "coin"))
    assert table.columns.tolist() == ["vix", "coin"]


def test_writing_into_a_table_does_not_change_the_market(rows: Rows) -> None:
    """Each caller has a frame of its own."""
    market = Market({FEATURES: rows()})
    table = market.table(FEATURES)
    table["vix"] = 99.0
    table.loc[0, "close_usd"] = 1.0
    assert market.frames[FEATURES][["vix", "close_usd"]].to_numpy().tolist() == [[15.0, 100.0]]


def test_a_missing_column_is_named(rows: Rows) -> None:
    """With the columns that there are."""
    with pytest.raises(StrategyError, match=r"table features_daily has no column vixx \(it has: date, coin, "):
        Market({FEATURES: rows()}).table(FEATURES, ("date", "vixx"))


def test_known_at_keeps_what_was_known(rows: Rows) -> None:
    """Exactly at its time a row is known."""
    market = Market({FEATURES: rows(close_usd=[1.0, 2.0, 3.0])})
    known = market.known_at(pd.Timestamp("2024-03-03 00:01", tz="UTC"))
    assert known.frames[FEATURES]["close_usd"].tolist() == [1.0, 2.0]


def test_between_is_half_open(rows: Rows) -> None:
    """The first day is in, the last is out."""
    market = Market({FEATURES: rows(close_usd=[1.0, 2.0, 3.0])})
    assert market.between(date(2024, 3, 2), date(2024, 3, 3)).frames[FEATURES]["close_usd"].tolist() == [2.0]


def test_between_cuts_times_at_midnight_utc() -> None:
    """A table of hours is cut at the same instants as a table of days."""
    times = pd.to_datetime(["2024-03-01 23:00", "2024-03-02 00:00", "2024-03-03 00:00"], utc=True)
    market = Market({"bars": pd.DataFrame({"open_time": times, "close": [1.0, 2.0, 3.0]})})
    assert market.between(date(2024, 3, 2), date(2024, 3, 3)).frames["bars"]["close"].tolist() == [2.0]


def test_prepared_brings_times_of_the_lake_into_utc(rows: Rows) -> None:
    """Python dates and times of another zone, as a database may hand them over, are the same instants."""
    frame = rows(close_usd=[1.0, 2.0])
    foreign = frame.assign(
        date=[day.date() for day in frame["date"]],
        available_at=frame["available_at"].dt.tz_convert("America/Chicago"),
    )
    prepared = Market({FEATURES: foreign}).prepared([FEATURES], ["bitcoin"]).frames[FEATURES]
    assert prepared["date"].tolist() == frame["date"].tolist()
    assert prepared["available_at"].tolist() == frame["available_at"].tolist()
    assert str(prepared["available_at"].dt.tz) == "UTC"
    assert isinstance(prepared["date"].iloc[0], datetime)


def test_prepared_sorts_by_time_and_coin(rows: Rows) -> None:
    """Strategies may rely on the order."""
    frame = pd.concat([rows(coin=coin, close_usd=[1.0, 2.0]) for coin in ("ethereum", "bitcoin")])
    prepared = Market({FEATURES: frame}).prepared([FEATURES], ["bitcoin", "ethereum"]).frames[FEATURES]
    assert prepared["coin"].tolist() == ["bitcoin", "ethereum"] * 2
    assert prepared["date"].is_monotonic_increasing


def test_prepared_keeps_what_has_no_coin(rows: Rows) -> None:
    """Macro series belong to no coin."""
    macro = rows().drop(columns="coin")
    assert len(Market({"macro_daily": macro}).prepared(["macro_daily"], ["bitcoin"]).frames["macro_daily"]) == 1
