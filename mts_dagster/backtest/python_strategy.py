"""A user's own strategy, called bar by bar from Python, under the very rules that signals are traded by.

What belongs here: the strategy's base class, what it sees and may do, and the loop. The loop holds no rule:
it lets the kernel carry the account to the close of each bar and hands decisions back. While nothing can
happen the kernel marks many bars at once (``kernel.advance`` with ``ahead``), so that Python is only called
for the strategy itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from mts_dagster.backtest.config import Assumptions, Protection, first_mistake
from mts_dagster.backtest.coverage import instant
from mts_dagster.backtest.layout import CommandKind, FloatArray, OrderKind
from mts_dagster.backtest.simulation import Simulation, terms_of
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from mts_dagster.backtest.market import MarketData

FIRST_REACH: Final = 16  # bars to mark ahead; doubles as long as nothing is decided in between

Field = Literal["open", "high", "low", "mark", "volume"]


@dataclass(frozen=True)
class WaitingOrder:
    """An order that is not filled in full; ``quantity`` is what is left, ``price`` its limit or trigger."""

    order_id: int
    asset: str
    kind: str
    quantity: float
    price: float


class Broker:
    """What a strategy sees at the close of a bar, and what it may order.

    Attributes:
        bar: Number of the bar that has just closed.
        assets: Assets that can be traded.
    """

    def __init__(self, market: MarketData, assumptions: Assumptions) -> None:
        """Open an account over ``market``; ``run_bars`` does this."""
        terms = terms_of(assumptions, market.assets, market.interval_ns)
        self.bar = -1
        self.assets: Final = market.assets
        self.simulation: Final = Simulation(market, terms, assumptions.initial_capital_usd)
        self._market = market
        self._columns = {name: column for column, name in enumerate(market.assets)}
        self._quantities = self.simulation.positions["quantity"]
        self._marked = 0  # first bar that is not marked yet
        self._reach = FIRST_REACH

    def _column(self, asset: str) -> int:
        column = self._columns.get(asset)
        if column is None:
            raise UsageError(f"no asset {asset!r} in this backtest, it has {list(self.assets)}")
        return column

    @property
    def time(self) -> datetime:
        """Close of the bar, the moment of the decision (UTC)."""
        return instant(int(self._market.arrays.open_ns[self.bar]) + self._market.interval_ns)

    @property
    def equity(self) -> float:
        """Equity at this close."""
        return float(self.simulation.equity[self.bar])

    @property
    def cash(self) -> float:
        """Cash at this close."""
        return self.simulation.cash

    def position(self, asset: str) -> float:
        """Return the signed quantity held at this close."""
        return float(self._quantities[self._column(asset)])

    def close(self, asset: str) -> float:
        """Return the close, or the last one known where the bar is missing."""
        return float(self._market.arrays.mark[self.bar, self._column(asset)])

    def history(self, asset: str, field: Field, count: int) -> FloatArray:
        """Return the last ``count`` values up to this bar; ``mark`` is the close, carried over gaps."""
        values: FloatArray = getattr(self._market.arrays, field)
        return values[max(0, self.bar + 1 - count) : self.bar + 1, self._column(asset)]

    def waiting(self, asset: str) -> list[WaitingOrder]:
        """Return the asset's orders that were accepted before this bar and still wait."""
        column = self._column(asset)
        return [
            WaitingOrder(
                int(o["id"]),
                asset,
                OrderKind(o["kind"]).name.lower(),
                float(o["quantity"]),
                float(o["price"]),
            )
            for o in self.simulation.waiting
            if o["asset"] == column
        ]

    def target(self, asset: str, fraction: float) -> int:
        """Hold this fraction of equity from the next open on, exactly as a trading signal would.

        Repeating the same target orders nothing; after a stop the same direction stays out until the target
        changes.
        """
        if not math.isfinite(fraction):
            raise UsageError(f"target of {asset!r} at {self.time} is {fraction}, a fraction of equity is needed")
        return self._decide(CommandKind.TARGET, asset, fraction, math.nan, (0.0, 0.0, 0.0), reduce_only=False)

    def order(
        self,
        asset: str,
        quantity: float,
        *,
        limit: float | None = None,
        stop: float | None = None,
        stop_loss_pct: float | None = None,
        take_profit_pct: float | None = None,
        trailing_stop_pct: float | None = None,
        reduce_only: bool = False,
    ) -> int:
        """Order a signed quantity from the next open on: at market, or at a limit, or once a stop is reached.

        Args:
            asset: What to trade.
            quantity: Base units, negative to sell.
            limit: Worst price to accept.
            stop: Price that turns the order into a market order.
            stop_loss_pct: Exit of the position that the order opens or adds to, from its average entry price;
                above 0 and below 100 as in ``config.Protection``, whose bounds hold for all three.
            take_profit_pct: The same on the other side, a limit order.
            trailing_stop_pct: Exit that follows the best price at this distance.
            reduce_only: Never open or reverse; cancelled when the position is closed, also by an order that
                reverses or reopens it at once.

        Returns:
            The order's id.

        Raises:
            UsageError: a number is missing, not finite or out of bounds, or limit and stop are both given.
        """
        if limit is not None and stop is not None:
            raise UsageError(f"order of {asset!r} at {self.time} has a limit and a stop; give one of them")
        price = limit if limit is not None else stop
        if not math.isfinite(quantity) or (price is not None and not (math.isfinite(price) and price > 0)):
            raise UsageError(f"order of {asset!r} at {self.time} for {quantity} at {price} makes no sense")
        kind = CommandKind.LIMIT if limit is not None else CommandKind.MARKET if stop is None else CommandKind.STOP
        try:
            exits = Protection(
                stop_loss_pct=stop_loss_pct, take_profit_pct=take_profit_pct, trailing_stop_pct=trailing_stop_pct
            )
        except ValidationError as error:
            raise UsageError(f"order of {asset!r} at {self.time}: {first_mistake(error)}") from error
        level = math.nan if price is None else price
        return self._decide(kind, asset, quantity, level, exits.rates(), reduce_only=reduce_only)

    def cancel(self, order_id: int) -> None:
        """Cancel what is left of an order; one that is done already stays done."""
        self._decide(CommandKind.CANCEL, self.assets[0], order_id, math.nan, (0.0, 0.0, 0.0), reduce_only=False)

    def _decide(
        self,
        kind: CommandKind,
        asset: str,
        value: float,
        price: float,
        exits: tuple[float, float, float],
        *,
        reduce_only: bool,
    ) -> int:
        self._marked = self.bar + 1
        self._reach = FIRST_REACH
        return self.simulation.decide((self.bar, kind, self._column(asset), value, price, *exits, reduce_only))

    def run(self, strategy: Strategy) -> None:
        """Call a strategy at the close of every bar."""
        strategy.start(self._market)
        bars = self._market.bars
        on_bar = strategy.on_bar
        for bar in range(bars):
            if bar >= self._marked:
                self._marked = self.simulation.run(min(bars, bar + 1 + self._reach), ahead=True)
                self._reach *= 2
            self.bar = bar
            on_bar(self)
        self.simulation.run(bars)


class Strategy(ABC):
    """A strategy in Python. One object trades one run; keep whatever state you like in it."""

    def start(self, market: MarketData) -> None:  # noqa: B027 - preparing nothing is a sensible default
        """Prepare indicators over all bars, once, before the first.

        What is prepared here can look ahead by mistake; ``lookahead.find_lookahead`` shows whether it does.
        """

    @abstractmethod
    def on_bar(self, broker: Broker) -> None:
        """Decide at the close of ``broker.bar``; what is ordered can fill from the next open on."""


def run_bars(strategy: Strategy, market: MarketData, assumptions: Assumptions) -> Simulation:
    """Run a Python strategy over all bars."""
    broker = Broker(market, assumptions)
    broker.run(strategy)
    return broker.simulation
