"""Backtests: one set of rules, a fast engine for them, metrics that can be trusted, and the search over parameters.

The doors::

    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.run import backtest_signals, backtest_strategy

    result = backtest_signals(signals, bars, Assumptions(), funding=funding)
    result.metrics, result.pessimistic.metrics      # the numbers, and the numbers under worse costs
    result.runs(), result.equity(), result.fills(), result.trades(), result.events()   # the result tables

How it is built. The rules are small compiled functions (``rules``, ``fills``, ``acceptance``, ``matching``,
``intrabar``) over rows that ``layout`` declares; ``kernel`` calls them bar by bar. Nothing else knows a rule:
``simulation`` feeds the kernel signals that are known beforehand, ``python_strategy`` what a strategy in Python decides
at each close, ``sweep`` many parameter sets. Everything derived comes from the event log (``ledger``), and
``reconcile`` adds it up again after each run.

The rules in one page:

- A decision on the close of a bar is sized with that close and can fill from the next open on.
- At the open: funding of that instant on what was carried, reductions, exits that the open has passed, then openings.
  Openings that exceed the buying power together are scaled by one factor; the rest is cancelled.
- Market and stop orders take: slippage, impact, taker fee. A limit order that has waited is maker, at its price; one
  that the open has passed gets the open (or its own price, see ``Fills.gap_price``).
- Fills of an asset take at most ``max_volume_share`` of a bar's volume; the rest waits for the next bar.
- Inside a bar only open, high, low and close are known, so what hurts comes first: openings, then stops and the margin
  call on the way from the open to the worst prices, then limits and take-profits. A position opened inside a bar takes
  no profit in it. A trailing stop follows the best price of bars that are over; a close beyond its new level proves
  that it was hit.
- After an exit that no signal asked for, the standing signal stays out until it changes.
- Funding is minus position times price times rate: with a positive rate long pays. Inside a bar the price is its open.
- Quantities round down to the lot, fill prices against the order to the tick, limits away from the market.
- Limits on position and trades a day bind when an order is accepted, leverage when it fills. Closing is always allowed.
- Start + fills + fees + funding = end, to a millionth of a dollar, or the run is refused.

Nothing is imported here, so that a config can be read without loading a compiler.
"""
