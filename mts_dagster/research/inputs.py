"""What a backtest reads: bars, funding and decisions, all from one snapshot of the lake.

What belongs here: reads, and their form for the engine. Decisions are made anew from the features with the config that
is asked for; those of the portfolio are the stored ones, since they rest on all that was decided before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import duckdb
import pandas as pd

from mts_dagster.backtest.config import Assumptions
from mts_dagster.errors import LakeError, UsageError
from mts_dagster.lake.read import read_slices
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.snapshots import last_change
from mts_dagster.lake.text import one_line
from mts_dagster.research.subject import Subject
from mts_dagster.schemas import AggregatedSignals, FundingRates, Table, table_of
from mts_dagster.sql_models import Project
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import suggestion
from mts_dagster.strategies.decisions import decide
from mts_dagster.strategies.market import Market

BARS = "ohlcv_daily"
ONE_DAY = timedelta(days=1)
WARM_UP = timedelta(days=7)  # of the bars: their interval, and the close before the first open


@dataclass(frozen=True)
class Inputs:
    """What one backtest is made of.

    Attributes:
        bars: as ``backtest.market.market_from_frames`` takes them.
        funding: likewise.
        signals: as ``backtest.signals.commands_from_signals`` takes them.
        market: The tables that the strategy saw; empty for the portfolio.
        without_bars: Assets of the config that have no bar in the window and are left out.
        undecided_days: Days of an asset in the window with a bar but without a decision.
        state: The snapshot in which one of the tables read last changed.
    """

    bars: pd.DataFrame
    funding: pd.DataFrame
    signals: pd.DataFrame
    market: Market
    without_bars: tuple[str, ...]
    undecided_days: int
    state: int


def read_inputs(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    subject: Subject,
    window: Slice,
    assumptions: Assumptions,
    snapshot: int,
) -> Inputs:
    """Read all that a backtest of ``subject`` over ``window`` needs.

    Raises:
        UsageError: there is no bar, or no decision, in the window.
        StrategyError: the strategy cannot decide on what is there.
        LakeError: the snapshot cannot be read as today's contracts say.
    """
    try:
        return _read(con, project, subject, window, assumptions, snapshot)
    except duckdb.Error as error:
        raise LakeError(f"snapshot {snapshot} of the lake cannot be read: {one_line(error)}") from error


def _read(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    subject: Subject,
    window: Slice,
    assumptions: Assumptions,
    snapshot: int,
) -> Inputs:
    bars = read_bars(con, project, replace(window, start=window.start - WARM_UP), snapshot)
    inside = bars[(bars["open_time"] >= window.start) & bars["asset"].isin(subject.assets)]
    traded = sorted(inside["asset"].unique())
    if not traded:
        raise UsageError(_nothing_there(con, project, subject, window, snapshot))
    bars = bars[bars["asset"].isin(traded)]
    market, signals = read_decisions(con, project, subject, window, snapshot)
    signals = signals[signals["asset"].isin(traded)]
    if signals.empty:
        raise UsageError(
            f"no decision of {subject.name} between {window}: run `mts signals` for these days and those before"
        )
    decided = pd.MultiIndex.from_frame(signals[["date", "asset"]])
    days = pd.MultiIndex.from_arrays(
        [inside["open_time"].dt.tz_localize(None).astype("datetime64[ns]"), inside["asset"]]
    )
    return Inputs(
        bars=bars,
        funding=read_funding(con, traded, replace(window, start=window.start - ONE_DAY), assumptions, snapshot),
        signals=signals,
        market=market,
        without_bars=tuple(asset for asset in subject.assets if asset not in traded),
        undecided_days=len(days.difference(decided)),
        state=last_change(con, [table.qualified for table in tables_read(project, subject)]),
    )


def tables_read(project: Project, subject: Subject) -> list[Table]:
    """Tables that a backtest of ``subject`` reads."""
    decided = (
        [table_of(AggregatedSignals)]
        if subject.strategy is None
        else [project.models[name].table() for name in subject.strategy.inputs]
    )
    return [project.models[BARS].table(), *decided, table_of(FundingRates)]


def read_bars(con: duckdb.DuckDBPyConnection, project: Project, window: Slice, snapshot: int) -> pd.DataFrame:
    """Daily bars of all coins in the engine's columns."""
    frame = read_slices(con, project.models[BARS].table(), [window], snapshot=snapshot)
    return frame.rename(columns={"coin": "asset"}).assign(open_time=frame["date"].dt.tz_localize("UTC"))[
        ["open_time", "asset", "open", "high", "low", "close", "volume_base", "available_at"]
    ]


def read_decisions(
    con: duckdb.DuckDBPyConnection, project: Project, subject: Subject, window: Slice, snapshot: int
) -> tuple[Market, pd.DataFrame]:
    """What the strategy is shown, and its decisions from the close before the window on."""
    decided = replace(window, start=window.start - ONE_DAY)
    if subject.strategy is None:
        stored = read_slices(con, table_of(AggregatedSignals), [decided], snapshot=snapshot)
        return Market({}), stored[stored["asset"].isin(subject.assets)]
    market = read_market(con, project, subject.strategy, decided, snapshot)
    return market, decide(subject.strategy, market, decided.start.date(), decided.end.date())


def read_market(
    con: duckdb.DuckDBPyConnection, project: Project, strategy: Strategy[Any], window: Slice, snapshot: int
) -> Market:
    """The strategy's input tables, from its lookback before the window on."""
    shown = replace(window, start=window.start - timedelta(days=strategy.lookback_days))
    return Market(
        {name: read_slices(con, project.models[name].table(), [shown], snapshot=snapshot) for name in strategy.inputs}
    )


def read_funding(
    con: duckdb.DuckDBPyConnection, assets: Sequence[str], window: Slice, assumptions: Assumptions, snapshot: int
) -> pd.DataFrame:
    """Regular settlements of the venue on which each asset trades: ``binance`` for ``binance_usdm``."""
    frame = read_slices(con, table_of(FundingRates), [replace(window, members=tuple(assets))], snapshot=snapshot)
    venues = {asset: assumptions.instrument(asset).venue.partition("_")[0] for asset in assets}
    ours = frame[(frame["coin"].map(venues) == frame["venue"]) & (frame["kind"] == "regular")]
    return ours.rename(columns={"coin": "asset"})[["settled_at", "asset", "funding_rate"]]


def require_assets(con: duckdb.DuckDBPyConnection, project: Project, assets: Sequence[str]) -> None:
    """Make sure that the lake has bars of each asset.

    Raises:
        UsageError: it has none of one; the message suggests a name.
    """
    rows = con.execute(f"select distinct coin from {project.models[BARS].table().qualified} order by 1").fetchall()  # noqa: S608 - our model's name
    known = {coin: None for (coin,) in rows}
    for asset in assets:
        if asset not in known:
            raise UsageError(f"the lake has no bars of {asset!r}: {suggestion(asset, known)}; collect it first")


def first_bar(con: duckdb.DuckDBPyConnection, project: Project, assets: Sequence[str]) -> date:
    """The first day of which the lake has a bar of one of the assets.

    Raises:
        UsageError: it has none.
    """
    places = ", ".join("?" for _ in assets)
    table = project.models[BARS].table().qualified
    row = con.execute(f"select min(date) from {table} where coin in ({places})", list(assets)).fetchone()  # noqa: S608 - our model's name
    if row is None or row[0] is None:
        raise UsageError(f"the lake has no daily bars of {', '.join(assets)}: collect them first")
    first: date = row[0]
    return first


def _nothing_there(
    con: duckdb.DuckDBPyConnection, project: Project, subject: Subject, window: Slice, snapshot: int
) -> str:
    """In words: no bars in the window, and which there are."""
    table = project.models[BARS].table().qualified
    places = ", ".join("?" for _ in subject.assets)
    first, last = con.execute(
        f"select min(date), max(date) from {table} at (version => {snapshot:d}) where coin in ({places})",  # noqa: S608 - our model's name
        list(subject.assets),
    ).fetchall()[0]
    held = f"the lake has them from {first} to {last}" if first else "the lake has none of them at all"
    return (
        f"no daily bars of {', '.join(subject.assets)} between {window}: {held}; collect the days first "
        "(mts collect --start ... --end ...)"
    )
