"""What a strategy may look at: named frames of the lake, limited to the rows that are known.

What belongs here: the container that strategies read, its order, and the cut by ``available_at``. No rule of any
strategy, no storage.

Every frame has ``available_at`` (when a row could first be known, UTC) and a time column: the first of
``timestamp``, ``open_time``, ``date`` that it holds. Frames are handed to strategies sorted by time and coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from mts_dagster.strategies.errors import StrategyError

TIME_COLUMNS = ("timestamp", "open_time", "date")
Microseconds = npt.NDArray[np.int64]
_BEFORE_ALL, _AFTER_ALL = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def time_column(name: str, frame: pd.DataFrame) -> str:
    """The column that orders ``frame``; ``name`` is for the error of a frame without one."""
    for column in TIME_COLUMNS:
        if column in frame.columns:
            return column
    raise StrategyError(f"table {name} has no time column: it needs one of {', '.join(TIME_COLUMNS)}")


class Knowledge(NamedTuple):
    """When the periods of a table became known; all in microseconds since 1970, all rising or falling with time.

    Attributes:
        begins: when the first row of a period was known, sorted.
        newest: newest period that had begun to be known after so many of them.
        ends: when the last row of a period was known, sorted.
        oldest: oldest period that was not wholly known after so many of them.
    """

    begins: Microseconds
    newest: Microseconds
    ends: Microseconds
    oldest: Microseconds


@dataclass(frozen=True)
class Market:
    """Named frames of the lake, e.g. ``{"features_daily": frame}``.

    Attributes:
        frames: rows of each table by its name.
        prepared_as: tables and coins that ``prepared`` made it of, so that an optimiser's next set of parameters finds
            the work done; None for frames as they came.
    """

    frames: Mapping[str, pd.DataFrame]
    prepared_as: tuple[tuple[str, ...], tuple[str, ...]] | None = field(default=None, compare=False)

    def table(self, name: str, columns: Iterable[str] = ()) -> pd.DataFrame:
        """A frame of its own for the caller: all columns of a table, or ``columns`` alone.

        Raises:
            StrategyError: the market holds no such table, or the table lacks a column.
        """
        if name not in self.frames:
            held = ", ".join(sorted(self.frames)) or "nothing"
            raise StrategyError(f"the market has no table {name!r} (it has: {held}); name it in the strategy's inputs")
        frame = self.frames[name]
        wanted = list(columns) or list(frame.columns)
        missing = [column for column in wanted if column not in frame.columns]
        if missing:
            raise StrategyError(
                f"table {name} has no column {', '.join(missing)} (it has: {', '.join(map(str, frame.columns))})"
            )
        return frame[wanted].copy(deep=False)

    def prepared(self, inputs: Iterable[str], coins: Iterable[str]) -> Market:
        """The tables ``inputs`` alone, of ``coins`` alone, in UTC and in order of time and coin.

        Raises:
            StrategyError: a table is missing, or does not tell when its rows were known.
        """
        wanted = tuple(inputs), tuple(coins)
        if self.prepared_as == wanted:
            return self
        return Market({name: _ordered(name, self.table(name), wanted[1]) for name in wanted[0]}, wanted)

    def between(self, start: date, end: date) -> Market:
        """Rows of periods that begin on the days ``[start, end)``, UTC."""
        cut: dict[str, pd.DataFrame] = {}
        for name, frame in self.frames.items():
            times = frame[time_column(name, frame)]
            first, beyond = (pd.Timestamp(day, tz=times.dt.tz) for day in (start, end))
            inside = (times >= first) & (times < beyond)
            cut[name] = frame if inside.all() else frame[inside]
        if all(cut[name] is frame for name, frame in self.frames.items()):
            return self
        return Market(cut)

    @cached_property
    def knowledge(self) -> tuple[Knowledge, ...]:
        """How far each table was known at any time."""
        return tuple(_knowledge(frame, time_column(name, frame)) for name, frame in self.frames.items())

    def incomplete_at(self, moments: pd.Series[pd.Timestamp]) -> pd.Series[bool]:
        """Whether, at each moment, a row was unknown although one of the same or a later period was known.

        Of any table: that a day's features are known does not mean that the day's rows elsewhere are.
        """
        times = _microseconds(moments)
        newest_known = np.full(len(times), _BEFORE_ALL)
        oldest_unknown = np.full(len(times), _AFTER_ALL)
        for table in self.knowledge:
            begun = np.searchsorted(table.begins, times, side="right")
            ended = np.searchsorted(table.ends, times, side="right")
            newest_known = np.maximum(newest_known, table.newest[begun])
            oldest_unknown = np.minimum(oldest_unknown, table.oldest[ended])
        return pd.Series(oldest_unknown <= newest_known, index=moments.index, dtype="bool")

    def known_at(self, moment: pd.Timestamp) -> Market:
        """Rows that could be known at ``moment``."""
        return Market({name: frame[frame["available_at"] <= moment] for name, frame in self.frames.items()})


def _ordered(name: str, frame: pd.DataFrame, coins: tuple[str, ...]) -> pd.DataFrame:
    """Rows of ``coins`` with times as timestamps, sorted; what has no coin is kept whole."""
    time = time_column(name, frame)
    if "available_at" not in frame.columns:
        raise StrategyError(f"table {name} has no column available_at: nothing tells when its rows were known")
    if "coin" in frame.columns:
        frame = frame[frame["coin"].isin(coins)]
    frame = frame.assign(
        **{time: pd.to_datetime(frame[time], utc=time != "date")},
        available_at=pd.to_datetime(frame["available_at"], utc=True),
    )
    unknown = int(frame["available_at"].isna().sum())
    if unknown:
        raise StrategyError(f"table {name}: available_at is null in {unknown} of {len(frame)} rows")
    order = [time, "coin"] if "coin" in frame.columns else [time]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def _knowledge(frame: pd.DataFrame, time: str) -> Knowledge:
    known = frame["available_at"].groupby(pd.to_datetime(frame[time], utc=True))
    periods = _microseconds(known.first().index.to_series())
    first, last = _microseconds(known.min()), _microseconds(known.max())
    begins, ends = np.argsort(first, kind="stable"), np.argsort(last, kind="stable")
    return Knowledge(
        first[begins],
        np.concatenate([[_BEFORE_ALL], np.maximum.accumulate(periods[begins])]),
        last[ends],
        np.concatenate([np.minimum.accumulate(periods[ends][::-1])[::-1], [_AFTER_ALL]]),
    )


def _microseconds(times: pd.Series[pd.Timestamp]) -> Microseconds:
    return times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
