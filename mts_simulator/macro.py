"""Seeded macro series with their publication calendar and revisions.

What belongs here: the values, when each became known, and what a first release said when it was revised. The
VIX comes from the same world as the crypto market. ``fred`` turns this into the service's answers.

Daily series appear on the next business day; the dollar index appears once a week, a whole week at a time.
Holidays are listed with the value ``.``; they differ by series.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pandas.tseries.holiday import GoodFriday, USFederalHolidayCalendar

from mts_simulator.clock import central_ms, date_of, day_number
from mts_simulator.noise import Floats, Ints, generator, key_of, uniform
from mts_simulator.paths import DAYS, FIRST_DAY, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

MISSING = "."
_FRIDAY = 4
_LARGEST_REVISION = 4


@dataclass(frozen=True)
class Series:
    """What FRED tells about a series, and how the seeded one is published.

    Attributes:
        id: FRED's id.
        title: FRED's title.
        units: FRED's units.
        frequency: FRED's frequency.
        decimals: Digits after the point.
        weekends: Whether it has a value on all seven days.
        weekly_release: Whether a whole week is published on the next Monday.
        release_hour: Hour of publication, US Central.
        revised_part: Part of the first releases that are revised.
        federal_holidays: Whether all federal holidays are without a value.
        good_friday: Whether Good Friday is without a value.
    """

    id: str
    title: str
    units: str
    frequency: str = "Daily"
    decimals: int = 2
    weekends: bool = False
    weekly_release: bool = False
    release_hour: int = 8
    revised_part: float = 0.0
    federal_holidays: bool = True
    good_friday: bool = False


@dataclass(frozen=True)
class Releases:
    """Every value a series ever showed, ordered by observation day and then by vintage.

    Days are counted since 1970-01-01. A row becomes visible at ``released_ms``.
    """

    day: Ints
    vintage: Ints
    released_ms: Ints
    value: list[str]

    def visible(self, now_ms: int) -> Releases:
        """The rows that are published at ``now_ms``."""
        kept = np.flatnonzero(self.released_ms <= now_ms)
        values = [self.value[i] for i in kept.tolist()]
        return Releases(self.day[kept], self.vintage[kept], self.released_ms[kept], values)


class MacroData(Protocol):
    """The data behind FRED."""

    def series(self) -> Mapping[str, Series]:
        """All series by id."""

    def releases(self, series_id: str, now_ms: int) -> Releases:
        """What is published of a series at ``now_ms``."""


SERIES: dict[str, Series] = {
    series.id: series
    for series in (
        Series("VIXCLS", "CBOE Volatility Index: VIX", "Index", "Daily, Close", revised_part=0.004,
               federal_holidays=False, good_friday=True),
        Series("DGS10", "Market Yield on U.S. Treasury Securities at 10-Year Constant Maturity, Quoted on an "
               "Investment Basis", "Percent", release_hour=15, revised_part=0.01, good_friday=True),
        Series("DGS2", "Market Yield on U.S. Treasury Securities at 2-Year Constant Maturity, Quoted on an "
               "Investment Basis", "Percent", release_hour=15, revised_part=0.01, good_friday=True),
        Series("DFF", "Federal Funds Effective Rate", "Percent", "Daily, 7-Day", weekends=True,
               revised_part=0.01),
        Series("DTWEXBGS", "Nominal Broad U.S. Dollar Index", "Index Jan 2006=100", decimals=4,
               weekly_release=True, release_hour=15, revised_part=0.12),
    )
}  # fmt: skip
"""The seeded series."""

_VIX_HOLIDAYS = ("New Year's Day", "Christmas Day")


class SeededMacro:
    """The seeded ``MacroData``.

    Args:
        world: The world whose VIX is published.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = lru_cache(maxsize=None)(self._load)

    def series(self) -> Mapping[str, Series]:
        """All series by id."""
        return SERIES

    def releases(self, series_id: str, now_ms: int) -> Releases:
        """What is published of a series at ``now_ms``."""
        return self._all(series_id).visible(now_ms)

    def _load(self, series_id: str) -> Releases:
        series = SERIES[series_id]
        numbers = np.arange(FIRST_DAY, FIRST_DAY + DAYS, dtype=np.int64)
        listed = numbers if series.weekends else numbers[weekday(numbers) <= _FRIDAY]
        closed = np.isin(listed, np.zeros(0, dtype=np.int64) if series.weekends else _holidays(series))
        final = self._values(series_id)[listed - FIRST_DAY]
        first_vintage = _publication(listed, series)
        key = key_of(self._world.seed, "revision", series_id)
        revised = (uniform(key, listed) < series.revised_part) & ~closed
        unit = 10.0**-series.decimals
        size = 1 + np.floor(uniform(key ^ 1, listed) * _LARGEST_REVISION)
        error = unit * size * np.sign(uniform(key ^ 2, listed) - 0.5)
        text = f"%.{series.decimals}f"
        shown_first = (final + np.where(revised, error, 0)).tolist()
        first = [
            MISSING if gone else _shown(text, value) for value, gone in zip(shown_first, closed.tolist(), strict=True)
        ]
        later = [_shown(text, value) for value in final[revised].tolist()]
        day = np.concatenate([listed, listed[revised]])
        vintage = np.concatenate([first_vintage, _publication(first_vintage[revised], series)])
        value = first + later
        order = np.lexsort((vintage, day))
        released = {int(v): central_ms(date_of(int(v)), series.release_hour) for v in np.unique(vintage)}
        released_ms = np.array([released[int(v)] for v in vintage], dtype=np.int64)
        return Releases(day[order], vintage[order], released_ms[order], [value[i] for i in order.tolist()])

    def _values(self, series_id: str) -> Floats:
        """The final value of each day since ``FIRST_DAY``."""
        if series_id == "VIXCLS":
            return self._world.vix
        rng = generator(key_of(self._world.seed, "macro"))
        steps = rng.standard_normal((3, DAYS))
        years = np.arange(DAYS) / 365.25
        policy = 2.4 + 2.2 * np.sin(2 * np.pi * (years - 4.6) / 7.0)
        if series_id == "DFF":
            target: Floats = np.round(policy[np.arange(DAYS) // 45 * 45] * 4) / 4
            jitter: Floats = 0.01 * np.round(steps[0] * 0.4)
            return np.maximum(target, 0.0) + 0.08 + jitter
        if series_id == "DTWEXBGS":
            wave: Floats = 114.0 + 5.0 * np.sin(2 * np.pi * years / 6.0)
            return wave + _wander(steps[1], 0.30, 0.004)
        shared = _wander(steps[2], 0.05, 0.006)
        if series_id == "DGS10":
            return np.maximum(1.6 + 0.55 * policy + shared, 0.3)
        return np.maximum(0.9 + 0.75 * policy + 1.1 * shared, 0.1)


def weekday(numbers: Ints) -> Ints:
    """Monday is 0, for days counted since 1970-01-01 (a Thursday)."""
    return (numbers + 3) % 7


def _shown(text: str, value: float) -> str:
    """A value as FRED writes it: trailing zeros dropped down to one decimal."""
    return str(float(text % value))


def _wander(shocks: Floats, size: float, reversion: float) -> Floats:
    path = np.empty(len(shocks))
    level = 0.0
    for i, shock in enumerate(shocks.tolist()):
        level = (1 - reversion) * level + size * shock
        path[i] = level
    return path


@lru_cache(maxsize=1)
def _federal_holidays() -> pd.Series:
    """Names of the federal holidays by date."""
    names: pd.Series = USFederalHolidayCalendar().holidays(
        date_of(FIRST_DAY), date_of(FIRST_DAY + DAYS), return_name=True
    )
    return names


def _holidays(series: Series) -> Ints:
    """Day numbers without a value."""
    names = _federal_holidays()
    if not series.federal_holidays:
        names = names[names.isin(_VIX_HOLIDAYS)]
    numbers = [day_number(day.date()) for day in names.index]
    if series.good_friday:
        fridays = GoodFriday.dates(date_of(FIRST_DAY), date_of(FIRST_DAY + DAYS))
        numbers += [day_number(day.date()) for day in fridays]
    return np.array(sorted(numbers), dtype=np.int64)


@lru_cache(maxsize=1)
def _business_days() -> Ints:
    """All federal business days."""
    numbers = np.arange(FIRST_DAY, FIRST_DAY + DAYS + 30, dtype=np.int64)
    holidays = np.array([day_number(day.date()) for day in _federal_holidays().index], dtype=np.int64)
    return numbers[(weekday(numbers) <= _FRIDAY) & ~np.isin(numbers, holidays)]


def _publication(days: Ints, series: Series) -> Ints:
    """When the value of each day is published."""
    after = days + (6 - weekday(days)) if series.weekly_release else days
    business = _business_days()
    published: Ints = business[np.searchsorted(business, after, side="right")]
    return published
