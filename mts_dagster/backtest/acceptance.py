"""What the engine makes of a decision at the close of a bar: an order, or a rejection with a reason.

What belongs here: compiled functions that turn commands into waiting orders, with sizing, rounding and the
limits of the account. A decision is sized with what is known at that close: equity and the last price.
Nothing fills here; the earliest fill is the next bar's open.
"""

from __future__ import annotations

import math

from mts_dagster.backtest.compiled import rule, seldom
from mts_dagster.backtest.fills import add_order, cancel, cancel_standing, desk_of, write
from mts_dagster.backtest.layout import (
    ENGINE,
    Account,
    Command,
    CommandKind,
    Desk,
    EventKind,
    Market,
    Order,
    OrderKind,
    Reason,
    Rules,
    Script,
    State,
    Terms,
)
from mts_dagster.backtest.rules import round_lot, round_tick, sign

DAY_NS = 86_400_000_000_000


@rule
def trade_allowed(account: Account, rules: Rules, close_ns: int) -> bool:
    """Count an order that opens or adds against its UTC day; False when that day is used up."""
    day = close_ns // DAY_NS
    if day != account.trade_day:
        account.trade_day = day
        account.trades_today = 0
    if account.trades_today >= rules.max_trades_per_day:
        return False
    account.trades_today += 1
    return True


@rule
def reject(desk: Desk, reason: int, order_id: int, quantity: float, price: float) -> None:
    """Write down that nothing will be done, and why."""
    write(desk, EventKind.REJECT.value, reason, order_id, quantity, price)


@rule
def place(desk: Desk, kind: int, reason: int, order_id: int, quantity: float, price: float) -> Order:
    """Accept an order and write it down."""
    order = add_order(desk, kind, reason, quantity)
    order.id = order_id
    order.price = price
    write(desk, EventKind.ORDER.value, reason, order_id, quantity, price)
    return order


@rule
def stands_aside(desk: Desk, target: float) -> bool:
    """Tell whether the position was stopped out and the signal still points in that direction."""
    side = sign(target)
    if desk.position.stopped_side != 0:
        if side == desk.position.stopped_side:
            return True
        desk.position.stopped_side = 0
    return False


@rule
def clip_target(desk: Desk, rules: Rules, order_id: int, target: float, mark: float) -> float:
    """Return the target within what is allowed: no short on spot, no position beyond the limit."""
    if target < 0.0 and desk.instrument.perpetual == 0:
        reject(desk, Reason.SHORT_NOT_ALLOWED.value, order_id, target, mark)
        return 0.0
    if abs(target) > rules.max_position:
        reject(desk, Reason.POSITION_LIMIT.value, order_id, target, mark)
        return math.copysign(rules.max_position, target)
    return target


@rule
def held_after_exits(desk: Desk) -> float:
    """Return the position less what the engine's own exits have still to sell or buy back."""
    held = desk.position.quantity
    for i in range(desk.account.order_count):
        order = desk.orders[i]
        if order.asset == desk.asset and order.id == ENGINE:
            held += order.quantity
    return held


@rule
def order_to(desk: Desk, rules: Rules, order_id: int, held: float, wanted: float, mark: float, close_ns: int) -> bool:
    """Order the way from the position held to the position wanted; False when that was rejected."""
    if wanted != 0.0 and abs(wanted - held) * mark < desk.instrument.min_notional:
        reject(desk, Reason.MIN_NOTIONAL.value, order_id, wanted - held, mark)
        return False
    opens = held * wanted < 0.0 or abs(wanted) > abs(held)
    if opens and not trade_allowed(desk.account, rules, close_ns):
        reject(desk, Reason.TRADE_LIMIT.value, order_id, wanted - held, mark)
        if held * wanted >= 0.0:
            return False
        wanted = 0.0  # closing is always allowed, reversing is not
    order = place(desk, OrderKind.MARKET.value, Reason.SIGNAL.value, order_id, wanted - held, mark)
    order.reduce_only = 0 if held * wanted < 0.0 or abs(wanted) > abs(held) else 1
    order.stop_loss_rate = rules.stop_loss_rate
    order.take_profit_rate = rules.take_profit_rate
    order.trailing_rate = rules.trailing_rate
    return True


@rule
def accept_target(
    desk: Desk, rules: Rules, order_id: int, value: float, equity: float, mark: float, close_ns: int
) -> None:
    """Take a signal: the fraction of equity to hold from now on, as a market order for the difference."""
    position = desk.position
    signal = write(desk, EventKind.SIGNAL.value, Reason.SIGNAL.value, order_id, value, mark)
    reason = refusal(desk, 1.0, mark)
    if reason != Reason.NONE:
        reject(desk, reason, order_id, value, mark)
        return
    if stands_aside(desk, value):
        signal.reason = Reason.STOPPED_OUT
        return
    target = clip_target(desk, rules, order_id, value, mark)
    same_side = sign(target) == sign(position.signalled)
    if same_side and abs(target - position.signalled) <= rules.rebalance_threshold:
        signal.reason = Reason.UNCHANGED
        return
    cancel_standing(desk, Reason.REPLACED.value)
    wanted = round_lot(target * equity / mark, desk.instrument.lot)
    held = held_after_exits(desk)
    if wanted != held:
        if order_to(desk, rules, order_id, held, wanted, mark, close_ns):
            position.signalled = target
        return
    position.signalled = target
    if wanted == 0.0 and target != 0.0:
        reject(desk, Reason.BELOW_LOT.value, order_id, target, mark)


@rule
def waiting_on_side(desk: Desk, buy: bool) -> float:
    """Return the signed quantity of this asset's waiting orders on one side that may open or add."""
    total = 0.0
    for i in range(desk.account.order_count):
        order = desk.orders[i]
        if order.asset == desk.asset and order.reduce_only == 0 and (order.quantity > 0.0) == buy:
            total += order.quantity
    return total


@rule
def within_position_limit(desk: Desk, rules: Rules, quantity: float, equity: float, mark: float) -> float:
    """Return the part of an order that keeps position and waiting orders of its side within the limit."""
    side = 1.0 if quantity > 0.0 else -1.0
    projected = desk.position.quantity + waiting_on_side(desk, quantity > 0.0)
    room = max(0.0, rules.max_position * equity / mark - side * projected)
    if abs(quantity) <= room:
        return quantity
    return round_lot(side * room, desk.instrument.lot)


@rule
def price_on_tick(command: Command, tick: float) -> float:
    """Return an order's price on the tick: a limit away from the market, a trigger toward it."""
    buy = command.value > 0.0
    if command.kind == CommandKind.LIMIT:
        return round_tick(command.price, tick, not buy)
    if command.kind == CommandKind.STOP:
        return round_tick(command.price, tick, buy)
    return command.price


@rule
def refusal(desk: Desk, quantity: float, mark: float) -> int:
    """Return why nothing can be ordered now, NONE if something can."""
    if not mark > 0.0:
        return Reason.NO_PRICE.value
    if desk.account.halted == 1:
        return Reason.HALTED.value
    if quantity == 0.0:
        return Reason.BELOW_LOT.value
    return Reason.NONE.value


@seldom
def accept_order(
    desk: Desk, rules: Rules, order_id: int, command: Command, equity: float, mark: float, close_ns: int
) -> None:
    """Take a strategy's own order after rounding it and checking it against the limits."""
    instrument = desk.instrument
    held = desk.position.quantity
    quantity = round_lot(command.value, instrument.lot)
    price = price_on_tick(command, instrument.tick)
    reason = refusal(desk, quantity, mark)
    if reason != Reason.NONE:
        reject(desk, reason, order_id, command.value, price)
        return
    reduce_only = command.reduce_only == 1 or (quantity < 0.0 and instrument.perpetual == 0)
    closes = held * quantity < 0.0 and abs(quantity) <= abs(held)
    opens = not reduce_only and not closes
    if opens:
        asked = quantity
        quantity = within_position_limit(desk, rules, asked, equity, mark)
        if quantity != asked:
            reject(desk, Reason.POSITION_LIMIT.value, order_id, asked - quantity, price)
    notional = abs(quantity) * (mark if command.kind == CommandKind.MARKET else price)
    closes_all = closes and abs(quantity) == abs(held)
    if quantity == 0.0 or (notional < instrument.min_notional and not closes_all):
        if quantity != 0.0:
            reject(desk, Reason.MIN_NOTIONAL.value, order_id, quantity, price)
        return
    if opens and not trade_allowed(desk.account, rules, close_ns):
        reject(desk, Reason.TRADE_LIMIT.value, order_id, quantity, price)
        return
    order = place(desk, command.kind, Reason.STRATEGY.value, order_id, quantity, price)
    order.stop_loss_rate = command.stop_loss_rate
    order.take_profit_rate = command.take_profit_rate
    order.trailing_rate = command.trailing_rate
    order.reduce_only = 1 if reduce_only else 0


@seldom
def cancel_order(state: State, terms: Terms, t: int, order_id: int) -> None:
    """Cancel a waiting order by its id; an order that is done already stays done."""
    for i in range(state.account[0].order_count):
        order = state.orders[i]
        if order.id == order_id and order.quantity != 0.0:
            cancel(desk_of(state, terms, t, order.asset), order, Reason.STRATEGY.value)


@rule
def accept_commands(market: Market, terms: Terms, script: Script, state: State, t: int) -> None:
    """Take everything decided at the close of bar ``t``, in the order in which it was decided."""
    account = state.account[0]
    rules = terms.rules[0]
    close_ns = market.open_ns[t] + rules.interval_ns
    while account.command_next < account.command_count and script.commands[account.command_next].bar <= t:
        order_id = account.command_next
        command = script.commands[order_id]
        account.command_next += 1
        if command.kind == CommandKind.CANCEL:
            cancel_order(state, terms, t, int(command.value))
            continue
        desk = desk_of(state, terms, t, command.asset)
        mark = market.mark[t, command.asset]
        if command.kind == CommandKind.TARGET:
            accept_target(desk, rules, order_id, command.value, state.equity[t], mark, close_ns)
        else:
            accept_order(desk, rules, order_id, command, state.equity[t], mark, close_ns)
