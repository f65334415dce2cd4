"""Checks that run beside the assets: the SQL folder's data tests, gaps, staleness, and look-ahead of the signals.

What belongs here: judging stored rows. A check reads the whole table, so that its answer does not depend on which
partitions a run had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.defs.signals.assets import SCHEMA, read_market, signal_table
from mts_dagster.lake.read import read_tables
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.settings import Settings
from mts_dagster.sql_models import Model, Project
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.decisions import decide, first_difference

SHOWN_ROWS = 5
AUDITED_DAYS = 3
STALE_AFTER = timedelta(days=7)
STALE_INDICATORS = """
    select indicator, max(date)::varchar as newest from raw.macro_data where value is not null
    group by indicator having max(date) < ? order by indicator
"""


def build_checks(project: Project, strategies: Sequence[Strategy[Any]]) -> list[dg.AssetChecksDefinition]:
    """Checks of all models and strategies, and of the macro series."""
    models = [_model_checks(project, model) for model in project.models.values() if project.tests_of(model)]
    return [*models, *(_look_ahead_check(project, strategy) for strategy in strategies), macro_is_fresh]


def _model_checks(project: Project, model: Model) -> dg.AssetChecksDefinition:
    key = dg.AssetKey([model.schema, model.name])
    tests = project.tests_of(model)
    specs = [
        dg.AssetCheckSpec(name=test.name, asset=key, description=test.description, blocking=test.severity == "error")
        for test in tests
    ]

    @dg.multi_asset_check(name=f"data_tests_of_{model.name}", specs=specs)
    def data_tests(settings: dg.ResourceParam[Settings]) -> Iterator[dg.AssetCheckResult]:
        with session(settings) as con:
            for test in tests:
                yield _judged(con, key, test.name, project.render_test(test), test.severity)

    return data_tests


def _judged(
    con: duckdb.DuckDBPyConnection, key: dg.AssetKey, name: str, query: str, severity: str
) -> dg.AssetCheckResult:
    """Run a query whose rows are failures."""
    failing = con.execute(query).df()
    metadata: dict[str, Any] = {"failing_rows": len(failing)}
    if len(failing):
        metadata["first_rows"] = dg.MetadataValue.md(failing.head(SHOWN_ROWS).astype(str).to_markdown(index=False))
    level = dg.AssetCheckSeverity.ERROR if severity == "error" else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(asset_key=key, check_name=name, passed=failing.empty, severity=level, metadata=metadata)


def _look_ahead_check(project: Project, strategy: Strategy[Any]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="does_not_look_ahead",
        asset=dg.AssetKey([SCHEMA, strategy.name]),
        description="The newest decisions, computed again from rows known at their time alone, stay as stored.",
        blocking=True,
    )
    @ends_in_failure
    def does_not_look_ahead(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        return look_ahead_result(settings, project, strategy)

    return does_not_look_ahead


def look_ahead_result(settings: Settings, project: Project, strategy: Strategy[Any]) -> dg.AssetCheckResult:
    """Recompute the newest stored decisions on history cut at their own time and compare."""
    (stored,) = read_tables(settings, [(signal_table(strategy), None)])
    days = sorted(stored["date"].unique())[-AUDITED_DAYS:]
    for day in days:
        start = day.tz_localize("UTC").to_pydatetime()
        window = Slice(start, start + timedelta(days=1))
        expected = stored[stored["date"] == day]
        market = read_market(settings, strategy, project, window).known_at(expected["timestamp"].max())
        found = decide(strategy, market, window.start.date(), window.end.date())
        difference = first_difference(expected.reset_index(drop=True), found)
        if difference:
            return dg.AssetCheckResult(
                passed=False, description=f"on rows known then, {difference}", metadata={"day": str(day.date())}
            )
    return dg.AssetCheckResult(passed=True, metadata={"days_computed_again": len(days)})


@dg.asset_check(
    asset=dg.AssetKey(["raw", "macro_data"]),
    description="The newest observation of each series is at most a week old (broad dollar index: three weeks).",
)
def macro_is_fresh(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Warn about series that FRED stopped updating, or that nobody pulled."""
    with session(settings) as con:
        stale = con.execute(STALE_INDICATORS, [(datetime.now(UTC) - STALE_AFTER).date()]).fetchall()
    return dg.AssetCheckResult(
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"stale": ", ".join(f"{name} since {newest}" for name, newest in stale) or "none"},
    )
