"""What is unusual: z-scores against the recent past, the trend of a spread, spikes of volume.

What belongs here: statistics of a series against its own past. A value is never part of the past it is compared
with, so the streaming and the batch form agree and neither looks ahead.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mts_realtime.analytics.microstructure import FloatArray

SMALLEST_DEVIATION = 1e-9
"""Below this (relative to the mean) a series counts as constant: there is no meaningful score."""

_SHRINKAGE = 1e-3
"""Squared deviations that fall below this share at once have lost too many digits."""


class RollingScore:
    """Z-score of each new value against the ``window`` values before it, one value at a time.

    Mean and squared deviations are carried along. They are computed anew once a window, and whenever an outlier
    leaves: subtracting a huge number from a huge number would leave nothing but rounding.
    """

    __slots__ = ("_deviations", "_mean", "_min_samples", "_pushes", "_values", "_window")

    def __init__(self, window: int, min_samples: int | None = None) -> None:
        self._window = window
        self._min_samples = max(2, window // 4 if min_samples is None else min_samples)
        self._values: deque[float] = deque()
        self._mean = 0.0
        self._deviations = 0.0
        self._pushes = 0

    def push(self, value: float) -> float:
        """Score the value, then add it to the past. NaN until the past holds enough."""
        score = self._score(value)
        values = self._values
        before, shift = self._deviations, value - self._mean
        values.append(value)
        if len(values) > self._window:
            oldest = values.popleft()
            gain = value - oldest
            old_mean = self._mean
            self._mean += gain / self._window
            self._deviations += gain * (value - self._mean + oldest - old_mean)
        else:
            self._mean += shift / len(values)
            self._deviations += shift * (value - self._mean)
        self._pushes += 1
        if self._deviations < before * _SHRINKAGE or self._pushes % self._window == 0:
            self._mean = math.fsum(values) / len(values)
            self._deviations = math.fsum((past - self._mean) ** 2 for past in values)
        return score

    @property
    def values(self) -> tuple[float, ...]:
        """The past, oldest first."""
        return tuple(self._values)

    def _score(self, value: float) -> float:
        count = len(self._values)
        if count < self._min_samples:
            return math.nan
        deviation = math.sqrt(max(self._deviations, 0.0) / (count - 1))
        if deviation <= SMALLEST_DEVIATION * max(1.0, abs(self._mean)):
            return math.nan
        return (value - self._mean) / deviation


def rolling_score(values: ArrayLike, window: int, min_samples: int | None = None) -> FloatArray:
    """Batch form of ``RollingScore``: scores of a whole series in time order."""
    rolling = RollingScore(window, min_samples)
    series = np.asarray(values, dtype=np.float64)
    return np.fromiter((rolling.push(float(value)) for value in series), dtype=np.float64, count=len(series))


def volume_flow(turnover_24h: ArrayLike) -> FloatArray:
    """Turnover between samples, estimated from a trailing 24 h total: its increase, never below zero.

    The total also loses what leaves it at the far end, so a quiet moment may show zero. A spike is visible all the
    same, since it enters at once and leaves a day later. The first value is NaN.
    """
    total = np.asarray(turnover_24h, dtype=np.float64)
    flow = np.full(total.shape, np.nan)
    flow[1:] = np.maximum(total[1:] - total[:-1], 0.0)
    return flow


def trend_per_minute(times_s: ArrayLike, values: ArrayLike) -> float:
    """Slope of the least-squares line through the series, units of the values per minute; NaN below two times."""
    time = np.asarray(times_s, dtype=np.float64)
    value = np.asarray(values, dtype=np.float64)
    if time.size == 0:
        return math.nan
    centred = time - time.mean()
    scale = float(centred @ centred)
    if scale == 0.0:
        return math.nan
    return float(centred @ (value - value.mean())) / scale * 60.0


def rolling_trend(values: ArrayLike, window: int, step_s: float) -> FloatArray:
    """``trend_per_minute`` of the ``window`` values up to and including each one, for values ``step_s`` apart.

    The first values have a shorter past; the very first has none and is NaN.
    """
    series = np.asarray(values, dtype=np.float64)
    trends = np.full(series.shape, np.nan)
    for count in range(2, min(window, len(series) + 1)):
        trends[count - 1] = trend_per_minute(np.arange(count) * step_s, series[:count])
    if len(series) >= window:
        time = np.arange(window) * step_s
        centred = time - time.mean()
        past = np.lib.stride_tricks.sliding_window_view(series, window)
        level = past.mean(axis=1)
        trends[window - 1 :] = (past @ centred - level * centred.sum()) / (centred @ centred) * 60.0
    return trends


def flow_score(turnover_24h: ArrayLike, window: int) -> FloatArray:
    """Scores of the turnover between samples; NaN for the first sample, which has no flow."""
    total = np.asarray(turnover_24h, dtype=np.float64)
    scores = np.full(total.shape, np.nan)
    scores[1:] = rolling_score(volume_flow(total)[1:], window)
    return scores
