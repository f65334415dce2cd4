"""Runs in the peers' environment: the same bars, fees and decisions in vectorbt and backtesting.py.

What belongs here: the peers' own way to say what our test says to our engine. Reads the ``.npz`` files named on the
command line and prints a JSON list, one object a file. Imports nothing of MTS.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import vectorbt as vbt
from backtesting import Backtest, Strategy

UNITS = 1_000_000  # backtesting.py trades whole units only, so prices are given for a millionth


def by_targets(given: Any) -> list[float]:  # noqa: ANN401 - a loaded npz file
    """Let vectorbt hold a fraction of equity, sized at the close of the decision, filled at the next open."""
    targets, close = given["targets"], given["close"]
    before = np.vstack([np.zeros((1, targets.shape[1])), targets[:-1]])
    changed = targets != before
    size = np.full(targets.shape, np.nan)
    size[1:] = np.where(changed[:-1], targets[:-1], np.nan)
    sizing_price = np.vstack([close[:1], close[:-1]])
    portfolio = vbt.Portfolio.from_orders(
        close,
        size=size,
        size_type="targetpercent",
        price=given["open"],
        val_price=sizing_price,
        fees=float(given["fee_rate"]),
        init_cash=float(given["capital"]),
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="1D",
    )
    return [float(value) for value in np.asarray(portfolio.value()).reshape(-1)]


def by_signals(given: Any) -> float:  # noqa: ANN401 - same
    """Use vectorbt as most people do: entries and exits, everything in, sized at the fill."""
    held = given["targets"][:, 0] > 0
    decided = np.diff(held.astype(int), prepend=0)
    entries, exits = np.roll(decided == 1, 1), np.roll(decided == -1, 1)
    portfolio = vbt.Portfolio.from_signals(
        given["close"][:, 0],
        entries,
        exits,
        price=given["open"][:, 0],
        fees=float(given["fee_rate"]),
        init_cash=float(given["capital"]),
        freq="1D",
    )
    return float(portfolio.final_value())


class Targets(Strategy):  # type: ignore[misc]  # the peers are not installed where types are checked
    """Buy what the target is worth at this close, in whole units; sell all on a target of zero."""

    targets: list[float]

    def init(self) -> None:
        """Nothing to prepare."""

    def next(self) -> None:
        """Decide at the close of the newest bar."""
        bar = len(self.data) - 1
        now, before = self.targets[bar], self.targets[bar - 1]
        if now > 0 and before == 0:
            self.buy(size=int(now * self.equity / self.data.Close[-1]))
        elif now == 0 and before > 0:
            self.position.close()


def by_strategy(given: Any) -> dict[str, float]:  # noqa: ANN401 - same
    """Run backtesting.py on the first asset."""
    frame = pd.DataFrame(
        {name.capitalize(): given[name][:, 0] / UNITS for name in ("open", "high", "low", "close")},
        index=pd.date_range("2017-01-01", periods=len(given["open"]), freq="D"),
    ).assign(Volume=1.0)
    targets = type("Given", (Targets,), {"targets": given["targets"][:, 0].tolist()})
    test = Backtest(frame, targets, cash=float(given["capital"]), commission=float(given["fee_rate"]))
    stats = test.run()
    curve = stats["_equity_curve"]["Equity"].to_numpy()
    return {"final": float(curve[-1]), "trades": int(stats["# Trades"])}


def answer(path: str) -> dict[str, Any]:
    """Answer what one file asks."""
    with np.load(path) as given:
        found: dict[str, Any] = {"targets": by_targets(given)}
        if given["targets"].shape[1] == 1 and (given["targets"] >= 0).all():
            found["signals"] = by_signals(given)
            found["strategy"] = by_strategy(given)
    return found


def main() -> None:
    """Answer all files."""
    warnings.filterwarnings("ignore")
    sys.stdout.write(json.dumps([answer(path) for path in sys.argv[1:]]))


if __name__ == "__main__":
    main()
