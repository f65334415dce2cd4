"""Checks that run beside the assets: data tests of the SQL folder, missing funding, staleness, look-ahead of signals.

What belongs here: judging stored rows. A check reads the whole table, so that its answer does not depend on which
partitions a run had; the look-ahead check reads what the newest decisions rest on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import dagster as dg
import duckdb

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.defs.signals.assets import read_market, signal_key, signal_table
from mts_dagster.lake.read import read_tables
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.partitions import midnight
from mts_dagster.settings import Settings
from mts_dagster.sql_models import DataTest, Model, Project
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.decisions import decide, first_difference
from mts_realtime.analytics.funding import SettlementGap, settlement_gaps

SHOWN_ROWS = 5
AUDITED_DAYS = 3
ONE_DAY = timedelta(days=1)
# A day's macro values are stored once the day has ended; a weekend without any run is no news.
MACRO_MAY_REST = timedelta(days=3)
NEWEST_MACRO = """
    select indicator, max(date) as newest, arg_max(observation_date, date) as observed, arg_max(is_stale, date) as stale
    from marts.macro_daily group by indicator
"""
# Settlements of the newest days, a list for each instrument. One that the coin has left for another is asked no further
# than its own newest.
FUNDING_DAYS = 35
SETTLEMENTS = f"""
    with newest as (
        select * from raw.funding_rates
        where kind = 'regular'
            and settled_at > (select max(settled_at) from raw.funding_rates) - interval {FUNDING_DAYS} day
    ),
    instruments as (
        select coin, venue, symbol, list(epoch_ms(settled_at) order by settled_at) as settled_ms
        from newest group by coin, venue, symbol
    )
    select coin, venue, symbol, settled_ms,
        case when settled_ms[-1] = max(settled_ms[-1]) over (partition by coin, venue)
            then max(settled_ms[-1]) over () else settled_ms[-1] end as until_ms
    from instruments order by coin, venue, symbol
"""  # noqa: S608 - a constant
SHOWN_GAPS = 50


def build_checks(project: Project, strategies: Sequence[Strategy[Any]]) -> list[dg.AssetChecksDefinition]:
    """Checks of all models and strategies, of settled funding, and of the macro series."""
    models = [_model_checks(project, model) for model in project.models.values() if project.tests_of(model)]
    return [*models, _look_ahead_checks(project, strategies), no_settlement_is_missing, macro_is_fresh]


def _model_checks(project: Project, model: Model) -> dg.AssetChecksDefinition:
    """The model's data tests, one check a kind: ``not_null`` of fourteen columns is one thing to look at, not fourteen.

    It also is one event to store; Dagster's bookkeeping of a check takes longer than the check.
    """
    key = dg.AssetKey([model.schema, model.name])
    kinds = _by_kind(project.tests_of(model))
    specs = [
        dg.AssetCheckSpec(name=kind, asset=key, description=_described(tests), blocking=tests[0].severity == "error")
        for kind, tests in kinds.items()
    ]

    @dg.multi_asset_check(name=f"data_tests_of_{model.name}", specs=specs)
    @ends_in_failure
    def data_tests(settings: dg.ResourceParam[Settings]) -> Iterator[dg.AssetCheckResult]:
        with session(settings) as con:
            failing = _count_failing(con, project, project.tests_of(model))
            for kind, tests in kinds.items():
                broken = [test for test in tests if failing[test.name]]
                rows = sum(failing[test.name] for test in broken)
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=kind,
                    passed=not broken,
                    severity=_severity(tests),
                    description="; ".join(f"{test.name}: {failing[test.name]} rows" for test in broken) or None,
                    metadata={"failing_rows": rows, **_shown(con, project, broken)},
                )

    return data_tests


def _by_kind(tests: Sequence[DataTest]) -> dict[str, list[DataTest]]:
    """Tests by the name of their check: the generic test's, with its severity where that only warns, or their own."""

    def kind(test: DataTest) -> str:
        name = test.macro.removeprefix("test_") if test.macro else test.name
        return f"{name}_warn" if test.macro and test.severity == "warn" else name

    return {name: list(group) for name, group in groupby(sorted(tests, key=kind), key=kind)}


def _described(tests: Sequence[DataTest]) -> str:
    told = "; ".join(dict.fromkeys(test.description for test in tests if test.description))
    columns = ", ".join(test.column for test in tests if test.column)
    return told or (f"Columns {columns}." if columns else f"{tests[0].name} of {tests[0].model}.")


def _severity(tests: Sequence[DataTest]) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if tests[0].severity == "error" else dg.AssetCheckSeverity.WARN


def _count_failing(con: duckdb.DuckDBPyConnection, project: Project, tests: Sequence[DataTest]) -> dict[str, int]:
    """Failing rows of each test, all in one query."""
    counts = " union all ".join(
        f"select ? as test, count(*) as failing from ({project.render_test(test)})"  # noqa: S608 - the folder's own SQL
        for test in tests
    )
    return dict(con.execute(counts, [test.name for test in tests]).fetchall())


def _shown(con: duckdb.DuckDBPyConnection, project: Project, broken: Sequence[DataTest]) -> dict[str, Any]:
    """The first rows that each broken test finds."""
    tables = [
        f"**{test.name}**\n\n"
        + con.execute(project.render_test(test)).df().head(SHOWN_ROWS).astype(str).to_markdown(index=False)
        for test in broken
    ]
    return {"first_rows": dg.MetadataValue.md("\n\n".join(tables))} if tables else {}


def _look_ahead_checks(project: Project, strategies: Sequence[Strategy[Any]]) -> dg.AssetChecksDefinition:
    checked = {signal_key(strategy): strategy for strategy in strategies}
    specs = [
        dg.AssetCheckSpec(
            name="does_not_look_ahead",
            asset=key,
            description="The newest decisions, computed again from rows known at their time alone, stay as stored.",
            blocking=True,
        )
        for key in checked
    ]

    @dg.multi_asset_check(name="signals_do_not_look_ahead", specs=specs, can_subset=True)
    @ends_in_failure
    def signals_do_not_look_ahead(
        context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        for key in sorted(check.asset_key for check in context.selected_asset_check_keys):
            yield look_ahead_result(settings, project, checked[key])

    return signals_do_not_look_ahead


def look_ahead_result(settings: Settings, project: Project, strategy: Strategy[Any]) -> dg.AssetCheckResult:
    """Recompute the newest stored decisions on history cut at their own time and compare."""
    days = _newest_days(settings, strategy)
    difference = _first_look_ahead(settings, project, strategy, days) if days else ""
    return dg.AssetCheckResult(
        asset_key=signal_key(strategy),
        check_name="does_not_look_ahead",
        passed=not difference,
        description=f"on rows known then, {difference}" if difference else None,
        metadata={"days_computed_again": len(days)},
    )


def _newest_days(settings: Settings, strategy: Strategy[Any]) -> list[date]:
    """The newest days that have decisions, oldest first."""
    query = f"select distinct date from {signal_table(strategy).qualified} order by date desc limit {AUDITED_DAYS}"  # noqa: S608 - constants
    with session(settings) as con:
        return [day for (day,) in con.execute(query).fetchall()][::-1]


def _first_look_ahead(settings: Settings, project: Project, strategy: Strategy[Any], days: Sequence[date]) -> str:
    """What differs first between the stored decisions and those of the same rules on the rows known then."""
    window = Slice(midnight(days[0]), midnight(days[-1]) + ONE_DAY)
    market = read_market(settings, strategy, project, window)
    (stored,) = read_tables(settings, [(signal_table(strategy), [window])])
    for day in days:
        expected = stored[stored["date"].dt.date == day].sort_values(["timestamp", "asset"], ignore_index=True)
        known = market.known_at(expected["timestamp"].max())
        difference = first_difference(expected, decide(strategy, known, day, day + ONE_DAY, checked=False))
        if difference:
            return difference
    return ""


@dg.asset_check(
    asset=dg.AssetKey(["marts", "macro_daily"]),
    description="Every configured series has a value for the last days that is not stale.",
)
def macro_is_fresh(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Warn about series that FRED stopped updating, or that nobody pulled."""
    oldest = datetime.now(UTC).date() - MACRO_MAY_REST
    with session(settings) as con:
        found = {row[0]: row[1:] for row in con.execute(NEWEST_MACRO).fetchall()}
    problems = [f"{name}: never pulled" for name in settings.macro_indicators if name not in found]
    for name, (newest, observed, stale) in sorted(found.items()):
        if stale:
            problems.append(f"{name}: newest observation {observed}")
        elif newest < oldest:
            problems.append(f"{name}: not computed since {newest}")
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(problems) or None,
        metadata={"series": len(found)},
    )


@dg.asset_check(
    asset=dg.AssetKey(["raw", "funding_rates"]),
    description=f"Of the newest {FUNDING_DAYS} days, no settlement of an instrument is missing; its interval comes "
    "from its own settlements, and may change.",
)
@ends_in_failure
def no_settlement_is_missing(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Warn about settlements that a venue did not give, or that nobody pulled."""
    with session(settings) as con:
        gaps = funding_gaps(con)
    missing = sum(gap.missing for *_, gap in gaps)
    return dg.AssetCheckResult(
        passed=not gaps,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"settlements missing: {missing}, the first {_told_of_gap(*gaps[0])}; pull these days again"
        if gaps
        else None,
        metadata={"missing_settlements": missing, **_listed_gaps(gaps)},
    )


def funding_gaps(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str, SettlementGap]]:
    """Coin, venue, symbol and place of what is missing of the newest settlements, oldest first."""
    found = [
        (coin, venue, symbol, gap)
        for coin, venue, symbol, settled_ms, until_ms in con.execute(SETTLEMENTS).fetchall()
        for gap in settlement_gaps(settled_ms, until_ms)
    ]
    return sorted(found, key=lambda entry: entry[3].after_ms)


def _told_of_gap(coin: str, venue: str, symbol: str, gap: SettlementGap) -> str:
    after = _moment(gap.after_ms)
    place = f"since {after}" if gap.before_ms is None else f"between {after} and {_moment(gap.before_ms)}"
    return f"of {coin} ({symbol} at {venue}) {place}"


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _listed_gaps(gaps: Sequence[tuple[str, str, str, SettlementGap]]) -> dict[str, Any]:
    """The first gaps, oldest first."""
    lines = [f"- {_told_of_gap(*found)}: {found[3].missing}" for found in gaps[:SHOWN_GAPS]]
    return {"gaps": dg.MetadataValue.md("\n".join(lines))} if lines else {}
