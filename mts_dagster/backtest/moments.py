"""One pass over an equity curve: what the metrics need of it.

What belongs here: the compiled reductions and their row. What the numbers mean is in ``metrics.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mts_dagster.backtest.compiled import kernel, rule, summing

if TYPE_CHECKING:
    from mts_dagster.backtest.layout import FloatArray, Moments, Rows

NOISE: Final = 1e-24  # variance of returns below this is float residue of a constant


@rule
def describe(out: Moments, count: int, shift: float, sums: tuple[float, float, float, float]) -> None:
    """Turn sums of powers of the shifted returns into mean, sample variance, skewness and kurtosis."""
    first, second, third, fourth = sums[0] / count, sums[1] / count, sums[2] / count, sums[3] / count
    central2 = second - first * first
    out.mean = shift + first
    out.variance = 0.0 if count > 0 else math.nan
    out.skewness = 0.0
    out.kurtosis = 3.0
    if count > 1 and central2 > NOISE:
        out.variance = central2 * count / (count - 1)
        central3 = third - 3.0 * first * second + 2.0 * first**3
        central4 = fourth - 4.0 * first * third + 6.0 * first * first * second - 3.0 * first**4
        out.skewness = central3 / central2**1.5
        out.kurtosis = central4 / (central2 * central2)


@rule
def drawdowns(equity: FloatArray) -> tuple[float, int]:
    """Return the deepest fall from a peak as a fraction, and the longest time from a peak until it is reached again."""
    deepest = 0.0
    longest = 0
    peak = equity[0]
    peak_bar = 0
    lowest = peak
    for t in range(1, len(equity)):
        now = equity[t]
        if now >= peak:
            if t - peak_bar > 1:
                deepest = max(deepest, 1.0 - lowest / peak)
                longest = max(longest, t - peak_bar)
            peak = now
            peak_bar = t
            lowest = now
        else:
            lowest = min(lowest, now)
    if lowest < peak:
        deepest = max(deepest, 1.0 - lowest / peak)
        longest = max(longest, len(equity) - 1 - peak_bar)
    return deepest, longest


@summing
def measure(equity: FloatArray, table: Rows[Moments]) -> None:
    """Reduce the returns of an equity curve into the one row of ``table``.

    Sums are taken around the average growth, so that they stay exact where all returns are alike. After equity was used
    up the remaining returns are zero.
    """
    out = table[0]
    count = len(equity) - 1
    out.count = count
    out.first = equity[0]
    out.last = equity[count]
    out.drawdown, out.drawdown_bars = drawdowns(equity)
    growth = out.last / out.first
    shift = math.exp(math.log(growth) / count) - 1.0 if growth > 0.0 else 0.0
    first = second = third = fourth = downside = total = 0.0
    for t in range(count):
        before = equity[t]
        change = equity[t + 1] / before - 1.0 if before > 0.0 else 0.0
        loss = min(change, 0.0)
        away = change - shift
        square = away * away
        downside += loss * loss
        first += away
        second += square
        third += square * away
        fourth += square * square
        total += equity[t + 1]
    out.downside = downside / count
    out.mean_equity = (total + out.first) / (count + 1)
    describe(out, count, shift, (first, second, third, fourth))


@summing
def correlation(equity: FloatArray, other: FloatArray) -> float:
    """Return the correlation of the returns of two equity curves, 0 where one of them does not move."""
    count = len(equity) - 1
    x = y = xx = yy = xy = 0.0
    for t in range(count):
        a = equity[t + 1] / equity[t] - 1.0 if equity[t] > 0.0 else 0.0
        b = other[t + 1] / other[t] - 1.0
        x += a
        y += b
        xx += a * a
        yy += b * b
        xy += a * b
    varies = (xx - x * x / count) * (yy - y * y / count)
    if varies <= NOISE * NOISE:
        return 0.0
    return (xy - x * y / count) / math.sqrt(varies)


@kernel
def hold_equally(mark: FloatArray, out: FloatArray) -> None:
    """Write the growth of equal shares in all assets, bought at their first marks and never touched."""
    bars, assets = mark.shape
    out[:] = 0.0
    for asset in range(assets):
        listed = 0
        while listed < bars and math.isnan(mark[listed, asset]):
            out[listed] += 1.0 / assets
            listed += 1
        for t in range(listed, bars):
            out[t] += mark[t, asset] / mark[listed, asset] / assets
