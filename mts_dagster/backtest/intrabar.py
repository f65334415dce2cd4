"""What happens inside a bar, of which only open, high, low and close are known.

What belongs here: stop-loss, take-profit, trailing stop, margin call, and orders that reduce a position
inside the bar. The rule where the order of events cannot be known: what hurts comes first.

1. Orders that open or add (``matching.open_positions``).
2. The way from the open to the worst prices of all held assets at once: stops and the margin call, in the
   order in which they lie on it.
3. Limit orders that reduce, and take-profits; not for a position that was opened inside this same bar, whose
   best price may have been before the entry.
4. The trailing stop follows the best price. If the bar then closed beyond the new level, it was certainly hit
   on the way.
"""

from __future__ import annotations

import math

from mts_dagster.backtest.compiled import rule, seldom
from mts_dagster.backtest.fills import (
    cancel,
    desk_of,
    execute,
    leave_at_limit,
    leave_at_market,
    raise_stop,
    stand_aside,
    write,
)
from mts_dagster.backtest.layout import ENGINE, EventKind, Market, OrderKind, Reason, State, Terms
from mts_dagster.backtest.matching import reduce_with
from mts_dagster.backtest.rules import better_of, limit_reached, taker_price

NEVER = 2.0  # moments on the way are 0 (open) to 1 (worst price)


@rule
def moment_of(level: float, open_price: float, worst: float, long: bool) -> float:
    """Return where on the way from the open to the worst price a level lies, NEVER if beyond (or not set)."""
    reached = worst <= level if long else worst >= level
    if not reached:
        return NEVER
    if worst == open_price:
        return 0.0
    return max(0.0, (open_price - level) / (open_price - worst))


@rule
def worst_price(market: Market, state: State, t: int, asset: int) -> float:
    """Return the price of the bar that is worst for the position held."""
    low: float = market.low[t, asset]
    high: float = market.high[t, asset]
    return low if state.positions[asset].quantity > 0.0 else high


@seldom
def first_stop(market: Market, state: State, t: int) -> tuple[float, int, int]:
    """Return moment, asset and order index (-1: the position's own stop) of the first stop on the way."""
    first = NEVER
    asset_hit = -1
    order_hit = -1
    for asset in range(len(state.positions)):
        quantity = state.positions[asset].quantity
        if quantity == 0.0:
            continue
        worst = worst_price(market, state, t, asset)
        moment = moment_of(state.positions[asset].stop_level, market.open[t, asset], worst, quantity > 0.0)
        if moment < first:
            first, asset_hit, order_hit = moment, asset, -1
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        quantity = state.positions[order.asset].quantity
        if order.kind != OrderKind.STOP or order.quantity * quantity >= 0.0:
            continue
        worst = worst_price(market, state, t, order.asset)
        moment = moment_of(order.price, market.open[t, order.asset], worst, quantity > 0.0)
        if moment < first:
            first, asset_hit, order_hit = moment, order.asset, i
    return first, asset_hit, order_hit


@rule
def price_on_the_way(market: Market, state: State, t: int, asset: int, moment: float) -> float:
    """Return an asset's price at a moment on the way; an asset without a bar stays at its last mark."""
    start: float = market.open[t, asset]
    last: float = market.mark[t - 1, asset]
    if math.isnan(start):
        return last
    return start + moment * (worst_price(market, state, t, asset) - start)


@rule
def margin_excess(market: Market, terms: Terms, state: State, t: int, moment: float) -> float:
    """Return equity less maintenance margin at a moment on the way."""
    excess = state.account[0].cash
    rate = terms.rules[0].maintenance_rate
    for asset in range(len(state.positions)):
        quantity = state.positions[asset].quantity
        if quantity != 0.0:
            value = quantity * price_on_the_way(market, state, t, asset, moment)
            excess += value - rate * abs(value)
    return excess


@seldom
def margin_call_moment(market: Market, terms: Terms, state: State, t: int) -> float:
    """Return the moment at which equity falls to the maintenance margin, NEVER if it does not."""
    at_worst = margin_excess(market, terms, state, t, 1.0)
    if at_worst > 0.0:
        return NEVER
    at_open = margin_excess(market, terms, state, t, 0.0)
    if at_open <= 0.0:
        return 0.0
    return at_open / (at_open - at_worst)


@seldom
def liquidate(market: Market, terms: Terms, state: State, t: int, moment: float) -> None:
    """Close every position at its price of this moment, with the liquidation fee, and cancel every order."""
    account = state.account[0]
    for i in range(account.order_count):
        order = state.orders[i]
        if order.quantity != 0.0:
            cancel(desk_of(state, terms, t, order.asset), order, Reason.LIQUIDATION.value)
    for asset in range(len(state.positions)):
        quantity = state.positions[asset].quantity
        if quantity == 0.0:
            continue
        desk = desk_of(state, terms, t, asset)
        reference = price_on_the_way(market, state, t, asset, moment)
        write(desk, EventKind.MARGIN_CALL.value, Reason.LIQUIDATION.value, ENGINE, quantity, reference)
        stand_aside(desk)
        price = taker_price(desk.instrument, reference, -quantity, 0.0)
        rate = desk.instrument.taker_rate + terms.rules[0].liquidation_rate
        execute(desk, Reason.LIQUIDATION.value, ENGINE, -quantity, price, reference, rate)
    if account.cash <= 0.0:
        account.halted = 1


@seldom
def go_the_worst_way(market: Market, terms: Terms, state: State, t: int) -> None:
    """Go from the open to the worst prices: each stop at its level, or the margin call before it."""
    while state.account[0].held > 0:
        moment, asset, order_index = first_stop(market, state, t)
        call = margin_call_moment(market, terms, state, t)
        if call <= 1.0 and call <= moment:
            liquidate(market, terms, state, t, call)
            return
        if moment > 1.0:
            return
        desk = desk_of(state, terms, t, asset)
        open_price = market.open[t, asset]
        long = desk.position.quantity > 0.0
        level = desk.position.stop_level if order_index < 0 else state.orders[order_index].price
        reference = min(level, open_price) if long else max(level, open_price)
        if order_index < 0:
            leave_at_market(desk, market, reference, desk.position.stop_reason)
        else:
            reduce_with(desk, market, state.orders[order_index], reference)


@seldom
def take_profits(market: Market, terms: Terms, state: State, t: int) -> None:
    """Fill limit orders that reduce a position, then take-profits."""
    through = terms.rules[0].limit_through
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        position = state.positions[order.asset]
        against = order.quantity * position.quantity < 0.0
        if order.kind == OrderKind.LIMIT and against and position.entered_bar != t:
            buy = order.quantity > 0.0
            if limit_reached(order.price, buy, market.low[t, order.asset], market.high[t, order.asset], through):
                reference = better_of(order.price, market.open[t, order.asset], buy)
                reduce_with(desk_of(state, terms, t, order.asset), market, order, reference)
    for asset in range(len(state.positions)):
        position = state.positions[asset]
        if position.quantity == 0.0 or position.entered_bar == t:
            continue
        short = position.quantity < 0.0
        if limit_reached(position.take_level, short, market.low[t, asset], market.high[t, asset], through):
            price = better_of(position.take_level, market.open[t, asset], short)
            leave_at_limit(desk_of(state, terms, t, asset), market, price)


@seldom
def trail_stops(market: Market, terms: Terms, state: State, t: int) -> None:
    """Let trailing stops follow, and exit where the close is beyond the level that the bar itself set."""
    for asset in range(len(state.positions)):
        position = state.positions[asset]
        if position.quantity == 0.0 or position.trail_rate == 0.0 or math.isnan(market.open[t, asset]):
            continue
        desk = desk_of(state, terms, t, asset)
        long = position.quantity > 0.0
        close = market.mark[t, asset]
        best = close
        if position.entered_bar != t:
            best = market.high[t, asset] if long else market.low[t, asset]
        if (long and best > position.trail_peak) or (not long and best < position.trail_peak):
            position.trail_peak = best
            raise_stop(desk)
            if (long and close <= position.stop_level) or (not long and close >= position.stop_level):
                leave_at_market(desk, market, position.stop_level, position.stop_reason)
