"""The demo: everything against the simulator, from nothing to backtests, with a summary at the end.

What belongs here: the order of the steps and the summary. ``make demo`` runs ``mts demo``; ``make up`` then shows the
same data in the Dagster UI. Running it again replaces the same partitions by the same values.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from rich.console import Console

from mts_dagster.errors import LakeError, MtsError
from mts_dagster.lake.shared import session
from mts_dagster.lake.status import table_statuses
from mts_dagster.processes import sidecar, sidecar_log, simulator
from mts_dagster.reports import print_backtests, print_opportunities, print_rows, print_signals
from mts_dagster.runs import Days
from mts_dagster.settings import Settings, load_settings
from mts_dagster.workbench import (
    Workbench,
    collect_macro,
    collect_market,
    compute_signals,
    ingest_landing,
    run_backtests,
)
from mts_realtime.landing import list_segments, read_segments

DAYS = 400
OPPORTUNITY_WAIT_S = 120.0
SURELY_SAMPLED_MS = 2500.0
# Nothing to tell is no fault here; the day that was streamed has not ended; walking forward is a job of its own.
MAY_BE_EMPTY = {
    "live.stream_gaps",
    "live.live_signals",
    "marts.arbitrage_daily",
    "marts.market_structure_daily",
    "backtests.walk_forward",
}
# Correlations need 30 pairs of VIX observations, drawdowns 90 days: signals start when both can exist.
WARM_UP_DAYS = 100
POSITIONS = """
    select strategy, count(*) filter (where direction = 'long') as long_days,
        count(*) filter (where direction = 'short') as short_days,
        count(*) filter (where direction = 'flat') as flat_days
    from signals.trading_signals group by strategy order by strategy
"""


def run(days: int) -> None:
    """Start the simulator, collect, compute, summarise.

    Raises:
        MtsError: whatever failed, in one line.
    """
    with simulator(["--seed", "7"]) as addresses:
        os.environ.update(addresses)
        _run(load_settings(), days)


def _run(settings: Settings, days: int) -> None:
    started = time.monotonic()
    console = Console()
    console.print("MTS demo: invented markets from the simulator", style="bold")
    console.print(f"{days} days of history; data in {settings.home}", highlight=False, soft_wrap=True)
    today = datetime.now(UTC).date()
    window = Days(today - timedelta(days=days - 1), today)
    with Workbench.open(settings) as bench:
        with sidecar(settings):  # it streams while history is collected
            collect_macro(bench, window)
            collect_market(bench, window)
            _wait_for_opportunity(bench)
        ingest_landing(bench)
        compute_signals(bench, Days(min(window.first + timedelta(days=WARM_UP_DAYS), today), today))
        run_backtests(bench, window.first.year, today.year)
    summarise(settings, console)
    console.print(f"\ndone in {time.monotonic() - started:.0f} s; see it in the Dagster UI: make up", highlight=False)


def _wait_for_opportunity(bench: Workbench) -> None:
    """Until the sidecar has landed an opportunity that its sampled books must show too: usually it has by now.

    Raises:
        MtsError: none came.
    """
    with bench.step("order books and an arbitrage opportunity from the sidecar"):
        deadline = time.monotonic() + OPPORTUNITY_WAIT_S
        while not _sampled_opportunity(bench.settings):
            if time.monotonic() > deadline:
                raise MtsError(
                    f"none within {OPPORTUNITY_WAIT_S:.0f} s; the sidecar's log: {sidecar_log(bench.settings)}"
                )
            time.sleep(0.2)


def _sampled_opportunity(settings: Settings) -> bool:
    """Whether one has landed that lasted longer than the distance of two samples."""
    segments = list_segments(settings.landing_dir, "opportunities")
    lifetimes_ms = read_segments(segments, "opportunities")["lifetime_ms"].to_pylist()
    return any(lifetime_ms > SURELY_SAMPLED_MS for lifetime_ms in lifetimes_ms)


def summarise(settings: Settings, console: Console) -> None:
    """Print what is in the lake now.

    Raises:
        LakeError: a table that the demo fills is empty.
    """
    statuses = [status for status in table_statuses(settings) if status.rows or status.table not in MAY_BE_EMPTY]
    if empty := [status.table for status in statuses if not status.rows]:
        raise LakeError(f"the demo left tables empty: {', '.join(empty)}")
    console.print()
    print_rows(
        ["table", "rows", "from", "to"],
        [(status.table, status.rows, status.first, status.last) for status in statuses],
        title="the lake",
    )
    with session(settings) as con:
        result = con.execute(POSITIONS)
        columns = [column[0] for column in result.description or []]
        print_rows(columns, result.fetchall(), title="decisions, coins x days")
    print_signals(settings)
    print_opportunities(settings)
    print_backtests(settings)
