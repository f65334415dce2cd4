"""Walk-forward of one strategy over all history, as the table ``walk_forward`` keeps it.

What belongs here: the choice of window, method and objective for unattended runs.
"""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from mts_dagster.errors import UsageError
from mts_dagster.lake.shared import session
from mts_dagster.lake.snapshots import newest_snapshot
from mts_dagster.research.runs import Request, at_midnight, load_assumptions
from mts_dagster.research.subject import Subject
from mts_dagster.research.tuning import cut, open_bench, space_of, walk, walk_rows
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Project


def walk_all(
    settings: Settings, project: Project, subject: Subject, start: datetime, now: datetime, folds: int, trials: int
) -> pd.DataFrame:
    """Rows of ``walk_forward`` for one strategy: a random search of ``trials`` sets in each fold, the Sharpe ratio.

    Raises:
        UsageError: the strategy has no parameters, or there are too few bars.
    """
    if subject.strategy is None:
        raise UsageError(f"{subject.name} has no parameters to walk forward")
    request = Request(subject, start, at_midnight(now), load_assumptions(settings.backtest_assumptions))
    space = space_of(subject.strategy)
    with session(settings) as con:
        snapshot = newest_snapshot(con)
        bench = open_bench(con, project, request, space, snapshot)
    found = walk(bench, space, folds=cut(bench, folds), method="random", objective="sharpe", trials=trials)
    return walk_rows(found, bench, snapshot, pd.Timestamp(now))
