"""The demo: everything against the simulator, from nothing to signals, with a summary at the end.

What belongs here: the order of the steps and the summary. ``make demo`` runs ``mts demo``; ``make up`` then shows the
same data in the Dagster UI. Running it again replaces the same partitions by the same values.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from rich.console import Console

from mts_dagster.errors import LakeError
from mts_dagster.lake.shared import session
from mts_dagster.lake.status import table_statuses
from mts_dagster.processes import simulator
from mts_dagster.reports import print_rows, print_signals
from mts_dagster.runs import Days
from mts_dagster.settings import Settings, load_settings
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals

DAYS = 400
# Tables of the sidecar and the days made of them; the demo does not start it.
LIVE = ("live.", "marts.arbitrage_daily", "marts.market_structure_daily")
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
        collect_macro(bench, window)
        collect_market(bench, window)
        compute_signals(bench, Days(min(window.first + timedelta(days=WARM_UP_DAYS), today), today))
    summarise(settings, console)
    console.print(f"\ndone in {time.monotonic() - started:.0f} s; see it in the Dagster UI: make up", highlight=False)


def summarise(settings: Settings, console: Console) -> None:
    """Print what is in the lake now.

    Raises:
        LakeError: a table that the demo fills is empty.
    """
    statuses = [status for status in table_statuses(settings) if not status.table.startswith(LIVE)]
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
