"""The live terminal view: rates, lag, books, best opportunities.

What belongs here: drawing what the parts know. Nothing is measured or decided here.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mts_realtime.analytics.funding import annualised_pct
from mts_realtime.analytics.microstructure import spread_bps
from mts_realtime.metrics import health_report

if TYPE_CHECKING:
    from mts_realtime.detector import Market
    from mts_realtime.sidecar import Sidecar

_REFRESH_S = 0.5
_MOST_MARKETS = 24
_STATUS_STYLE = {"ok": "bold green", "degraded": "bold yellow", "down": "bold red"}


async def show(sidecar: Sidecar, console: Console) -> None:
    """Draw until cancelled."""
    view = View(sidecar)
    with Live(view.draw(), console=console, auto_refresh=False, transient=False) as live:
        while True:
            await asyncio.sleep(_REFRESH_S)
            live.update(view.draw(), refresh=True)


class View:
    """Draws the sidecar; remembers the last look, for rates."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._frames = sidecar.pipeline.frames_by_route()
        self._looked_s = time.monotonic()

    def draw(self) -> Group:
        """Everything as it is now."""
        return Group(self._headline(), self._connections(), self._markets(), self._opportunities())

    def _headline(self) -> Text:
        side = self._sidecar
        report = health_report(side)
        line = Text("MTS stream  ")
        line.append(report["status"], style=_STATUS_STYLE[report["status"]])
        lag_ms = report["lag_p99_s"] * 1000.0
        line.append(f"   lag p99 <= {lag_ms:g} ms   waiting {report['inbox_frames']} frames")
        line.append(f"   gaps open {report['open_gaps']}   segments {side.writer.segments_written}")
        if side.feed is not None:
            line.append(f"   feed port {side.feed.port}, {len(side.feed.outlets)} receivers")
        if report["landing_problem"]:
            line.append(f"\n{report['landing_problem']}", style="bold red")
        return line

    def _connections(self) -> Table:
        pipeline = self._sidecar.pipeline
        now_s = time.monotonic()
        elapsed_s = max(now_s - self._looked_s, 1e-3)
        frames = pipeline.frames_by_route()
        table = _numbers("exchange", "route", "frames", "frames/s", "reconnects", "live", "problem", texts=2)
        report = health_report(self._sidecar)["exchanges"]
        for (exchange, route), count in sorted(frames.items()):
            rate = (count - self._frames[exchange, route]) / elapsed_s if elapsed_s > _REFRESH_S / 2 else 0.0
            state = report[exchange]
            table.add_row(
                exchange,
                route,
                f"{count:,}",
                f"{rate:,.0f}",
                str(self._sidecar.supervisor.reconnects.get((exchange, route), 0)),
                f"{state['live']}/{state['topics']}",
                Text(state["problem"][:60], style="yellow"),
            )
        for exchange, state in report.items():
            if not any(name == exchange for name, _ in frames):
                table.add_row(exchange, "-", "0", "0", "0", "0/0", Text(state["problem"][:60] or "connecting"))
        self._frames, self._looked_s = frames, now_s
        return table

    def _markets(self) -> Table:
        table = _numbers("symbol", "exchange", "bid", "ask", "spread bps", "age ms", "funding % a year", texts=2)
        markets = sorted(
            self._sidecar.pipeline.detector.markets.values(),
            key=lambda market: (market.instrument.symbol, market.instrument.exchange),
        )
        for market in markets[:_MOST_MARKETS]:
            table.add_row(market.instrument.symbol, market.instrument.exchange, *self._book(market), _funding(market))
        if len(markets) > _MOST_MARKETS:
            table.caption = f"and {len(markets) - _MOST_MARKETS} more"
        return table

    def _book(self, market: Market) -> tuple[str, str, str, str]:
        book = market.book
        if book is None:
            return ("-", "-", "-", "-")
        age_ms = (self._sidecar.clock.now_ns() - book.received_ns) / 1e6
        if not book.best_bid or book.best_ask == float("inf"):
            return ("-", "-", "-", f"{age_ms:.0f}")
        digits = max(0, -int(Decimal(str(market.instrument.tick_size)).normalize().as_tuple().exponent))
        bid, ask = (f"{price:,.{digits}f}" for price in (book.best_bid, book.best_ask))
        return (bid, ask, f"{spread_bps(book.best_bid, book.best_ask):.3f}", f"{age_ms:.0f}")

    def _opportunities(self) -> Table:
        tracker = self._sidecar.pipeline.detector.tracker
        table = _numbers("opportunity", "buy", "sell", "net bps", "net USD", "size", "age ms", "confidence", texts=3)
        best = sorted(tracker.living.values(), key=lambda living: -living.edge.net_bps)
        for living in best[:5]:
            table.add_row(
                living.symbol,
                living.buy_exchange,
                living.sell_exchange,
                f"{living.edge.net_bps:.2f}",
                f"{living.edge.net_usd:.2f}",
                f"{living.edge.size_base:g}",
                f"{living.lifetime_ms:.0f}",
                f"{living.assessment.confidence:.2f}",
            )
        table.caption = f"opened {tracker.opened}, ended {tracker.expired}"
        return table


def _numbers(*titles: str, texts: int) -> Table:
    """A table whose first columns are texts and whose others are numbers."""
    table = Table(expand=False)
    for position, title in enumerate(titles):
        table.add_column(title, justify="left" if position < texts else "right")
    return table


def _funding(market: Market) -> str:
    funding = market.funding
    if funding is None or funding.funding_rate is None or not market.funding_hours:
        return "-"
    return f"{annualised_pct(funding.funding_rate, market.funding_hours):.2f}"
