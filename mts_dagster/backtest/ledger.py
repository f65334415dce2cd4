"""What the event log says about trades, cash and exposure, without asking the kernel again.

What belongs here: compiled passes over the log. The log is the only source, so that the tables derived from
it can be checked against the kernel's own account (``reconcile.py``).
"""

from __future__ import annotations

from mts_dagster.backtest.compiled import kernel, rule
from mts_dagster.backtest.layout import Event, EventKind, FloatArray, IntArray, Rows, Totals, Trade
from mts_dagster.backtest.rules import snap_lot


@rule
def open_trade(trade: Trade, event: Event) -> None:
    """Start a trade with its first fill."""
    trade.asset = event.asset
    trade.side = 1 if event.quantity > 0.0 else -1
    trade.opened_bar = event.bar
    trade.closed_bar = -1
    trade.fills = 0
    trade.exit_reason = 0
    trade.quantity = 0.0
    trade.held = 0.0
    trade.closed = 0.0
    trade.entry_value = 0.0
    trade.exit_value = 0.0
    trade.fees = 0.0
    trade.slippage = 0.0
    trade.funding = 0.0


@rule
def add_fill(trade: Trade, event: Event, lot: float) -> bool:
    """Add a fill to its trade; tell whether the position is flat now."""
    size = abs(event.quantity)
    trade.fills += 1
    trade.fees += event.fee
    trade.slippage += event.slippage
    trade.held = snap_lot(trade.held + event.quantity, lot)  # as the kernel adds, to the last bit
    if event.quantity * trade.side > 0.0:
        trade.quantity += size
        trade.entry_value += size * event.price
        return False
    trade.closed += size
    trade.exit_value += size * event.price
    if trade.held != 0.0:
        return False
    trade.closed_bar = event.bar
    trade.exit_reason = event.reason
    return True


@rule
def price_trade(trade: Trade, last_mark: float) -> None:
    """Compute averages and result; what is still open counts at the last mark."""
    trade.entry_price = trade.entry_value / trade.quantity
    trade.exit_price = trade.exit_value / trade.closed if trade.closed_bar >= 0 else last_mark
    gross = trade.side * (trade.exit_value - trade.entry_value)
    if trade.held != 0.0:
        gross += trade.held * last_mark
    trade.pnl = gross - trade.fees + trade.funding


@kernel
def list_trades(
    events: Rows[Event], lots: FloatArray, last_marks: FloatArray, open_index: IntArray, trades: Rows[Trade]
) -> int:
    """Put the trades of a log into ``trades`` in the order of their opening and return their number.

    Args:
        events: The log.
        lots: Lot size of each asset.
        last_marks: Last price of each asset.
        open_index: Scratch of one element for each asset, filled with -1.
        trades: Room for as many trades as there are fills.
    """
    count = 0
    for i in range(len(events)):
        event = events[i]
        at = open_index[event.asset]
        if event.kind == EventKind.FUNDING:
            trades[at].funding += event.cash
        if event.kind != EventKind.FILL:
            continue
        if at < 0:
            at = count
            count += 1
            open_index[event.asset] = at
            open_trade(trades[at], event)
        if add_fill(trades[at], event, lots[event.asset]):
            open_index[event.asset] = -1
    for i in range(count):
        price_trade(trades[i], last_marks[trades[i].asset])
    return count


@rule
def add_up(totals: Totals, event: Event) -> None:
    """Add an event to the totals."""
    if event.kind == EventKind.FUNDING:
        totals.funding += event.cash
    if event.kind == EventKind.FILL:
        totals.commission += event.fee
        totals.slippage += event.slippage
        totals.traded += abs(event.quantity) * event.price


@kernel
def trace(
    events: Rows[Event],
    mark: FloatArray,
    equity: FloatArray,
    lots: FloatArray,
    quantities: FloatArray,
    cash: FloatArray,
    gross: FloatArray,
    table: Rows[Totals],
) -> None:
    """Write cash and the sum of absolute positions at the close of each bar, and add everything up.

    Args:
        events: The log.
        mark: Marks, shape (bars, assets).
        equity: Equity at the close of each bar; before the first fill it is the cash at the start.
        lots: Lot size of each asset.
        quantities: Scratch of one element for each asset, zeros.
        cash: Output, shape (bars,).
        gross: Output, shape (bars,).
        table: Output, one row of zeros.
    """
    totals = table[0]
    balance = equity[0]
    ratios = 0.0
    at = 0
    held = False
    for t in range(len(mark)):
        while at < len(events) and events[at].bar <= t:
            event = events[at]
            at += 1
            add_up(totals, event)
            if event.kind == EventKind.FILL:
                held = True
                quantities[event.asset] = snap_lot(quantities[event.asset] + event.quantity, lots[event.asset])
            balance = event.balance
        cash[t] = balance
        total = 0.0
        if held:
            held = False
            for asset in range(len(quantities)):
                if quantities[asset] != 0.0:
                    held = True
                    total += abs(quantities[asset]) * mark[t, asset]
            totals.exposed_bars += held
            if equity[t] > 0.0:
                ratios += total / equity[t]
        gross[t] = total
    totals.mean_gross = ratios / len(mark)
