"""One run of the kernel: its tables, their growth, and the assumptions in the kernel's own form.

What belongs here: the bridge between Python objects and ``kernel.advance``, used by signals, by a Python
strategy and by sweeps alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mts_dagster.backtest.config import BPS, PCT, Assumptions
from mts_dagster.backtest.kernel import DONE, LOG_FULL, advance
from mts_dagster.backtest.layout import (
    ACCOUNT,
    COMMAND,
    EVENT,
    INSTRUMENT,
    ORDER,
    POSITION,
    RULES,
    FloatArray,
    Script,
    State,
    Terms,
    rows,
)
from mts_dagster.backtest.market import MarketData, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLIMITED: Final = 2**62
EVENTS_PER_COMMAND: Final = 4
SPARE_ROWS: Final = 256


def rules_of(assumptions: Assumptions, interval_ns: int) -> NDArray[np.void]:
    """Return the one row of ``layout.Rules``, in the order of its fields."""
    limits, fills = assumptions.limits, assumptions.fills
    row = (
        interval_ns,
        limits.max_position,
        UNLIMITED if limits.max_trades_per_day is None else limits.max_trades_per_day,
        limits.max_leverage,
        limits.maintenance_margin_pct * PCT,
        limits.liquidation_fee_bps * BPS,
        assumptions.rebalance_threshold,
        *assumptions.protection.rates(),
        fills.limit_fill == "through",
        fills.gap_price == "limit",
    )
    return np.array([row], RULES)


def instrument_of(assumptions: Assumptions, asset: str) -> tuple[float, ...]:
    """Return a row of ``layout.Instrument``, in the order of its fields."""
    venue, steps, fills = assumptions.venue(asset), assumptions.instrument(asset), assumptions.fills
    return (
        venue.maker_fee_bps * BPS,
        venue.taker_fee_bps * BPS,
        fills.slippage_bps * BPS,
        fills.impact,
        np.inf if fills.max_volume_share is None else fills.max_volume_share,
        steps.lot_size,
        steps.tick_size,
        steps.min_notional_usd,
        venue.kind == "perpetual",
    )


def terms_of(assumptions: Assumptions, assets: tuple[str, ...], interval_ns: int) -> Terms:
    """Write assumptions down in the units of the kernel: rates as fractions, limits as numbers.

    Raises:
        ConfigError: an instrument names a venue without a fee schedule.
    """
    instruments = np.empty(len(assets), INSTRUMENT)
    alike: tuple[float, ...] | None = None  # assets that the assumptions do not name share one row
    for column, asset in enumerate(assets):
        if asset in assumptions.instruments:
            instruments[column] = instrument_of(assumptions, asset)
        else:
            alike = alike or instrument_of(assumptions, asset)
            instruments[column] = alike
    return Terms(rows(read_only(rules_of(assumptions, interval_ns))), rows(read_only(instruments)))


class Simulation:
    """An account on its way through the bars.

    ``run`` carries it forward. Everything decided so far is in ``commands``; what happened is in ``events``.
    """

    def __init__(
        self,
        market: MarketData,
        terms: Terms,
        capital: float,
        commands: NDArray[np.void] | None = None,
    ) -> None:
        """Put ``capital`` into an account before the first bar.

        Args:
            market: Bars and funding.
            terms: The assumptions, from ``terms_of``.
            capital: Cash at the start.
            commands: What is decided, if that is known beforehand (dtype ``layout.COMMAND``, sorted by bar,
                read-only).
        """
        assets = len(market.assets)
        known = 0 if commands is None else len(commands)
        self.market = market
        self.terms = terms
        self.capital = capital
        self._decided = np.zeros(SPARE_ROWS, COMMAND) if commands is None else commands
        self._script = Script(rows(read_only(self._decided)), rows(market.funding))
        self._account = np.zeros(1, ACCOUNT)
        self._positions = np.zeros(assets, POSITION)
        self._orders = np.empty(SPARE_ROWS + 4 * assets, ORDER)
        self._log = np.empty(EVENTS_PER_COMMAND * known + len(market.funding) + SPARE_ROWS + 32 * assets, EVENT)
        self.equity: FloatArray = np.empty(market.bars)
        self._held = np.empty(assets, np.int64)
        self._blank_account = np.zeros(1, ACCOUNT)
        self._blank_account["cash"] = capital
        self._blank_account["trade_day"] = -1
        self._blank_positions = np.zeros(assets, POSITION)
        for name in ("stop_level", "take_level"):
            self._blank_positions[name] = np.nan
        for name in ("entered_bar", "closed_bar", "volume_bar"):
            self._blank_positions[name] = -1
        self._reset(known)

    def _reset(self, commands: int) -> None:
        self._account[:] = self._blank_account
        self._account["command_count"] = commands
        self._positions[:] = self._blank_positions
        self._bind()

    def restart(self, commands: NDArray[np.void]) -> None:
        """Go back to before the first bar with other commands; tables are reused, earlier results lost."""
        self._decided = commands
        self._script = Script(rows(commands), self._script.funding)
        self._reset(len(commands))

    def _bind(self) -> None:
        self._state = State(
            rows(self._account),
            rows(self._positions),
            rows(self._orders),
            rows(self._log),
            self.equity,
            self._held,
        )

    def run(self, until: int, *, ahead: bool = False) -> int:
        """Process bars before ``until``, see ``kernel.advance``; return the next bar to process."""
        while True:
            status = advance(self.market.arrays, self.terms, self._script, self._state, until, ahead)
            if status == DONE:
                return int(self._account["next_bar"][0])
            if status == LOG_FULL:
                self._log = grown(self._log)
            else:
                self._orders = grown(self._orders)
            self._bind()

    def decide(self, command: tuple[float, ...]) -> int:
        """Append a command (fields as in ``layout.Command``) and return its index, the id of its order.

        Bars after the command's that were marked ahead are taken back.
        """
        count = int(self._account["command_count"][0])
        if count == len(self._decided):
            self._decided = grown(self._decided)
            self._script = Script(rows(read_only(self._decided)), self._script.funding)
        self._decided[count] = command
        self._account["command_count"] = count + 1
        self._account["next_bar"] = min(int(self._account["next_bar"][0]), int(command[0]) + 1)
        return count

    @property
    def decisions(self) -> NDArray[np.void]:
        """What was decided so far (dtype ``layout.COMMAND``); do not write."""
        return self._decided[: int(self._account["command_count"][0])]

    @property
    def cash(self) -> float:
        """Cash now."""
        return float(self._account["cash"][0])

    @property
    def positions(self) -> NDArray[np.void]:
        """Positions now, one row an asset (dtype ``layout.POSITION``); do not write."""
        return self._positions

    @property
    def waiting(self) -> NDArray[np.void]:
        """Orders that are still waiting (dtype ``layout.ORDER``); do not write."""
        return self._orders[: int(self._account["order_count"][0])]

    @property
    def events(self) -> NDArray[np.void]:
        """What happened so far (dtype ``layout.EVENT``); do not write."""
        return self._log[: int(self._account["log_count"][0])]


def grown(array: NDArray[np.void]) -> NDArray[np.void]:
    """Return a copy with twice the room."""
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


def simulate(market: MarketData, commands: NDArray[np.void], assumptions: Assumptions) -> Simulation:
    """Run commands that are known beforehand over all bars."""
    terms = terms_of(assumptions, market.assets, market.interval_ns)
    simulation = Simulation(market, terms, assumptions.initial_capital_usd, commands)
    simulation.run(market.bars)
    return simulation
