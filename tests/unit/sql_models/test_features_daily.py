"""Daily features: hand-computed values, short windows, gaps, and what was known at the decision."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]
FIRST = date(2024, 1, 1)


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def feature(select: Select, number: int, names: str) -> tuple[Any, ...]:
    (row,) = select(f"select {names} from marts.features_daily where date = '{day(number)}'")
    return tuple(row.values())


def test_return_is_from_the_day_before(kline: Add, build: Build, select: Select) -> None:
    """110 after 100 is 10 percent, ln(1.1); the first day has no return."""
    for number, close in enumerate([100.0, 110.0]):
        kline(day(number), close, interval="1d")
    build(day(0), day(2))
    assert feature(select, 0, "close_usd, return_pct, log_return") == (100.0, None, None)
    assert feature(select, 1, "close_usd, return_pct, log_return") == pytest.approx((110.0, 10.0, math.log(1.1)))


def test_decision_is_at_the_bars_availability(kline: Add, build: Build, select: Select) -> None:
    """The row says when and from what bar it was decided."""
    kline(day(0), 100.0, interval="1d")
    build(day(0), day(1))
    assert feature(select, 0, "source, ohlc_method, hours_covered, available_at") == (
        "binance",
        "exchange",
        24,
        datetime(2024, 1, 2, 0, 1, tzinfo=UTC),
    )


def test_missing_day_is_not_bridged(kline: Add, build: Build, select: Select) -> None:
    """After a missing day there is no return, and it is missing in the counts."""
    for number in (0, 1, 3, 4):
        kline(day(number), 100.0 + number, interval="1d")
    build(day(0), day(5))
    assert feature(select, 3, "return_pct, volatility_days, drawdown_days") == (None, 1, 3)
    assert feature(select, 4, "volatility_days, drawdown_days") == (2, 4)


def test_volatility(kline: Add, build: Build, select: Select) -> None:
    """Returns of +-1 % in turn over 30 days have a sample deviation of 0.01 * sqrt(30/29); a year has 365 days."""
    for number in range(32):
        kline(day(number), 100.0 * math.exp(0.01 * (number % 2)), interval="1d")
    build(day(0), day(32))
    assert feature(select, 29, "volatility_30d_ann_pct, volatility_days") == (None, 29)
    expected = 0.01 * math.sqrt(30 / 29) * math.sqrt(365) * 100
    for number in (30, 31):
        assert feature(select, number, "volatility_30d_ann_pct, volatility_days") == pytest.approx((expected, 30))


def test_drawdown(kline: Add, build: Build, select: Select) -> None:
    """Depth below the highest close: 25 % at 75 after 100, 0 at a new high."""
    for number, close in enumerate([80.0, 100.0, 75.0, 120.0]):
        kline(day(number), close, interval="1d")
    build(day(0), day(4))
    drawdowns = [feature(select, number, "drawdown_90d_pct, drawdown_days") for number in range(4)]
    assert drawdowns == [(0.0, 1), (0.0, 2), (25.0, 3), (0.0, 4)]


def test_drawdown_forgets_after_90_days(kline: Add, build: Build, select: Select) -> None:
    """The high of day 0 counts on day 89, the 90th day, and no longer on day 90."""
    for number in range(91):
        kline(day(number), 200.0 if number == 0 else 100.0, interval="1d")
    build(day(0), day(91))
    assert feature(select, 89, "drawdown_90d_pct, drawdown_days") == (50.0, 90)
    assert feature(select, 90, "drawdown_90d_pct, drawdown_days") == (0.0, 90)


def test_volume_zscore(kline: Add, build: Build, select: Select) -> None:
    """29 days of 10 and one of 40: mean 11, sample deviation sqrt(30), z = 29 / sqrt(30)."""
    for number in range(30):
        kline(day(number), 1.0, interval="1d", volume_quote_usd=40.0 if number == 29 else 10.0)
    build(day(0), day(30))
    assert feature(select, 28, "volume_zscore_30d, volume_days") == (None, 29)
    assert feature(select, 29, "volume_zscore_30d, volume_days") == pytest.approx((29 / math.sqrt(30), 30))


def test_volumes_of_two_venues_are_not_compared(kline: Add, build: Build, select: Select) -> None:
    """When the source changes, the volumes of the other venue do not count."""
    for number in range(31):
        kline(
            day(number),
            1.0,
            interval="1d",
            volume_quote_usd=1.0 + number,
            venue="binance" if number < 30 else "bybit",
        )
    build(day(0), day(31))
    assert feature(select, 30, "volume_zscore_30d, volume_days") == (None, 1)


def test_constant_volume_has_no_zscore(kline: Add, build: Build, select: Select) -> None:
    """Without any spread a deviation from the mean means nothing."""
    for number in range(30):
        kline(day(number), 1.0, interval="1d")
    build(day(0), day(30))
    assert feature(select, 29, "volume_zscore_30d, volume_days") == (None, 30)


def test_vix_is_the_latest_known(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """Thursday's VIX is published on Friday at 22:00: Thursday's decision does not know it, Friday's does."""
    for number in (2, 3, 4):
        kline(day(number), 1.0, interval="1d")
    observe("2024-01-03", 14.04, "2024-01-04")
    observe("2024-01-04", 14.13, "2024-01-05")
    build(day(2), day(5))
    assert feature(select, 2, "vix, vix_date, vix_pit_quality") == (None, None, None)
    assert feature(select, 3, "vix, vix_date, vix_pit_quality") == (14.04, date(2024, 1, 3), "vintage")
    assert feature(select, 4, "vix, vix_date") == (14.13, date(2024, 1, 4))


@pytest.mark.parametrize(("known", "vix"), [("2024-01-05 00:01", 14.13), ("2024-01-05 00:02", 14.04)])
def test_vix_as_of_the_decision(kline: Add, observe: Add, build: Build, select: Select, known: str, vix: float) -> None:
    """What becomes known at the decision counts, a minute later it does not."""
    kline(day(3), 1.0, interval="1d")
    observe("2024-01-03", 14.04, "2024-01-04")
    observe("2024-01-04", 14.13, "2024-01-04", known=known)
    build(day(3), day(4))
    assert feature(select, 3, "vix") == (vix,)


def test_later_revision_does_not_change_the_past(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """A revision counts for decisions after it, and only for those."""
    for number in (2, 3):
        kline(day(number), 1.0, interval="1d")
    observe("2024-01-02", 13.2, "2024-01-03")
    observe("2024-01-02", 13.3, "2024-01-04")
    build(day(2), day(4))
    assert [feature(select, number, "vix") for number in (2, 3)] == [(13.2,), (13.3,)]


@pytest.mark.parametrize(("number", "vix"), [(11, 13.2), (12, None)])
def test_stale_vix_is_no_vix(
    kline: Add, observe: Add, build: Build, select: Select, number: int, vix: float | None
) -> None:
    """Ten days after its day a VIX still stands, eleven days after it does not; its day stays visible."""
    kline(day(number), 1.0, interval="1d")
    observe("2024-01-02", 13.2, "2024-01-03")
    build(day(number), day(number + 1))
    assert feature(select, number, "vix, vix_date") == (vix, date(2024, 1, 2))


def correlated(kline: Add, observe: Add, *, days: int, sign: int) -> None:
    """A coin and a VIX whose changes over the same day are in fixed proportion; the VIX is known a day later."""
    level = 0.0
    for number in range(days):
        level += math.sin(number)
        kline(day(number), 100.0 * math.exp(0.01 * level), interval="1d")
        observe(day(number), 20.0 * math.exp(sign * 0.03 * level), day(number + 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_correlation_is_over_the_same_days(kline: Add, observe: Add, build: Build, select: Select, sign: int) -> None:
    """Series in fixed proportion correlate fully once 30 steps are known, though the VIX comes a day late."""
    correlated(kline, observe, days=34, sign=sign)
    build(day(0), day(34))
    assert feature(select, 30, "vix_correlation, vix_correlation_pairs") == (None, 29)
    for number in (31, 33):
        assert feature(select, number, "vix_correlation, vix_correlation_pairs") == pytest.approx((sign, 30))


def test_correlation_steps_span_days_without_vix(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """From Friday to Monday the coin's change is taken over the same three days, not over one."""
    level = 0.0
    for number in range(50):
        level += math.sin(number)
        kline(day(number), 100.0 * math.exp(0.01 * level), interval="1d")
        if number % 7 < 5:
            observe(day(number), 20.0 * math.exp(-0.03 * level), day(number + 1))
    build(day(0), day(50))
    assert feature(select, 49, "vix_correlation, vix_correlation_pairs") == pytest.approx((-1.0, 30))


def test_step_with_a_missing_close_is_left_out(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """A missing close takes its two steps out of the count; older steps fill the window where there are any."""
    correlated(kline, observe, days=34, sign=-1)
    for number in range(34, 36):
        kline(day(number), 100.0, interval="1d")
    build(day(0), day(36))
    assert feature(select, 33, "vix_correlation_pairs") == (30,)
    build_without = f"delete from raw.klines where open_time = '{day(20)} 00:00:00+00'"
    select(f"{build_without} returning 1")
    build(day(0), day(36))
    assert feature(select, 31, "vix_correlation, vix_correlation_pairs") == (None, 28)
    assert feature(select, 33, "vix_correlation, vix_correlation_pairs") == pytest.approx((-1.0, 30))


def test_constant_series_has_no_correlation(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """A coin that does not move correlates with nothing."""
    for number in range(34):
        kline(day(number), 100.0, interval="1d")
        observe(day(number), 20.0 + number % 3, day(number + 1))
    build(day(0), day(34))
    assert feature(select, 33, "vix_correlation, vix_correlation_pairs") == (None, 30)


def test_stale_vix_has_no_correlation(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """When the VIX stops, an old correlation does not live on."""
    correlated(kline, observe, days=40, sign=-1)
    for number in range(40, 52):
        kline(day(number), 100.0, interval="1d")
    build(day(0), day(52))
    assert feature(select, 49, "vix is null, vix_correlation is null") == (False, False)
    assert feature(select, 50, "vix is null, vix_correlation is null") == (True, True)


def test_day_that_was_not_known_yet_is_missing(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """A day before whose bar is proven only after the decision is missing in it, though it is there later."""
    sample(f"{day(0)} 23:30", 100.0)
    kline(day(1), 110.0, interval="1d")
    kline(day(2), 121.0, interval="1d")
    sample(f"{day(2)} 05:00", 100.0)
    build(day(0), day(3))
    assert feature(select, 0, "close_usd, available_at") == (100.0, datetime(2024, 1, 3, 5, 0, 10, tzinfo=UTC))
    assert feature(select, 1, "return_pct, drawdown_days") == (None, 1)
    assert feature(select, 2, "drawdown_days") == (3,)


def test_values_of_days_to_come_do_not_count(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """A VIX dated after the day is not the day's, whenever it was published and whatever the window reads."""
    kline(day(3), 1.0, interval="1d")
    observe(day(2), 14.0, day(3))
    observe(day(4), 15.0, day(3))
    build(day(3), day(6))
    assert feature(select, 3, "vix, vix_date") == (14.0, date(2024, 1, 3))


def test_history_ends_after_90_days_in_any_window(kline: Add, observe: Add, build: Build, select: Select) -> None:
    """Steps and observations of more than 90 days ago do not count, also where a long window reads them."""
    level = 0.0
    for number in range(140):
        level += math.sin(number)
        kline(day(number), 100.0 * math.exp(0.01 * level), interval="1d")
        # Steps of four days: the last 30 would reach back 120 days; known are those from day 52 to day 136.
        if number % 4 == 0:
            observe(day(number), 20.0 * math.exp(-0.03 * level), day(number + 1))
    for number in range(140, 230):
        kline(day(number), 100.0, interval="1d")
    build(day(0), day(230))
    assert feature(select, 139, "vix_correlation, vix_correlation_pairs") == (None, 21)
    assert feature(select, 226, "vix_date") == (date(2024, 1, 1) + timedelta(days=136),)
    assert feature(select, 227, "vix_date") == (None,)
