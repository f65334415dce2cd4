"""What a fill does: to cash, position, exits and log. Every change of the account goes through here.

What belongs here: compiled functions that change account, positions and orders and write the log. Whether and
at which price something fills is decided by ``matching.py`` and ``intrabar.py``.

A fill never crosses zero: an order that reverses a position closes it with one fill and opens with another.
"""

from __future__ import annotations

import math

from mts_dagster.backtest.compiled import inlined, rule, seldom
from mts_dagster.backtest.layout import (
    ENGINE,
    Desk,
    Event,
    EventKind,
    Market,
    Order,
    OrderKind,
    Position,
    Reason,
    State,
    Terms,
)
from mts_dagster.backtest.rules import NOT_SET, round_lot, round_tick, sign, snap_lot, taker_price


@inlined
def desk_of(state: State, terms: Terms, bar: int, asset: int) -> Desk:
    """Return the desk of one asset."""
    return Desk(
        state.account[0],
        state.positions[asset],
        terms.instruments[asset],
        state.orders,
        state.log,
        bar,
        asset,
    )


@rule
def write(desk: Desk, kind: int, reason: int, order_id: int, quantity: float, price: float) -> Event:
    """Append an event without costs and return its row."""
    account = desk.account
    row = desk.log[account.log_count]
    account.log_count += 1
    row.bar = desk.bar
    row.kind = kind
    row.reason = reason
    row.asset = desk.asset
    row.order = order_id
    row.quantity = quantity
    row.price = price
    row.fee = 0.0
    row.slippage = 0.0
    row.cash = 0.0
    row.balance = account.cash
    return row


@rule
def execute(
    desk: Desk, reason: int, order_id: int, quantity: float, price: float, reference: float, fee_rate: float
) -> None:
    """Fill ``quantity`` at ``price``: pay or receive cash, pay the fee, move the position, write the log."""
    account = desk.account
    position = desk.position
    fee = abs(quantity) * price * fee_rate
    cash = -quantity * price - fee
    account.cash += cash
    before = position.quantity
    after = snap_lot(before + quantity, desk.instrument.lot)
    if before * quantity >= 0.0:
        position.entry_price = (before * position.entry_price + quantity * price) / (before + quantity)
    position.quantity = after
    if before == 0.0:
        account.held += 1
    if after == 0.0:
        account.held -= 1
        position.closed_bar = desk.bar
        position.closed_side = sign(before)
        clear_exits(position)
    if position.volume_bar == desk.bar:
        position.volume_left -= abs(quantity)
    row = write(desk, EventKind.FILL.value, reason, order_id, quantity, price)
    row.fee = fee
    row.slippage = quantity * (price - reference)
    row.cash = cash


@rule
def settle_funding(desk: Desk, rate: float, price: float) -> None:
    """Pay or receive funding on a position; with a positive rate long pays and short receives."""
    cash = -desk.position.quantity * price * rate
    desk.account.cash += cash
    row = write(desk, EventKind.FUNDING.value, Reason.NONE.value, ENGINE, desk.position.quantity, price)
    row.cash = cash


@rule
def volume_available(desk: Desk, volume: float) -> float:
    """Return the quantity that fills of this asset may still take from this bar's volume."""
    share = desk.instrument.volume_share
    if math.isinf(share):
        return share
    position = desk.position
    if position.volume_bar != desk.bar:
        position.volume_bar = desk.bar
        position.volume_left = share * volume
    return max(0.0, position.volume_left)


@rule
def closing_part(desk: Desk, limit: float) -> float:
    """Return the signed quantity that closes the position as far as ``limit`` allows."""
    quantity = desk.position.quantity
    if limit >= abs(quantity):
        return -quantity
    return round_lot(-math.copysign(limit, quantity), desk.instrument.lot)


@rule
def clear_exits(position: Position) -> None:
    """Remove stop-loss, take-profit and trailing stop."""
    position.stop_level = NOT_SET
    position.stop_reason = Reason.NONE
    position.take_level = NOT_SET
    position.trail_rate = 0.0


@rule
def attach_exits(desk: Desk, order: Order) -> None:
    """Set the exits that an order brings, from the average entry price; others stay as they are."""
    position = desk.position
    tick = desk.instrument.tick
    long = position.quantity > 0.0
    side = 1.0 if long else -1.0
    entry = position.entry_price
    if order.take_profit_rate > 0.0:
        position.take_level = round_tick(entry * (1.0 + side * order.take_profit_rate), tick, long)
    if order.stop_loss_rate > 0.0:
        position.stop_level = round_tick(entry * (1.0 - side * order.stop_loss_rate), tick, not long)
        position.stop_reason = Reason.STOP_LOSS
    if order.trailing_rate > 0.0:
        if position.trail_rate == 0.0:
            position.trail_peak = entry
        position.trail_rate = order.trailing_rate
        raise_stop(desk)


@rule
def raise_stop(desk: Desk) -> None:
    """Move the trailing stop to its distance from the best price, never away from it."""
    position = desk.position
    long = position.quantity > 0.0
    side = 1.0 if long else -1.0
    level = round_tick(position.trail_peak * (1.0 - side * position.trail_rate), desk.instrument.tick, not long)
    if math.isnan(position.stop_level) or side * level > side * position.stop_level:
        position.stop_level = level
        position.stop_reason = Reason.TRAILING_STOP


@rule
def cancel(desk: Desk, order: Order, reason: int) -> None:
    """Cancel what is left of an order."""
    write(desk, EventKind.CANCEL.value, reason, order.id, order.quantity, order.price)
    order.quantity = 0.0


@rule
def cancel_standing(desk: Desk, reason: int) -> None:
    """Cancel what signals have ordered for this asset and is still waiting."""
    for i in range(desk.account.order_count):
        order = desk.orders[i]
        if order.asset == desk.asset and order.quantity != 0.0 and order.reason == Reason.SIGNAL:
            cancel(desk, order, reason)


@rule
def add_order(desk: Desk, kind: int, reason: int, quantity: float) -> Order:
    """Put an order into the table and return its row; everything else in it is blank."""
    order = desk.orders[desk.account.order_count]
    desk.account.order_count += 1
    order.id = ENGINE
    order.asset = desk.asset
    order.kind = kind
    order.reason = reason
    order.quantity = quantity
    order.price = NOT_SET
    order.stop_loss_rate = 0.0
    order.take_profit_rate = 0.0
    order.trailing_rate = 0.0
    order.reduce_only = 0
    order.placed_bar = desk.bar
    order.wanted = 0.0
    return order


@rule
def stand_aside(desk: Desk) -> None:
    """After an exit that no signal asked for, the standing signal may not re-enter until it changes."""
    desk.position.stopped_side = 1 if desk.position.quantity > 0.0 else -1
    desk.position.signalled = 0.0
    cancel_standing(desk, Reason.POSITION_CLOSED.value)


@seldom
def leave_at_market(desk: Desk, market: Market, reference: float, reason: int) -> None:
    """Exit the position through its stop: what the bar's volume allows now, the rest at the next opens."""
    volume = market.volume[desk.bar, desk.asset]
    stand_aside(desk)
    part = closing_part(desk, volume_available(desk, volume))
    if part != 0.0:
        price = taker_price(desk.instrument, reference, part, volume)
        execute(desk, reason, ENGINE, part, price, reference, desk.instrument.taker_rate)
    if desk.position.quantity != 0.0:
        clear_exits(desk.position)
        rest = add_order(desk, OrderKind.MARKET.value, reason, -desk.position.quantity)
        rest.reduce_only = 1


@seldom
def leave_at_limit(desk: Desk, market: Market, price: float) -> None:
    """Exit the position through its take-profit, a resting limit order: no slippage, maker fee."""
    part = closing_part(desk, volume_available(desk, market.volume[desk.bar, desk.asset]))
    if part == 0.0:
        return
    stand_aside(desk)
    execute(desk, Reason.TAKE_PROFIT.value, ENGINE, part, price, price, desk.instrument.maker_rate)
