"""How waiting orders meet a bar: first what reduces positions, then what opens, within buying power.

What belongs here: compiled functions over the order table. Orders that compete for buying power at the same
instant are scaled by the same factor, so that the order of assets never decides who gets the money.
"""

from __future__ import annotations

import math

from mts_dagster.backtest.compiled import rule, seldom
from mts_dagster.backtest.fills import (
    attach_exits,
    cancel,
    closing_part,
    desk_of,
    execute,
    leave_at_limit,
    leave_at_market,
    volume_available,
)
from mts_dagster.backtest.layout import AT_OPEN, INSIDE, Desk, Market, Order, OrderKind, Position, Reason, State, Terms
from mts_dagster.backtest.rules import (
    reference_at_open,
    reference_inside,
    round_lot,
    taker_price,
)

ROUNDING_ROOM = 1.0 - 1e-12  # orders scaled to the last cent must not overdraw the account by a float's residue


@rule
def quote(desk: Desk, market: Market, order: Order, reference: float, part: float) -> tuple[float, float]:
    """Return price and fee rate of a fill: a limit that has been waiting is maker, everything else takes."""
    instrument = desk.instrument
    bar, asset = desk.bar, desk.asset
    if order.kind == OrderKind.LIMIT:
        met_on_arrival = order.placed_bar == bar - 1 and reference == market.open[bar, asset]
        if not met_on_arrival:
            return reference, instrument.maker_rate
    price = taker_price(instrument, reference, part, market.volume[bar, asset])
    if order.kind == OrderKind.LIMIT:
        price = min(price, order.price) if part > 0.0 else max(price, order.price)
    return price, instrument.taker_rate


@rule
def reduce_with(desk: Desk, market: Market, order: Order, reference: float) -> None:
    """Fill the part of an order that reduces the position."""
    volume = market.volume[desk.bar, desk.asset]
    part = closing_part(desk, min(abs(order.quantity), volume_available(desk, volume)))
    if part != 0.0:
        price, fee_rate = quote(desk, market, order, reference, part)
        execute(desk, order.reason, order.id, part, price, reference, fee_rate)
        order.quantity = 0.0 if part == order.quantity else order.quantity - part
    if order.kind == OrderKind.STOP:
        order.kind = OrderKind.MARKET  # triggered: what is left is a market order


@rule
def reduce_at_open(market: Market, terms: Terms, state: State, t: int) -> None:
    """Let orders that are against a position and meet the open reduce it."""
    rules = terms.rules[0]
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        if order.quantity * state.positions[order.asset].quantity >= 0.0:
            continue
        reference = reference_at_open(order, market.open[t, order.asset], rules.gap_at_limit, t)
        if reference > 0.0:
            reduce_with(desk_of(state, terms, t, order.asset), market, order, reference)


@seldom
def exit_on_gap(market: Market, terms: Terms, state: State, t: int) -> None:
    """Exit carried positions whose stop or take-profit the open has passed."""
    gap_at_limit = terms.rules[0].gap_at_limit
    for asset in range(len(state.positions)):
        position = state.positions[asset]
        if position.quantity == 0.0:
            continue
        long = position.quantity > 0.0
        price = market.open[t, asset]
        stop = position.stop_level
        take = position.take_level
        if (long and price <= stop) or (not long and price >= stop):
            leave_at_market(desk_of(state, terms, t, asset), market, price, position.stop_reason)
        elif (long and price >= take) or (not long and price <= take):
            leave_at_limit(desk_of(state, terms, t, asset), market, take if gap_at_limit == 1 else price)


@rule
def equity_and_gross_at_open(market: Market, state: State, t: int) -> tuple[float, float]:
    """Return equity and the sum of absolute positions at the open of a bar."""
    equity = state.account[0].cash
    gross = 0.0
    for asset in range(len(state.positions)):
        quantity = state.positions[asset].quantity
        if quantity != 0.0:
            price = market.open[t, asset]
            value = quantity * (market.mark[t - 1, asset] if math.isnan(price) else price)
            equity += value
            gross += abs(value)
    return equity, gross


@rule
def reserve(desk: Desk, market: Market, order: Order, reference: float, leverage: float) -> float:
    """Write down what an order that opens or adds would fill, and return the buying power that takes.

    Power is leverage times equity. A fill takes its notional at the reference price, and what slippage and
    fee take from equity counts as often as equity may be lent out.
    """
    volume = market.volume[desk.bar, desk.asset]
    limit = min(abs(order.quantity), volume_available(desk, volume))
    part = round_lot(math.copysign(limit, order.quantity), desk.instrument.lot)
    if part == 0.0:
        return 0.0
    price, fee_rate = quote(desk, market, order, reference, part)
    order.wanted = part
    order.wanted_reference = reference
    if desk.position.volume_bar == desk.bar:
        desk.position.volume_left -= abs(part)  # so that the next order of this asset sees what is left
    return abs(part) * (reference + leverage * (abs(price - reference) + price * fee_rate))


@rule
def reserve_all(market: Market, terms: Terms, state: State, t: int, phase: int) -> float:
    """Let every order that opens or adds in this phase reserve what it wants; return the power that takes.

    A stop that is reached is a market order from then on, whether or not there is volume left for it now.
    """
    rules = terms.rules[0]
    needed = 0.0
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        order.wanted = 0.0
        asset = order.asset
        against = order.quantity * state.positions[asset].quantity < 0.0
        if against or order.reduce_only == 1 or order.quantity == 0.0:
            continue
        if phase == INSIDE:
            opened, low, high = market.open[t, asset], market.low[t, asset], market.high[t, asset]
            reference = reference_inside(order, opened, low, high, rules.limit_through)
        else:
            reference = reference_at_open(order, market.open[t, asset], rules.gap_at_limit, t)
        if reference > 0.0:
            if order.kind == OrderKind.STOP:
                order.kind = OrderKind.MARKET
            needed += reserve(desk_of(state, terms, t, asset), market, order, reference, rules.max_leverage)
    return needed


@rule
def open_with(desk: Desk, market: Market, order: Order, scale: float) -> None:
    """Fill what an order wanted, scaled to the buying power; what the power does not reach is cancelled.

    The price is that of the part which fills. It was reserved for at the price of the whole, so with impact a
    scaled order leaves a little of the power unused.
    """
    part = order.wanted
    if scale < 1.0:
        part = round_lot(part * scale, desk.instrument.lot)
    if part != 0.0:
        price, fee_rate = quote(desk, market, order, order.wanted_reference, part)
        execute(desk, order.reason, order.id, part, price, order.wanted_reference, fee_rate)
        attach_exits(desk, order)
        order.quantity = 0.0 if part == order.quantity else order.quantity - part
    if scale < 1.0 and order.quantity != 0.0:
        cancel(desk, order, Reason.BUYING_POWER.value)


@rule
def open_positions(market: Market, terms: Terms, state: State, t: int, phase: int) -> None:
    """Fill the orders that open or add in one phase of the bar together, scaled alike if they must."""
    needed = reserve_all(market, terms, state, t, phase)
    if needed == 0.0:
        return
    equity, gross = equity_and_gross_at_open(market, state, t)
    power = max(0.0, terms.rules[0].max_leverage * equity - gross)
    scale = 1.0 if needed <= power else power / needed * ROUNDING_ROOM
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        if order.wanted == 0.0:
            continue
        desk = desk_of(state, terms, t, order.asset)
        if desk.position.volume_bar == t:
            desk.position.volume_left += abs(order.wanted)  # the fill itself takes what it needs
        if order.wanted * desk.position.quantity >= 0.0:
            open_with(desk, market, order, scale)
            if phase == INSIDE:
                desk.position.entered_bar = t
        elif phase == AT_OPEN or order.kind != OrderKind.LIMIT:  # another order has just opened against it
            reduce_with(desk, market, order, order.wanted_reference)


@rule
def outlived(order: Order, position: Position, t: int) -> bool:
    """Tell whether a reduce-only order was for a position that this bar closed, even if it opened another one.

    While a position is held the orders of the other direction stay, they were placed for what a reversal opens;
    so does what the engine itself ordered in this bar, the rest of an exit from the position held now.
    """
    if order.reduce_only == 0 or position.closed_bar != t:
        return False
    return position.quantity == 0.0 or (order.placed_bar < t and order.quantity * position.closed_side < 0.0)


@rule
def clear_orders(terms: Terms, state: State, t: int) -> None:
    """Drop orders that are done, and reduce-only orders of positions that this bar closed."""
    account = state.account[0]
    kept = 0
    for i in range(account.order_count):
        order = state.orders[i]
        if order.quantity == 0.0:
            continue
        if outlived(order, state.positions[order.asset], t):
            cancel(desk_of(state, terms, t, order.asset), order, Reason.POSITION_CLOSED.value)
            continue
        if kept != i:
            state.orders[kept] = order
        kept += 1
    account.order_count = kept
