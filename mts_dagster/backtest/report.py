"""The tear sheet: one HTML file that needs nothing else, to be read offline and sent around.

What belongs here: charts (plotly, imported when a sheet is made) and the numbers beside them. The page is
``report.html.j2``. Curves are thinned to their extremes, so a sheet over millions of bars stays readable.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from mts_dagster.backtest.series import drawdown_pct, extremes, monthly_returns_pct, worst_drawdowns
from mts_dagster.backtest.words import assumed

if TYPE_CHECKING:
    from pathlib import Path

    import plotly.graph_objects as go

    from mts_dagster.backtest.layout import FloatArray
    from mts_dagster.backtest.optimise import Search
    from mts_dagster.backtest.result import BacktestResult, Outcome
    from mts_dagster.backtest.walk_forward import WalkForward

POINTS: Final = 4_000
TRADES_SHOWN: Final = 50
MINUTE: Final = "%Y-%m-%d %H:%M"
DRAWDOWNS_SHOWN: Final = 5
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
BASE_COLOUR: Final = "#0b6e99"
PESSIMISTIC_COLOUR: Final = "#c2571a"
HOLD_COLOUR: Final = "#8a8f98"

# metric, its words, its format; in the order of the page
ROWS: Final = (
    ("total_return_pct", "Total return", "{:+.2f} %"),
    ("annual_return_pct", "Annual return", "{:+.2f} %"),
    ("volatility_pct", "Volatility, annual", "{:.2f} %"),
    ("sharpe", "Sharpe ratio", "{:.2f}"),
    ("sortino", "Sortino ratio", "{:.2f}"),
    ("calmar", "Calmar ratio", "{:.2f}"),
    ("max_drawdown_pct", "Deepest drawdown", "{:.2f} %"),
    ("max_drawdown_days", "Longest drawdown", "{:.1f} days"),
    ("trades", "Closed trades", "{:d}"),
    ("win_rate_pct", "Win rate", "{:.1f} %"),
    ("profit_factor", "Profit factor", "{:.2f}"),
    ("expectancy_usd", "Expectancy of a trade", "{:+,.2f} USD"),
    ("average_trade_hours", "Average trade", "{:.1f} hours"),
    ("turnover_per_year", "Turnover a year", "{:.1f} x equity"),
    ("exposure_pct", "Time in the market", "{:.1f} %"),
    ("average_gross_pct", "Average exposure", "{:.1f} % of equity"),
    ("commission_usd", "Commission", "{:,.2f} USD"),
    ("slippage_usd", "Slippage", "{:,.2f} USD"),
    ("funding_usd", "Funding received less paid", "{:+,.2f} USD"),
    ("buy_hold_return_pct", "Buy and hold", "{:+.2f} %"),
    ("buy_hold_correlation", "Correlation to buy and hold", "{:.2f}"),
    ("probabilistic_sharpe", "Probability that Sharpe > 0", "{:.1%}"),
    ("deflated_sharpe", "Deflated Sharpe probability", "{:.1%}"),
    ("trials", "Trials behind this result", "{:d}"),
    ("end_equity_usd", "Equity at the end", "{:,.2f} USD"),
)


@dataclass(frozen=True)
class Extras:
    """What else a sheet can show.

    Attributes:
        search: The search that found the parameters.
        heat_map: Its two parameters to draw, x and y.
        walk_forward: How the choice of parameters fared on unseen bars.
    """

    search: Search | None = None
    heat_map: tuple[str, str] | None = None
    walk_forward: WalkForward | None = None


def shown(value: float, pattern: str) -> str:
    """Return a number as people read it; NaN is n/a."""
    if isinstance(value, float) and math.isnan(value):
        return "n/a"
    return pattern.format(value)


def _figure(height: int, y_title: str) -> go.Figure:
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, and only sheets need it

    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 34, "b": 30},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        hovermode="x unified",
        yaxis_title=y_title,
    )
    return figure


def _html(figure: go.Figure) -> Markup:
    options = {"displayModeBar": False, "responsive": True}
    page = figure.to_html(full_html=False, include_plotlyjs=False, config=options)
    return Markup(page)  # noqa: S704 - made by plotly from our numbers, names are escaped by it


def _line(
    figure: go.Figure,
    outcome: Outcome,
    values: FloatArray,
    *,
    name: str,
    colour: str,
    fill: str | None = None,
) -> None:
    kept = extremes(values, POINTS)
    times = outcome.market.close_times()[kept]
    line = {"color": colour, "width": 1.4}
    figure.add_scatter(x=times, y=values[kept], name=name, mode="lines", line=line, fill=fill)


def equity_chart(result: BacktestResult) -> go.Figure:
    """Return equity under both sets of assumptions and buy and hold."""
    figure = _figure(380, "equity, USD")
    curves = result.base.curves
    hold = curves.buy_hold / curves.buy_hold[0] * curves.equity[0]
    _line(figure, result.base, hold, name="buy and hold", colour=HOLD_COLOUR)
    _line(
        figure,
        result.pessimistic,
        result.pessimistic.curves.equity,
        name="pessimistic",
        colour=PESSIMISTIC_COLOUR,
    )
    _line(figure, result.base, curves.equity, name=result.provenance.strategy, colour=BASE_COLOUR)
    return figure


def drawdown_chart(result: BacktestResult) -> go.Figure:
    """Return the drawdowns of both outcomes."""
    figure = _figure(220, "drawdown, %")
    base, worse = -drawdown_pct(result.base.curves.equity), -drawdown_pct(result.pessimistic.curves.equity)
    _line(figure, result.base, base, name=result.provenance.strategy, colour=BASE_COLOUR, fill="tozeroy")
    _line(figure, result.pessimistic, worse, name="pessimistic", colour=PESSIMISTIC_COLOUR)
    return figure


def exposure_chart(result: BacktestResult) -> go.Figure:
    """Return the sum of absolute positions over equity."""
    figure = _figure(200, "exposure, % of equity")
    curves = result.base.curves
    share = np.divide(curves.gross, curves.equity, out=np.zeros_like(curves.gross), where=curves.equity > 0)
    _line(figure, result.base, 100.0 * share, name="exposure", colour=BASE_COLOUR, fill="tozeroy")
    return figure


def months_chart(result: BacktestResult) -> go.Figure:
    """Return the growth of each month as a map."""
    months = monthly_returns_pct(result.base.market.close_times(), result.base.curves.equity)
    years = 100.0 * ((1.0 + months / 100.0).prod(axis=1) - 1.0)
    values = np.column_stack([months.to_numpy(np.float64), years.to_numpy(np.float64)])
    figure = _figure(90 + 34 * len(months), "")
    figure.add_heatmap(
        x=[*MONTHS, "year"],
        y=[str(year) for year in months.index],
        z=values,
        text=[["" if np.isnan(v) else f"{v:+.1f}" for v in row] for row in values],
        texttemplate="%{text}",
        colorscale="RdBu",
        zmid=0,
        showscale=False,
    )
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def trades_chart(result: BacktestResult) -> go.Figure:
    """Return the distribution of the results of closed trades."""
    figure = _figure(240, "trades")
    closed = result.base.trades[result.base.trades["closed_bar"] >= 0]
    percent = 100.0 * closed["pnl"] / closed["entry_value"]
    figure.add_histogram(x=percent, nbinsx=60, marker_color=BASE_COLOUR, name="trades")
    figure.update_layout(xaxis_title="result of a trade, % of its notional", showlegend=False)
    return figure


def heat_map_chart(search: Search, x: str, y: str) -> go.Figure:
    """Return the objective over two parameters."""
    table = search.heat_map(x, y)
    figure = _figure(380, y)
    figure.add_heatmap(
        x=[str(value) for value in table.columns],
        y=[str(value) for value in table.index],
        z=table.to_numpy(np.float64),
        colorscale="Viridis",
        colorbar={"title": search.objective},
    )
    figure.update_layout(xaxis_title=x, hovermode="closest")
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure


def _metric_rows(result: BacktestResult) -> list[tuple[str, str, str]]:
    base, worse = result.base.metrics.as_dict(), result.pessimistic.metrics.as_dict()
    return [(words, shown(base[name], pattern), shown(worse[name], pattern)) for name, words, pattern in ROWS]


def _books(outcome: Outcome) -> list[tuple[str, str]]:
    books = outcome.reconciliation
    lines = (
        ("Start", books.start_usd),
        ("Fills", books.fills_usd),
        ("Fees", books.fees_usd),
        ("Funding", books.funding_usd),
        ("End (cash)", books.end_usd),
        ("Positions at the last mark", books.positions_usd),
        ("Equity", books.equity_usd),
    )
    return [(name, f"{value:,.6f}") for name, value in lines] + [("Difference", f"{books.cash_difference_usd:.1e}")]


def _costs(outcome: Outcome) -> list[tuple[str, str, str]]:
    """What prices gave, and what of it went where."""
    metrics = outcome.metrics
    gained = metrics.end_equity_usd - metrics.start_equity_usd
    parts = (
        ("Moves of prices", gained + metrics.commission_usd + metrics.slippage_usd - metrics.funding_usd),
        ("Slippage", -metrics.slippage_usd),
        ("Commission", -metrics.commission_usd),
        ("Funding", metrics.funding_usd),
        ("Result", gained),
    )
    return [(name, f"{usd:+,.2f}", f"{100.0 * usd / metrics.start_equity_usd:+.2f} %") for name, usd in parts]


def _interval(interval_ns: int) -> str:
    """The length of a bar in its usual words."""
    minutes = interval_ns / 6e10
    words = {1440.0: "daily bars", 60.0: "hourly bars", 1.0: "bars of a minute"}
    return words.get(minutes, f"bars of {minutes:g} minutes")


def most_stable(params: dict[str, Any] | None) -> str:
    """The parameters of a plateau as people write them."""
    if params is None:
        return "none: no neighbours were tried"
    return ", ".join(f"{name} = {value:g}" for name, value in params.items())


def _assumption_rows(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, dict) and value:
            found += _assumption_rows(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", json.dumps(value)))
    return found


def _day(time: pd.Timestamp | None, otherwise: str, pattern: str = "%Y-%m-%d") -> str:
    return otherwise if time is None or pd.isna(time) else time.strftime(pattern)


def _trade_rows(outcome: Outcome) -> list[list[str]]:
    frame = outcome.trades_frame().tail(TRADES_SHOWN).iloc[::-1]
    return [
        [
            str(row["asset"]),
            str(row["side"]),
            _day(row["opened_at"], "", MINUTE),
            _day(row["closed_at"], "open", MINUTE),
            f"{row['quantity']:,.6g}",
            f"{row['entry_price_usd']:,.6g}",
            f"{row['exit_price_usd']:,.6g}",
            f"{row['pnl_usd']:+,.2f}",
            f"{row['return_pct']:+.2f} %",
            str(row["exit_reason"]).replace("_", " "),
        ]
        for row in frame.to_dict("records")
    ]


def _drawdown_rows(outcome: Outcome) -> list[list[str]]:
    frame = worst_drawdowns(outcome.market.close_times(), outcome.curves.equity, DRAWDOWNS_SHOWN)
    return [
        [
            _day(row["peak_at"], ""),
            _day(row["trough_at"], ""),
            _day(row["recovered_at"], "not yet"),
            f"{row['depth_pct']:.2f} %",
            f"{row['days']:.1f}",
        ]
        for row in frame.to_dict("records")
    ]


def _charts(result: BacktestResult, extras: Extras) -> list[tuple[str, Markup]]:
    charts: list[tuple[str, go.Figure]] = [
        ("Equity", equity_chart(result)),
        ("Drawdown", drawdown_chart(result)),
        ("Exposure", exposure_chart(result)),
        ("Months, %", months_chart(result)),
        ("Trades", trades_chart(result)),
    ]
    if extras.search is not None and extras.heat_map is not None:
        charts.append((f"{extras.search.objective} over parameters", heat_map_chart(extras.search, *extras.heat_map)))
    return [(title, _html(figure)) for title, figure in charts]


def _walk_forward(walk: WalkForward | None) -> dict[str, Any] | None:
    if walk is None:
        return None
    frame = walk.frame()
    return {
        "columns": [str(name).replace("_", " ") for name in frame.columns],
        "rows": [[_cell(value) for value in row] for row in frame.itertuples(index=False)],
        "efficiency": shown(walk.efficiency, "{:.2f}"),
        "deflated": shown(walk.deflated_sharpe, "{:.1%}"),
        "trials": walk.trials.count,
        "growth": shown(walk.growth.total_return_pct, "{:+.2f} %"),
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        return shown(value, "{:.3g}")
    return _day(value, "") if isinstance(value, pd.Timestamp) else str(value)


def render_report(result: BacktestResult, extras: Extras | None = None) -> str:
    """Return the tear sheet of a result as one HTML page, scripts included."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import, and only sheets need it

    extras = extras or Extras()
    pages = Environment(
        loader=PackageLoader("mts_dagster.backtest", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    times = result.base.market.close_times()
    stability = extras.search.stability() if extras.search is not None else None
    return pages.get_template("report.html.j2").render(
        provenance=result.provenance,
        assets=", ".join(result.base.market.assets),
        start=f"{times[0]:%Y-%m-%d %H:%M}",
        end=f"{times[-1]:%Y-%m-%d %H:%M}",
        interval=_interval(result.base.market.interval_ns),
        coverage=result.coverage,
        gaps=[str(gap) for gap in result.coverage.gaps[:20]],
        signals_outside=result.signals_outside,
        metrics=_metric_rows(result),
        charts=_charts(result, extras),
        books=_books(result.base),
        costs=_costs(result.base),
        words=assumed(result.base.assumptions, result.base.market.assets),
        assumptions=_assumption_rows(result.base.assumptions.model_dump(mode="json")),
        config_hash=result.base.assumptions.config_hash(),
        trades=_trade_rows(result.base),
        trades_in_all=len(result.base.trades),
        drawdowns=_drawdown_rows(result.base),
        stability=stability,
        plateau=most_stable(stability.plateau) if stability else "",
        walk_forward=_walk_forward(extras.walk_forward),
        script=Markup(get_plotlyjs()),  # noqa: S704 - the plotting library itself
    )


def write_report(path: Path, result: BacktestResult, extras: Extras | None = None) -> None:
    """Write the tear sheet to ``path``."""
    path.write_text(render_report(result, extras), encoding="utf-8")
