"""The tables that Python and the compiled core share: each class is one row type, field by field, with units.

What belongs here: row types, their numpy dtypes, the codes stored in them and the bundles of arrays that the
kernel takes. What does not: rules. A row class is read twice: by mypy, which checks the fields used in the
compiled functions, and by ``table``, which makes the structured array that the compiled functions work on.

Times are bars: bar ``t`` opens at ``Market.open_ns[t]``. Quantities are signed base units, prices and cash
are in the quote currency. A price level that is not set is NaN, so that every comparison with it is false.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, cast, get_type_hints

import numpy as np
from numpy.typing import NDArray

# numpy integers, since numba compiles a copy of a function for each Python constant it is called with
ENGINE: Final = cast("int", np.int64(-1))  # order id of what the engine itself orders
AT_OPEN: Final = cast("int", np.int64(0))  # phases of a bar
INSIDE: Final = cast("int", np.int64(1))

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Small: TypeAlias = Annotated[int, "i4"]
Short: TypeAlias = Annotated[int, "i2"]
R = TypeVar("R")


class Rows(Protocol[R]):
    """A structured array whose rows have the fields of ``R``."""

    def __getitem__(self, index: int, /) -> R: ...
    def __setitem__(self, index: int, row: R, /) -> None: ...
    def __len__(self) -> int: ...


class CommandKind(IntEnum):
    """What is asked of the engine at the close of a bar."""

    TARGET = 0  # hold this fraction of equity until told otherwise (a trading signal)
    MARKET = 1
    LIMIT = 2
    STOP = 3
    CANCEL = 4


class OrderKind(IntEnum):
    """How a waiting order becomes a fill. The numbers are those of ``CommandKind``."""

    MARKET = 1
    LIMIT = 2
    STOP = 3


class EventKind(IntEnum):
    """What happened, in the event log."""

    SIGNAL = 0
    ORDER = 1
    FILL = 2
    CANCEL = 3
    REJECT = 4
    FUNDING = 5
    TRIGGER = 6
    MARGIN_CALL = 7


class Reason(IntEnum):
    """Why it happened."""

    NONE = 0
    SIGNAL = 1
    STRATEGY = 2
    STOP_LOSS = 3
    TAKE_PROFIT = 4
    TRAILING_STOP = 5
    LIQUIDATION = 6
    POSITION_LIMIT = 7
    TRADE_LIMIT = 8
    MIN_NOTIONAL = 9
    BUYING_POWER = 10
    SHORT_NOT_ALLOWED = 11
    NO_PRICE = 12
    HALTED = 13
    STOPPED_OUT = 14
    REPLACED = 15
    POSITION_CLOSED = 16
    BELOW_LOT = 17
    UNCHANGED = 18


class Account:
    """The one cash account, the clock of the simulation and the cursors into its inputs."""

    cash: float
    next_bar: int  # first bar that has not been processed
    command_count: int
    command_next: int
    funding_next: int
    log_count: int
    order_count: int
    held: int  # assets with a position
    trade_day: int  # UTC day of the last accepted trade, days since 1970
    trades_today: int
    halted: int  # 1 after equity was used up


class Position:
    """One asset's position and the exits attached to it."""

    quantity: float
    entry_price: float  # average price of the opening fills
    stop_level: float
    stop_reason: int  # STOP_LOSS or TRAILING_STOP
    take_level: float
    trail_rate: float  # distance of the trailing stop from the best price, as a fraction; 0 means none
    trail_peak: float  # best price since entry that is known to have been after the entry
    signalled: float  # target of the last accepted signal
    stopped_side: int  # direction that was stopped out and may not be re-entered by the standing signal
    entered_bar: int  # bar inside which (not at whose open) the position was opened or added to
    closed_bar: int  # bar in which it was last closed, whatever was opened after that
    closed_side: int  # direction of what was closed then
    volume_bar: int  # bar to which volume_left belongs
    volume_left: float


class Order:
    """One waiting order."""

    id: int  # index of the command that placed it, -1 for the engine's own
    asset: int
    kind: int
    reason: int
    quantity: float  # what is still to be filled; 0 means done
    price: float  # limit or trigger
    stop_loss_rate: float
    take_profit_rate: float
    trailing_rate: float
    reduce_only: int
    placed_bar: int  # accepted at the close of this bar
    wanted: float  # scratch of one matching pass: quantity and reference price
    wanted_reference: float


class Instrument:
    """Costs and steps of one asset; rates are fractions of the price or of the notional."""

    maker_rate: float
    taker_rate: float
    slippage_rate: float
    impact: float
    volume_share: float  # infinite when unlimited
    lot: float
    tick: float
    min_notional: float
    perpetual: int


class Rules:
    """Limits of the account and the exits that signals attach, see ``config.Assumptions``."""

    interval_ns: int
    max_position: float
    max_trades_per_day: int
    max_leverage: float
    maintenance_rate: float
    liquidation_rate: float
    rebalance_threshold: float
    stop_loss_rate: float
    take_profit_rate: float
    trailing_rate: float
    limit_through: int
    gap_at_limit: int


class Command:
    """Something decided at the close of a bar."""

    bar: int
    kind: int
    asset: int
    value: float  # TARGET: signed fraction of equity; CANCEL: order id; else signed quantity
    price: float
    stop_loss_rate: float
    take_profit_rate: float
    trailing_rate: float
    reduce_only: int


class Settlement:
    """One funding settlement."""

    bar: int
    phase: int  # AT_OPEN: at the instant the bar opens, before the fills there; INSIDE: later in the bar
    asset: int
    rate: float  # of the notional; positive means that long pays


class Event:
    """One line of the event log; which fields mean what is told by ``result.EVENT_COLUMNS``."""

    bar: Small
    asset: Small
    order: Small
    kind: Short
    reason: Short
    quantity: float  # signed; the target for a signal
    price: float
    fee: float
    slippage: float  # cost of the distance between fill and reference price
    cash: float  # change of the cash account, with the fee
    balance: float  # cash account afterwards


class Trade:
    """One position from its opening until it is flat, put together from the event log."""

    asset: Small
    side: Small
    opened_bar: Small
    closed_bar: Small  # -1 while open
    fills: Small
    exit_reason: Small
    quantity: float  # everything that was opened, absolute
    entry_price: float  # averages over the fills
    exit_price: float  # the last mark while open
    fees: float
    slippage: float
    funding: float  # received, negative when paid
    pnl: float  # after fees, slippage and funding; of an open trade at the last mark
    closed: float  # absolute quantity closed so far
    held: float  # signed quantity still held
    entry_value: float
    exit_value: float


class Moments:
    """Sums over the returns from bar to bar of an equity curve."""

    count: int
    mean: float
    variance: float  # sample variance
    downside: float  # mean square of the negative returns, over all returns
    skewness: float
    kurtosis: float  # 3 for a normal distribution
    drawdown: float  # deepest fall from a peak, as a positive fraction
    drawdown_bars: int  # longest time from a peak until it is reached again, or to the end
    mean_equity: float
    first: float
    last: float


class Totals:
    """Sums over the event log and over the exposure that follows from it."""

    commission: float
    slippage: float
    funding: float  # received less paid
    traded: float  # notional of all fills
    exposed_bars: int  # at whose close a position was held
    mean_gross: float  # mean over all bars of the sum of absolute positions over equity


class Market(NamedTuple):
    """Bars on one time axis, shape (bars, assets), read-only. A bar that is not there has NaN prices."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    mark: FloatArray  # close, carried forward over bars that are not there
    volume: FloatArray  # base units
    open_ns: IntArray  # shape (bars,)


class Terms(NamedTuple):
    """What was agreed before the first bar."""

    rules: Rows[Rules]  # one row
    instruments: Rows[Instrument]


class Script(NamedTuple):
    """What comes from outside while time passes, both sorted by bar."""

    commands: Rows[Command]
    funding: Rows[Settlement]


class State(NamedTuple):
    """Everything that changes."""

    account: Rows[Account]  # one row
    positions: Rows[Position]
    orders: Rows[Order]
    log: Rows[Event]
    equity: FloatArray  # at the close of each bar
    held: IntArray  # scratch: the assets with a position


class Desk(NamedTuple):
    """One asset at one bar, as the functions that book fills see it."""

    account: Account
    position: Position
    instrument: Instrument
    orders: Rows[Order]
    log: Rows[Event]
    bar: int
    asset: int


_CODES = {float: "f8", int: "i8", Small: "i4", Short: "i2"}


def rows(array: NDArray[np.void]) -> Rows[Any]:
    """Tell the type checker that a structured array holds rows."""
    return cast("Rows[Any]", array)


def dtype_of(row: type) -> np.dtype[np.void]:
    """Return the numpy dtype of a row class, fields in the order of the class."""
    return np.dtype(
        [(name, _CODES[kind]) for name, kind in get_type_hints(row, include_extras=True).items()], align=True
    )


ACCOUNT = dtype_of(Account)
POSITION = dtype_of(Position)
ORDER = dtype_of(Order)
INSTRUMENT = dtype_of(Instrument)
RULES = dtype_of(Rules)
COMMAND = dtype_of(Command)
SETTLEMENT = dtype_of(Settlement)
EVENT = dtype_of(Event)
TRADE = dtype_of(Trade)
MOMENTS = dtype_of(Moments)
TOTALS = dtype_of(Totals)
