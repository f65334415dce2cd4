"""The arithmetic of the rules: rounding, prices, costs, and whether a level was reached.

What belongs here: compiled functions of numbers and rows that change nothing. What changes the account is in
``fills.py``, what decides the order of events in ``kernel.py``.
"""

from __future__ import annotations

import math
from typing import Final

from mts_dagster.backtest.compiled import rule
from mts_dagster.backtest.layout import Instrument, Order, OrderKind

NOT_SET: Final = math.nan
STEP_TOLERANCE: Final = 1e-9  # 0.3 / 0.1 is 2.9999999999999996 and means 3 steps


@rule
def sign(value: float) -> int:
    """Return 1, 0 or -1."""
    return int(value > 0.0) - int(value < 0.0)


@rule
def round_lot(quantity: float, lot: float) -> float:
    """Round a quantity toward zero to the lot size."""
    if lot <= 0.0:
        return quantity
    return math.copysign(math.floor(abs(quantity) / lot + STEP_TOLERANCE) * lot, quantity)


@rule
def snap_lot(quantity: float, lot: float) -> float:
    """Remove the float residue from a quantity that is a multiple of the lot size."""
    if lot <= 0.0:
        return quantity
    return math.floor(quantity / lot + 0.5) * lot


@rule
def round_tick(price: float, tick: float, up: bool) -> float:
    """Round a price to the tick size, up or down."""
    if tick <= 0.0:
        return price
    if up:
        return math.ceil(price / tick - STEP_TOLERANCE) * tick
    return math.floor(price / tick + STEP_TOLERANCE) * tick


@rule
def taker_price(instrument: Instrument, reference: float, quantity: float, volume: float) -> float:
    """Return the price of taking ``quantity``: slippage and impact against the order, then the tick."""
    adverse = instrument.slippage_rate
    if instrument.impact > 0.0 and volume > 0.0:
        share = abs(quantity) / volume
        adverse += instrument.impact * share * share
    buy = quantity > 0.0
    side = 1.0 if buy else -1.0
    return round_tick(reference * (1.0 + side * adverse), instrument.tick, buy)


@rule
def reference_at_open(order: Order, open_price: float, gap_at_limit: int, bar: int) -> float:
    """Return the price at which an order meets the open of ``bar``, NaN if it does not.

    A stop that the open has passed triggers there. A limit that the open has passed gets the open; if it has
    been waiting for longer than since the last close and the assumptions give no gap away, its own price.
    """
    buy = order.quantity > 0.0
    if order.kind == OrderKind.MARKET:
        return open_price
    if order.kind == OrderKind.STOP:
        passed = open_price >= order.price if buy else open_price <= order.price
        return open_price if passed else NOT_SET
    passed = open_price <= order.price if buy else open_price >= order.price
    if not passed:
        return NOT_SET
    if gap_at_limit == 1 and order.placed_bar < bar - 1:
        return order.price
    return open_price


@rule
def better_of(limit: float, open_price: float, buy: bool) -> float:
    """Return the better price of a limit and the open: one that came with the open may have been passed by it."""
    return min(limit, open_price) if buy else max(limit, open_price)


@rule
def reference_inside(order: Order, open_price: float, low: float, high: float, limit_through: int) -> float:
    """Return the price at which an order is reached inside the bar, NaN if it is not."""
    buy = order.quantity > 0.0
    if order.kind == OrderKind.STOP:
        return order.price if (high >= order.price if buy else low <= order.price) else NOT_SET
    if order.kind == OrderKind.LIMIT and limit_reached(order.price, buy, low, high, limit_through):
        return better_of(order.price, open_price, buy)
    return NOT_SET


@rule
def limit_reached(price: float, buy: bool, low: float, high: float, limit_through: int) -> bool:
    """Tell whether a bar fills a limit order: by touching its price, or only by trading beyond it."""
    if limit_through == 1:
        return low < price if buy else high > price
    return low <= price if buy else high >= price
