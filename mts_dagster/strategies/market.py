"""What a strategy may look at: named frames of the lake, limited to the rows that are known.

What belongs here: the container that strategies read, its order, and the cut by ``available_at``. No rule of any
strategy, no storage.

Every frame has ``available_at`` (when a row could first be known, UTC) and a time column: the first of
``timestamp``, ``open_time``, ``date`` that it holds. Frames are handed to strategies sorted by time and coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import pandas as pd

from mts_dagster.strategies.errors import StrategyError

TIME_COLUMNS = ("timestamp", "open_time", "date")


def time_column(name: str, frame: pd.DataFrame) -> str:
    """The column that orders ``frame``; ``name`` is for the error of a frame without one."""
    for column in TIME_COLUMNS:
        if column in frame.columns:
            return column
    raise StrategyError(f"table {name} has no time column: it needs one of {', '.join(TIME_COLUMNS)}")


@dataclass(frozen=True)
class Market:
    """Named frames of the lake, e.g. ``{"features_daily": frame}``.

    Attributes:
        frames: rows of each table by its name.
    """

    frames: Mapping[str, pd.DataFrame]

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
        wanted = tuple(coins)
        return Market({name: _ordered(name, self.table(name), wanted) for name in inputs})

    def between(self, start: date, end: date) -> Market:
        """Rows of periods that begin on the days ``[start, end)``, UTC."""
        cut: dict[str, pd.DataFrame] = {}
        for name, frame in self.frames.items():
            times = frame[time_column(name, frame)]
            first, beyond = (pd.Timestamp(day, tz=times.dt.tz) for day in (start, end))
            cut[name] = frame[(times >= first) & (times < beyond)]
        return Market(cut)

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
