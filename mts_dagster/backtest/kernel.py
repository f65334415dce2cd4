"""The clock: carries the account from bar to bar, in one order of events for every kind of strategy.

What belongs here: the loop over bars and its shortcut over bars in which nothing can happen. The rules
themselves are in the modules it imports.

For each bar ``t``:

1. Decisions of the close of ``t - 1`` become orders (``acceptance``).
2. Funding that settles at the instant of the open, on the positions carried into the bar.
3. Fills at the open: reductions, exits that the open has passed, then openings (``matching``).
4. Funding that settles inside the bar, on the positions now held, at the open price.
5. Inside the bar: openings, stops and margin call, take-profits, trailing stops (``intrabar``).
6. The account is marked at the close: ``equity[t]``.
"""

from __future__ import annotations

import math

from mts_dagster.backtest.acceptance import accept_commands
from mts_dagster.backtest.compiled import inlined, kernel, rule
from mts_dagster.backtest.fills import desk_of, settle_funding
from mts_dagster.backtest.intrabar import go_the_worst_way, take_profits, trail_stops
from mts_dagster.backtest.layout import AT_OPEN, INSIDE, Market, Script, State, Terms
from mts_dagster.backtest.matching import clear_orders, exit_on_gap, open_positions, reduce_at_open

DONE = 0
LOG_FULL = 1
ORDERS_FULL = 2


@rule
def settle(market: Market, terms: Terms, script: Script, state: State, t: int, phase: int) -> None:
    """Settle this bar's funding, either that of its first instant or the rest."""
    account = state.account[0]
    while account.funding_next < len(script.funding):
        settlement = script.funding[account.funding_next]
        if settlement.bar > t or (settlement.bar == t and settlement.phase != phase):
            return
        account.funding_next += 1
        asset = settlement.asset
        if settlement.bar == t and state.positions[asset].quantity != 0.0:
            price = market.open[t, asset]
            if math.isnan(price):
                price = market.mark[t, asset]
            settle_funding(desk_of(state, terms, t, asset), settlement.rate, price)


@rule
def has_exits(state: State) -> bool:
    """Tell whether any position has a stop-loss, take-profit or trailing stop."""
    for asset in range(len(state.positions)):
        position = state.positions[asset]
        if position.quantity != 0.0 and (position.stop_level > 0.0 or position.take_level > 0.0):
            return True
    return False


@rule
def may_be_called(state: State) -> bool:
    """Tell whether a margin call is possible: not while all positions are long and paid in full."""
    if state.account[0].cash < 0.0:
        return True
    for asset in range(len(state.positions)):  # noqa: SIM110 - numba compiles loops, not generators
        if state.positions[asset].quantity < 0.0:
            return True
    return False


@inlined
def meet_open(market: Market, terms: Terms, script: Script, state: State, t: int) -> None:
    """Decisions become orders, funding of this instant is settled, and orders meet the open."""
    account = state.account[0]
    accept_commands(market, terms, script, state, t - 1)
    settle(market, terms, script, state, t, AT_OPEN)
    if account.order_count > 0:
        reduce_at_open(market, terms, state, t)
    if account.held > 0 and has_exits(state):
        exit_on_gap(market, terms, state, t)
    if account.order_count > 0:
        open_positions(market, terms, state, t, AT_OPEN)
        clear_orders(terms, state, t)


@inlined
def pass_through_bar(market: Market, terms: Terms, script: Script, state: State, t: int) -> None:
    """The rest of the bar: later funding, openings inside it, then what hurts, then what helps."""
    account = state.account[0]
    settle(market, terms, script, state, t, INSIDE)
    if account.order_count > 0:
        open_positions(market, terms, state, t, INSIDE)
    if account.held > 0:
        watched = has_exits(state) or account.order_count > 0
        if watched or may_be_called(state):
            go_the_worst_way(market, terms, state, t)
        if watched:
            take_profits(market, terms, state, t)
            trail_stops(market, terms, state, t)
    if account.order_count > 0:
        clear_orders(terms, state, t)


@inlined
def mark_account(market: Market, state: State, t: int) -> None:
    """Write the equity at the close of a bar."""
    equity = state.account[0].cash
    for asset in range(len(state.positions)):
        quantity = state.positions[asset].quantity
        if quantity != 0.0:
            equity += quantity * market.mark[t, asset]
    state.equity[t] = equity


@rule
def list_held(state: State) -> int:
    """Write the assets with a position into ``state.held`` and return their number."""
    count = 0
    for asset in range(len(state.positions)):
        if state.positions[asset].quantity != 0.0:
            state.held[count] = asset
            count += 1
    return count


@rule
def is_quiet(market: Market, terms: Terms, state: State, t: int, count: int) -> bool:
    """Tell whether no exit, ratchet or margin call can happen in a bar; a bar that is not there is quiet."""
    rate = terms.rules[0].maintenance_rate
    excess = state.account[0].cash
    for i in range(count):
        asset = state.held[i]
        position = state.positions[asset]
        low = market.low[t, asset]
        high = market.high[t, asset]
        quantity = position.quantity
        if quantity > 0.0:
            if low <= position.stop_level or high >= position.take_level:
                return False
            if position.trail_rate > 0.0 and high > position.trail_peak:
                return False
            worst = low
        else:
            if high >= position.stop_level or low <= position.take_level:
                return False
            if position.trail_rate > 0.0 and low < position.trail_peak:
                return False
            worst = high
        value = quantity * (market.mark[t, asset] if math.isnan(worst) else worst)
        excess += value - rate * abs(value)
    return excess > 0.0


@rule
def quiet_limit(script: Script, state: State, until: int) -> int:
    """Return the first bar that brings orders, decisions or funding, at most ``until``."""
    account = state.account[0]
    if account.order_count > 0:
        return account.next_bar
    limit = until
    if account.command_next < account.command_count:
        limit = min(limit, script.commands[account.command_next].bar + 1)
    if account.held > 0 and account.funding_next < len(script.funding):
        limit = min(limit, script.funding[account.funding_next].bar)
    return max(limit, account.next_bar)


@rule
def mark_quiet(market: Market, terms: Terms, state: State, limit: int) -> int:
    """Mark the account through bars in which nothing happens; return the first bar in which something may."""
    account = state.account[0]
    cash = account.cash
    start = account.next_bar
    equity = state.equity
    if account.held == 0:
        equity[start:limit] = cash
        return limit
    count = list_held(state)
    if has_exits(state) or may_be_called(state):
        for t in range(start, limit):
            if not is_quiet(market, terms, state, t, count):
                return t
            value = cash
            for i in range(count):
                asset = state.held[i]
                value += state.positions[asset].quantity * market.mark[t, asset]
            equity[t] = value
        return limit
    if count == 1:
        asset = state.held[0]
        quantity = state.positions[asset].quantity
        mark = market.mark
        for t in range(start, limit):
            equity[t] = cash + quantity * mark[t, asset]
        return limit
    for t in range(start, limit):
        value = cash
        for i in range(count):
            asset = state.held[i]
            value += state.positions[asset].quantity * market.mark[t, asset]
        equity[t] = value
    return limit


@rule
def room(script: Script, state: State, t: int) -> int:
    """Tell whether log and order table have room for whatever bar ``t`` may bring."""
    account = state.account[0]
    assets = len(state.positions)
    commands = 0
    while (
        account.command_next + commands < account.command_count
        and script.commands[account.command_next + commands].bar < t
    ):
        commands += 1
    settlements = 0
    while (
        account.funding_next + settlements < len(script.funding)
        and script.funding[account.funding_next + settlements].bar <= t
    ):
        settlements += 1
    if account.order_count + commands + 2 * assets > len(state.orders):
        return ORDERS_FULL
    events = 5 * commands + 4 * (account.order_count + commands) + 6 * assets + settlements
    if account.log_count + events > len(state.log):
        return LOG_FULL
    return DONE


@kernel
def advance(market: Market, terms: Terms, script: Script, state: State, until: int, ahead: bool) -> int:
    """Process bars from ``account.next_bar`` up to, not including, ``until``.

    With ``ahead`` it processes one bar and then only marks the quiet bars that follow, and stops before the
    first in which something may happen. Marking a quiet bar changes nothing but its ``equity``, so a caller
    who then decides something at one of these bars may set ``next_bar`` back to the bar after it.

    Returns:
        DONE, or LOG_FULL or ORDERS_FULL when a table must grow before the next bar can be processed.
    """
    account = state.account[0]
    first = account.next_bar
    while account.next_bar < until:
        limit = quiet_limit(script, state, until)
        if limit > account.next_bar:
            account.next_bar = mark_quiet(market, terms, state, limit)
            if account.next_bar >= until:
                break
        if ahead and account.next_bar > first:
            return DONE
        missing = room(script, state, account.next_bar)
        if missing != DONE:
            return missing
        t = account.next_bar
        meet_open(market, terms, script, state, t)
        pass_through_bar(market, terms, script, state, t)
        mark_account(market, state, t)
        account.next_bar += 1
    if account.next_bar == len(market.open_ns):
        missing = room(script, state, account.next_bar)
        if missing != DONE:
            return missing
        accept_commands(market, terms, script, state, account.next_bar - 1)
    return DONE
