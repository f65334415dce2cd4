"""Do the books add up? Start + fills + fees + funding = end, recomputed from the event log alone.

What belongs here: the check that runs after every backtest. It knows the log and the final state, none of the
rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mts_dagster.backtest.errors import ReconciliationError
from mts_dagster.backtest.layout import EventKind, FloatArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE_USD: Final = 1e-6
FLOAT_RESIDUE: Final = 1e-12  # of the largest sum of money involved, where that is more than TOLERANCE_USD


@dataclass(frozen=True)
class Reconciliation:
    """The cash account, written as an accountant would.

    Attributes:
        start_usd: Cash at the start.
        fills_usd: Received for what was sold less paid for what was bought.
        fees_usd: Fees, negative.
        funding_usd: Funding received less paid.
        end_usd: Cash at the end, as the engine has it.
        positions_usd: Value of the positions that the fills leave, at the last marks.
        equity_usd: Equity at the last close, as the engine has it.
        tolerance_usd: Differences up to this are float residue.
    """

    start_usd: float
    fills_usd: float
    fees_usd: float
    funding_usd: float
    end_usd: float
    positions_usd: float
    equity_usd: float
    tolerance_usd: float

    @property
    def cash_difference_usd(self) -> float:
        """What the engine's cash has too much."""
        return self.end_usd - (self.start_usd + self.fills_usd + self.fees_usd + self.funding_usd)

    @property
    def equity_difference_usd(self) -> float:
        """What the engine's equity has too much."""
        return self.equity_usd - (self.end_usd + self.positions_usd)

    def require(self) -> None:
        """Refuse a result whose books do not add up.

        Raises:
            ReconciliationError: they differ by more than the tolerance.
        """
        worst = max(abs(self.cash_difference_usd), abs(self.equity_difference_usd))
        if not worst <= self.tolerance_usd:
            raise ReconciliationError(
                f"the books differ by {worst:.9f} USD: start {self.start_usd:.6f} "
                f"+ fills {self.fills_usd:.6f} + fees {self.fees_usd:.6f} + funding {self.funding_usd:.6f} "
                f"!= end {self.end_usd:.6f}, "
                f"or + positions {self.positions_usd:.6f} != equity {self.equity_usd:.6f}; report this run"
            )


def exact_sum(values: FloatArray) -> float:
    """Return a sum whose own rounding is far below a millionth of a dollar."""
    return float(np.sum(values, dtype=np.longdouble))


def reconcile(
    capital: float, events: NDArray[np.void], cash: float, equity: float, last_marks: FloatArray
) -> Reconciliation:
    """Add the books up.

    Args:
        capital: Cash at the start.
        events: The log (dtype ``layout.EVENT``).
        cash: Cash at the end.
        equity: Equity at the last close.
        last_marks: Last price of each asset.
    """
    fills = np.flatnonzero(events["kind"] == EventKind.FILL)
    funding = np.flatnonzero(events["kind"] == EventKind.FUNDING)
    quantity = events["quantity"][fills]
    paid = quantity * events["price"][fills]
    held = np.bincount(events["asset"][fills], weights=quantity, minlength=len(last_marks))
    known = np.isfinite(last_marks)
    largest = max(capital, float(np.abs(events["balance"]).max(initial=0.0)), float(np.abs(paid).max(initial=0.0)))
    return Reconciliation(
        start_usd=capital,
        fills_usd=-exact_sum(paid),
        fees_usd=-exact_sum(events["fee"][fills]),
        funding_usd=exact_sum(events["cash"][funding]),
        end_usd=cash,
        positions_usd=exact_sum(held[known] * last_marks[known]),
        equity_usd=equity,
        tolerance_usd=max(TOLERANCE_USD, FLOAT_RESIDUE * largest),
    )
