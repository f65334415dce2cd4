"""What one order book says: spread, fair price, depth, imbalance, cost of trading, liquidity.

What belongs here: functions of a single book at a single moment. Every function takes one book or many: prices and
sizes are arrays whose last axis runs over levels, best first; missing levels are NaN. Top-of-book arguments are
floats or arrays of equal shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

FloatArray = NDArray[np.float64]
Number = TypeVar("Number", float, FloatArray)

BPS = 10_000.0
REFERENCE_SPREAD_BPS = 1.0
"""Spread at which ``liquidity_score`` is halved: the usual spread of the largest perpetuals is below it."""
REFERENCE_DEPTH_USD = 100_000.0
"""Depth at which ``liquidity_score`` is halved."""


def mid(bid: Number, ask: Number) -> Number:
    """Price halfway between best bid and best ask."""
    return (bid + ask) / 2.0


def spread_usd(bid: Number, ask: Number) -> Number:
    """Best ask minus best bid, quote currency."""
    return ask - bid


def spread_bps(bid: Number, ask: Number) -> Number:
    """The same relative to the mid, basis points."""
    return (ask - bid) / ((bid + ask) / 2.0) * BPS


def micro_price(bid: Number, bid_size: Number, ask: Number, ask_size: Number) -> Number:
    """Mid weighted by the opposite sizes: it leans to the side that is about to give way.

    >>> micro_price(100.0, 3.0, 101.0, 1.0)
    100.75
    """
    return (bid * ask_size + ask * bid_size) / (bid_size + ask_size)


def imbalance(bid_sizes: ArrayLike, ask_sizes: ArrayLike) -> FloatArray:
    """(bids - asks) / (bids + asks) over the levels given: 1 is all bids, -1 all asks, NaN when empty."""
    bids = np.nansum(np.asarray(bid_sizes, dtype=np.float64), axis=-1)
    asks = np.nansum(np.asarray(ask_sizes, dtype=np.float64), axis=-1)
    return _divide(bids - asks, bids + asks)


def imbalance_of_totals(bid_size: Number, ask_size: Number) -> Number:
    """The same from sizes that are summed already; they must not both be zero."""
    return (bid_size - ask_size) / (bid_size + ask_size)


def depth_within_bps_usd(prices: ArrayLike, sizes: ArrayLike, mid_price: ArrayLike, within_bps: float) -> FloatArray:
    """Value of one side's levels no further than ``within_bps`` from the mid, quote currency."""
    price = np.asarray(prices, dtype=np.float64)
    distance = np.abs(price / np.asarray(mid_price, dtype=np.float64)[..., None] - 1.0) * BPS
    value = np.where(distance <= within_bps, price * np.asarray(sizes, dtype=np.float64), 0.0)
    return np.asarray(np.nansum(value, axis=-1), dtype=np.float64)


def price_impact_bps(prices: ArrayLike, sizes: ArrayLike, mid_price: ArrayLike, notional_usd: float) -> FloatArray:
    """Average price of taking ``notional_usd`` from one side, as distance from the mid in basis points.

    Half the spread is part of it. NaN when the side holds less than that.
    """
    price = np.nan_to_num(np.asarray(prices, dtype=np.float64), nan=1.0)
    value = np.nan_to_num(np.asarray(prices, dtype=np.float64) * np.asarray(sizes, dtype=np.float64), nan=0.0)
    before = np.cumsum(value, axis=-1) - value
    taken = np.clip(notional_usd - before, 0.0, value)
    average = _divide(taken.sum(axis=-1), (taken / price).sum(axis=-1))
    impact = np.abs(average / np.asarray(mid_price, dtype=np.float64) - 1.0) * BPS
    return np.asarray(np.where(value.sum(axis=-1) >= notional_usd, impact, np.nan), dtype=np.float64)


def liquidity_score(spread: ArrayLike, bid_depth_usd: ArrayLike, ask_depth_usd: ArrayLike) -> FloatArray:
    """0 (nothing there) to 100 (deep and tight): depth of the thinner side, discounted by the spread in bps.

    ``100 * d / (d + 100,000 USD) / (1 + spread / 1 bps)``: comparable between symbols and over time, not between
    different distances at which the depth was measured.
    """
    depth = np.minimum(np.asarray(bid_depth_usd, dtype=np.float64), np.asarray(ask_depth_usd, dtype=np.float64))
    tightness = 1.0 / (1.0 + np.asarray(spread, dtype=np.float64) / REFERENCE_SPREAD_BPS)
    return np.asarray(100.0 * depth / (depth + REFERENCE_DEPTH_USD) * tightness, dtype=np.float64)


def stack_levels(rows: Sequence[Sequence[float]], levels: int) -> FloatArray:
    """Rows of unequal length as one array of ``levels`` columns, missing levels NaN."""
    stacked = np.full((len(rows), levels), np.nan)
    for number, row in enumerate(rows):
        width = min(len(row), levels)
        stacked[number, :width] = row[:width]
    return stacked


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient that is NaN, without a warning, where there is nothing to divide by."""
    out = np.full(np.shape(denominator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0.0))
