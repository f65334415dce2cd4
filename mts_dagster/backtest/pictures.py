"""Small pictures of a result for places that only take an image: equity and drawdown as PNG.

What belongs here: matplotlib, imported when a picture is drawn. The charts of the tear sheet are in
``report.py``.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np

from mts_dagster.backtest.series import drawdown_pct, extremes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mts_dagster.backtest.result import BacktestResult

LARGEST_BYTES: Final = 100_000  # what the metadata of a materialization can hold without bloating
SIZE_INCHES: Final = (8.0, 3.0)
DOTS_PER_INCH: Final = 90
POINTS: Final = 1_500

BASE_COLOUR: Final = "#0b6e99"
PESSIMISTIC_COLOUR: Final = "#c2571a"
HOLD_COLOUR: Final = "#8a8f98"


def _picture(result: BacktestResult, title: str, value: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow, and only pictures need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - same

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    (_draw_equity if value == "equity" else _draw_drawdown)(axes, result)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_equity(axes: Axes, result: BacktestResult) -> None:
    times = result.base.market.close_times().tz_localize(None).to_numpy()
    hold = result.base.curves.buy_hold * result.base.curves.equity[0] / result.base.curves.buy_hold[0]
    for label, colour, values in (
        ("buy and hold", HOLD_COLOUR, hold),
        ("pessimistic", PESSIMISTIC_COLOUR, result.pessimistic.curves.equity),
        ("strategy", BASE_COLOUR, result.base.curves.equity),
    ):
        kept = extremes(values, POINTS)
        axes.plot(times[kept], values[kept], label=label, color=colour, linewidth=1.0)
    axes.set_ylabel("USD", fontsize=8)
    axes.legend(fontsize=8, frameon=False, ncols=3)


def _draw_drawdown(axes: Axes, result: BacktestResult) -> None:
    times = result.base.market.close_times().tz_localize(None).to_numpy()
    depth = -drawdown_pct(result.base.curves.equity)
    kept = extremes(depth, POINTS)
    zero = np.zeros(len(kept))
    axes.fill_between(times[kept], depth[kept], zero, color=PESSIMISTIC_COLOUR, alpha=0.5, linewidth=0)
    axes.set_ylabel("%", fontsize=8)


def equity_picture(result: BacktestResult) -> bytes:
    """Return the equity curves of a result as PNG, under ``LARGEST_BYTES``."""
    return _picture(result, f"{result.provenance.strategy}: equity", "equity")


def drawdown_picture(result: BacktestResult) -> bytes:
    """Return the drawdown of a result as PNG, under ``LARGEST_BYTES``."""
    return _picture(result, f"{result.provenance.strategy}: drawdown", "drawdown")
