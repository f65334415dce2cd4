"""Bars, funding and signals on their way into the engine: alignment, checks, and what is declared missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.errors import MarketDataError, UncoveredDataError
from mts_dagster.backtest.layout import AT_OPEN, INSIDE
from mts_dagster.backtest.market import market_from_frames
from mts_dagster.backtest.signals import (
    commands_from_signals,
    commands_from_targets,
    part_of,
)
from mts_dagster.errors import UsageError
from tests.unit.backtest.playing import HOUR, START, frame_of

FLAT = (100.0, 101.0, 99.0, 100.0)
DAY = pd.Timedelta("1D")


def settlements(*hours: float, asset: str = "BTC", rate: float = 1e-4) -> pd.DataFrame:
    """Return funding settlements so many hours after the first bar."""
    return pd.DataFrame(
        {
            "settled_at": pd.DatetimeIndex([START + HOUR * hour for hour in hours], tz="UTC"),
            "asset": asset,
            "funding_rate": rate,
        }
    )


def signal_frame(*rows: tuple[pd.Timestamp, str, str, float]) -> pd.DataFrame:
    """Return signals of confidence 0.5."""
    frame = pd.DataFrame(rows, columns=["timestamp", "asset", "direction", "position_size"])
    return frame.assign(confidence=0.5, strategy="s")


def test_assets_share_one_time_axis_in_the_order_of_their_names() -> None:
    """ETH without a second bar is NaN there, with its last close as mark and no volume."""
    market = market_from_frames(frame_of({"ETH": [FLAT, None, FLAT], "BTC": [FLAT, FLAT, FLAT]}))
    assert market.assets == ("BTC", "ETH")
    assert market.interval_ns == HOUR.value
    assert np.isnan(market.arrays.open[1, 1])
    assert market.arrays.mark[1].tolist() == [100.0, 100.0]
    assert market.arrays.volume[1, 1] == 0.0


def test_a_window_keeps_one_bar_before_it_for_decisions_at_its_start() -> None:
    """From 02:00 on: the bar of 01:00 is there for its close, the one of 00:00 is not."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 5}), start=START + 2 * HOUR, end=START + 4 * HOUR)
    assert (market.arrays.open_ns - START.value).tolist() == [HOUR.value * i for i in (1, 2, 3)]
    assert market.coverage.expected_bars == 2


@pytest.mark.parametrize(
    ("bar", "words"),
    [
        ((100.0, 99.0, 98.0, 100.0), "impossible bar"),
        ((100.0, 101.0, 100.5, 100.0), "impossible bar"),
        ((0.0, 101.0, 0.0, 100.0), "impossible bar"),
        ((float("nan"), 101.0, 99.0, 100.0), "impossible bar"),
    ],
    ids=["high below open", "low above close", "zero", "missing price"],
)
def test_an_impossible_bar_is_refused(bar: tuple[float, ...], words: str) -> None:
    """The message names asset, time and the prices."""
    with pytest.raises(MarketDataError, match=f"BTC at 2024-01-01 01:00:00.*{words}"):
        market_from_frames(frame_of({"BTC": [FLAT, bar]}))


def test_a_bar_that_is_there_twice_is_refused() -> None:
    """Two rows for one asset and time contradict each other."""
    frame = frame_of({"BTC": [FLAT, FLAT]})
    with pytest.raises(MarketDataError, match="twice"):
        market_from_frames(pd.concat([frame, frame.tail(1)]))


def test_times_without_a_zone_are_refused() -> None:
    """A naive time could be anything."""
    frame = frame_of({"BTC": [FLAT, FLAT]})
    with pytest.raises(UsageError, match="time zone"):
        market_from_frames(frame.assign(open_time=frame["open_time"].dt.tz_localize(None)))


def test_a_missing_column_is_named() -> None:
    """Without volume_base the frame is no frame of bars."""
    with pytest.raises(UsageError, match="volume_base"):
        market_from_frames(frame_of({"BTC": [FLAT, FLAT]}).drop(columns="volume_base"))


def test_a_single_bar_has_no_interval() -> None:
    """One bar cannot tell how long it is."""
    with pytest.raises(UsageError, match="two bars"):
        market_from_frames(frame_of({"BTC": [FLAT]}))


def test_a_window_without_bars_says_which_bars_there_are() -> None:
    """Asked for a day in 2030 of a market of 2024."""
    with pytest.raises(UsageError, match="2024-01-01"):
        market_from_frames(frame_of({"BTC": [FLAT] * 3}), start=pd.Timestamp("2030-01-01", tz="UTC"))


def test_missing_bars_are_declared_with_their_stretch() -> None:
    """Bars 2 and 3 of 6 are missing: one gap from 02:00 to 04:00."""
    market = market_from_frames(frame_of({"BTC": [FLAT, FLAT, None, None, FLAT, FLAT]}))
    assert (market.coverage.expected_bars, market.coverage.missing_bars) == (6, 2)
    assert str(market.coverage.gaps[0]) == "2 bars of BTC between 2024-01-01 02:00 and 2024-01-01 04:00"


def test_a_strict_run_refuses_gaps_by_name() -> None:
    """The error names asset and time, and what to do."""
    market = market_from_frames(frame_of({"BTC": [FLAT, None, FLAT, FLAT]}))
    with pytest.raises(UncoveredDataError, match=r"1 of 4 bars missing.*BTC.*01:00.*strict=false"):
        market.coverage.require_complete()


def test_bars_known_more_than_a_bar_late_are_declared() -> None:
    """The bar of 01:00 closes at 02:00; known at 02:30 is fine, at 03:30 its decision came too late."""
    frame = frame_of({"BTC": [FLAT] * 4})
    delays = pd.Series([HOUR * 1.5, HOUR * 2.5, HOUR, HOUR], index=frame.index)
    market = market_from_frames(frame.assign(available_at=frame["open_time"] + delays))
    assert market.coverage.late_bars == 1


def test_settlements_are_placed_at_the_open_or_inside_of_their_bar() -> None:
    """08:00 is an open of hourly bars; 08:00:00.007 is the same settlement stamped late; 08:30 is inside."""
    late = 8 + 7e-3 / 3600
    funding = settlements(0, late, 16.5)
    market = market_from_frames(frame_of({"BTC": [FLAT] * 24}), funding, perpetuals=["BTC"])
    placed = [(row["bar"], row["phase"]) for row in market.funding]
    assert placed == [(0, AT_OPEN), (8, AT_OPEN), (16, INSIDE)]


def test_settlements_of_spot_and_of_other_assets_are_left_out() -> None:
    """BTC is no perpetual here, and ETH is not traded."""
    funding = pd.concat([settlements(0, 8), settlements(0, 8, asset="ETH")])
    market = market_from_frames(frame_of({"BTC": [FLAT] * 24}), funding)
    assert len(market.funding) == 0
    assert market.coverage.complete


def test_a_missing_settlement_is_declared() -> None:
    """Of 00, 08, 16 and 24 h the third is missing."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 32}), settlements(0, 8, 24), perpetuals=["BTC"])
    assert (market.coverage.expected_settlements, market.coverage.missing_settlements) == (4, 1)


def test_settlements_missing_at_both_ends_are_declared() -> None:
    """Two days hold six settlements; only the inner two are there."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 48}), settlements(16, 24), perpetuals=["BTC"])
    assert (market.coverage.expected_settlements, market.coverage.missing_settlements) == (6, 4)


def test_a_venue_that_settles_more_often_later_has_no_gap() -> None:
    """Every 8 hours, then every 4."""
    funding = settlements(0, 8, 16, 20, 24, 28)
    market = market_from_frames(frame_of({"BTC": [FLAT] * 32}), funding, perpetuals=["BTC"])
    assert market.coverage.missing_settlements == 0


def test_a_perpetual_without_any_funding_is_not_complete() -> None:
    """Two days owe six settlements at the usual eight hours."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 48}), perpetuals=["BTC"])
    assert market.coverage.missing_settlements == 6


def test_a_settlement_without_a_rate_is_refused() -> None:
    """Zero and unknown are different things."""
    with pytest.raises(MarketDataError, match="without a rate"):
        market_from_frames(frame_of({"BTC": [FLAT] * 9}), settlements(0, rate=float("nan")), perpetuals=["BTC"])


def test_a_settlement_that_is_there_twice_is_refused() -> None:
    """The raw and the rounded stamp of one settlement would pay twice."""
    with pytest.raises(MarketDataError, match="twice"):
        market_from_frames(frame_of({"BTC": [FLAT] * 9}), settlements(8, 8 + 1e-6), perpetuals=["BTC"])


@pytest.mark.parametrize(
    ("minutes", "bar"),
    [(0, 1), (4, 1), (6, 1), (7, 2), (30, 2), (60, 2)],
)
def test_a_signal_belongs_to_the_close_whose_open_it_can_still_catch(minutes: float, bar: int) -> None:
    """Decided so long after 02:00; five minutes of delay (less than a tenth of the bar) still fill at 02:00."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 5}))
    at = START + 2 * HOUR + pd.Timedelta(minutes=minutes)
    commands, _ = commands_from_signals(signal_frame((at, "BTC", "long", 0.5)), market, 360.0)
    assert commands["bar"].tolist() == [bar]


def test_the_delay_is_at_most_a_tenth_of_a_bar() -> None:
    """An hour of delay on hourly bars would fill decisions in the past; six minutes are the limit."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 5}))
    at = START + 2 * HOUR + pd.Timedelta(minutes=7)
    commands, _ = commands_from_signals(signal_frame((at, "BTC", "long", 0.5)), market, 3600.0)
    assert commands["bar"].tolist() == [2]


def test_signals_outside_the_bars_are_counted() -> None:
    """One before the first close, one a day after the last."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 3}))
    signals = signal_frame((START, "BTC", "long", 0.5), (START + DAY, "BTC", "flat", 0.0))
    commands, outside = commands_from_signals(signals, market, 0.0)
    assert (len(commands), outside) == (0, 2)


def test_signals_of_one_instant_go_by_confidence_then_name() -> None:
    """ETH is surer than BTC, which comes before ZEC."""
    market = market_from_frames(frame_of({name: [FLAT] * 3 for name in ("BTC", "ETH", "ZEC")}))
    at = START + HOUR
    signals = signal_frame((at, "ZEC", "long", 0.1), (at, "BTC", "short", 0.2), (at, "ETH", "long", 0.3))
    signals["confidence"] = [0.5, 0.5, 0.9]
    commands, _ = commands_from_signals(signals, market, 0.0)
    assert commands["value"].tolist() == [0.3, -0.2, 0.1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"direction": "up"}, "'up' is none of"),
        ({"position_size": -0.1}, "no fraction"),
        ({"asset": "DOGE"}, "DOGE"),
        ({"strategy": ["a", "b"]}, "one strategy"),
    ],
)
def test_signals_that_make_no_sense_are_refused(change: dict[str, Any], words: str) -> None:
    """The message names the offender and what is allowed."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 3}))
    signals = signal_frame((START + HOUR, "BTC", "long", 0.1), (START + 2 * HOUR, "BTC", "flat", 0.0))
    with pytest.raises(UsageError, match=words):
        commands_from_signals(signals.assign(**change), market, 0.0)


def test_two_signals_for_one_asset_and_time_are_refused() -> None:
    """Which of them holds cannot be known."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 3}))
    signals = signal_frame((START + HOUR, "BTC", "long", 0.1), (START + HOUR, "BTC", "flat", 0.0))
    with pytest.raises(UsageError, match="two signals"):
        commands_from_signals(signals, market, 0.0)


def test_targets_become_one_command_for_each_change() -> None:
    """Rows 0 and 1 open, row 2 changes nothing, row 3 closes the first and turns the second."""
    targets = np.array([[1, 0], [1, 1], [1, 1], [0, -1]], dtype=np.int8)
    commands = commands_from_targets(targets, size=0.5)
    assert [(row["bar"], row["asset"], row["value"]) for row in commands] == [
        (0, 0, 0.5),
        (1, 1, 0.5),
        (3, 0, 0.0),
        (3, 1, -0.5),
    ]


def test_a_part_of_what_is_decided_is_counted_from_its_start() -> None:
    """Of bars 0 to 4 those before bar 4 and from bar 2 on, as commands or as targets."""
    market = market_from_frames(frame_of({"BTC": [FLAT] * 5}))
    signals = signal_frame(*((START + hour * HOUR, "BTC", "long", hour / 10) for hour in range(1, 6)))
    commands, _ = commands_from_signals(signals, market, 0.0)
    part = part_of(commands, 2, 4)
    assert (part["bar"].tolist(), part["value"].tolist()) == ([0, 1], [0.3, 0.4])
    assert commands["bar"].tolist() == [0, 1, 2, 3, 4]
    assert part_of(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), 2, 4).tolist() == [0.2, 0.3]
