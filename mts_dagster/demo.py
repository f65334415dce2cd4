"""The demo: everything against the simulator, from nothing to signals, with a summary at the end.

What belongs here: the order of the steps and the summary. ``make demo`` runs it; ``make up`` then shows the same data
in the Dagster UI. Running it again replaces the same partitions by the same values.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console

from mts_dagster.cli import INTERRUPTED
from mts_dagster.errors import LakeError, MtsError
from mts_dagster.lake.shared import session
from mts_dagster.lake.status import table_statuses
from mts_dagster.processes import simulator
from mts_dagster.reports import print_rows, print_signals
from mts_dagster.runs import Days
from mts_dagster.settings import Settings, get_settings
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals

DAYS = 400
# Correlations need 30 pairs of VIX observations, drawdowns 90 days: signals start when both can exist.
WARM_UP_DAYS = 100
POSITIONS = """
    select strategy, count(*) filter (where direction = 'long') as long_days,
        count(*) filter (where direction = 'short') as short_days,
        count(*) filter (where direction = 'flat') as flat_days
    from signals.trading_signals group by strategy order by strategy
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    warnings.filterwarnings("ignore", message=r".*(is currently in (beta|preview)|may have breaking changes)")
    parser = argparse.ArgumentParser(prog="python -m mts_dagster.demo", description="MTS against its simulator.")
    parser.add_argument("--days", type=int, default=DAYS, help=f"days of history, today included ({DAYS})")
    days = parser.parse_args(arguments).days
    try:
        with simulator(["--seed", "7"]) as addresses:
            os.environ.update(addresses)
            return run(get_settings(), days)
    except KeyboardInterrupt:
        sys.stderr.write("\ndemo: stopped; what was committed stays, run it again to finish\n")
        return INTERRUPTED
    except MtsError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


def run(settings: Settings, days: int) -> int:
    """Collect, compute, summarise."""
    started = time.monotonic()
    console = Console()
    console.print(
        f"MTS demo: invented markets from the simulator, {days} days, data in {settings.home}", highlight=False
    )
    today = datetime.now(UTC).date()
    window = Days(today - timedelta(days=days - 1), today)
    with Workbench.open(settings) as bench:
        collect_macro(bench, window)
        collect_market(bench, window)
        compute_signals(bench, Days(min(window.first + timedelta(days=WARM_UP_DAYS), today), today))
    summarise(settings, console)
    console.print(f"\ndone in {time.monotonic() - started:.0f} s; see it in the Dagster UI: make up", highlight=False)
    return 0


def summarise(settings: Settings, console: Console) -> None:
    """Print what is in the lake now.

    Raises:
        LakeError: a table that the demo fills is empty.
    """
    statuses = table_statuses(settings)
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


if __name__ == "__main__":
    sys.exit(main())
