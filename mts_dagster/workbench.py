"""What the collecting commands do: choose partitions, run the jobs one after the other, show progress.

What belongs here: the order of runs and what is shown meanwhile. Each step is a Dagster run on the instance that the UI
shows, so whatever the command line did can be looked at, and repeated, there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import dagster as dg
from rich.console import Console

from mts_dagster.definitions import build_definitions
from mts_dagster.defs.realtime.sensors import was_ingested
from mts_dagster.errors import UsageError
from mts_dagster.instance.home import open_instance
from mts_dagster.live.watch import Memory, Rules, look
from mts_dagster.origin_guard import guard_origin
from mts_dagster.partitions import midnight
from mts_dagster.research.subject import all_subjects, tunable
from mts_dagster.runs import (
    Days,
    end_dead_runs,
    register_coins,
    registered_coins,
    run_days,
    run_hour,
    run_member_days,
    run_members,
    run_strategy_years,
)
from mts_dagster.settings import Settings, get_settings
from mts_dagster.sources.clients import Clients
from mts_dagster.tracked import tracked_coins


@dataclass
class Workbench:
    """Settings, definitions and instance of one command, and the console that it talks to."""

    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    console: Console

    @classmethod
    @contextmanager
    def open(cls, settings: Settings | None = None) -> Iterator[Self]:
        """Open the instance below ``MTS_HOME``; make it when it is not there yet."""
        settings = settings or get_settings()
        guard_origin(settings)
        with open_instance(settings) as instance:
            end_dead_runs(instance)
            yield cls(settings, build_definitions(settings), instance, Console(stderr=True))

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show what is going on, and how long it took."""
        started = time.monotonic()
        with self.console.status(f"{title} ..."):
            yield
        self.console.print(
            f"  [green]ok[/green] {title}  [dim]{time.monotonic() - started:.1f} s[/dim]", highlight=False
        )


def collect_market(bench: Workbench, days: Days, coins: Sequence[str] | None = None) -> None:
    """Rankings, price points, klines and funding of ``days``, then the bars made of them.

    Args:
        bench: where to run.
        days: days to pull again.
        coins: CoinGecko ids; None for all tracked coins and the ranking's top.

    Raises:
        UsageError: CoinGecko does not know a coin.
    """
    bench.console.print(f"market history, {days} ({len(days)} days)", highlight=False)
    with bench.step("coin_universe"):
        run_days(bench.definitions, bench.instance, "universe", days)
    if coins is not None:
        _check_coins(bench, coins)
    for coin in coins or registered_coins(bench.instance):
        with bench.step(f"price_points, klines, funding_rates of {coin}"):
            run_member_days(bench.definitions, bench.instance, "market", "coin", coin, days)
    with bench.step("SQL models: crypto_ohlcv, ohlcv_daily, features_daily, funding_daily"):
        run_days(bench.definitions, bench.instance, "market_models", days)


def collect_macro(bench: Workbench, days: Days, indicators: Sequence[str] | None = None) -> None:
    """Macro series of ``days``, then the daily calendar made of them.

    Raises:
        UsageError: an indicator is not configured.
        UnauthorisedError: there is no key for FRED.
    """
    configured = bench.settings.macro_indicators
    wanted = [name.upper() for name in indicators or configured]
    if unknown := [name for name in wanted if name not in configured]:
        raise UsageError(
            f"unknown indicator {', '.join(unknown)}; configured are {', '.join(configured)} "
            "(setting MTS_MACRO_INDICATORS)"
        )
    with Clients(bench.settings) as clients:
        _ = clients.fred  # without a key nothing needs to begin
    bench.console.print(f"macro series, {days} ({len(days)} days)", highlight=False)
    for indicator in wanted:
        with bench.step(f"macro_data of {indicator}"):
            run_member_days(bench.definitions, bench.instance, "macro", "indicator", indicator, days)
    with bench.step("SQL models: macro_daily"):
        run_days(bench.definitions, bench.instance, "macro_models", days)


def compute_signals(bench: Workbench, days: Days) -> None:
    """Features, the signals of all strategies, and the signal files of ``days``."""
    bench.console.print(f"signals, {days} ({len(days)} days)", highlight=False)
    with bench.step("features_daily, strategies, trading_signals, signal files"):
        run_days(bench.definitions, bench.instance, "signals", days)


def run_backtests(bench: Workbench, first_year: int, last_year: int) -> None:
    """Backtests of all strategies over the years, the running one up to its last closed day, and their summary."""
    names = list(all_subjects(bench.settings))
    bench.console.print(f"backtests, {first_year} to {last_year} ({len(names)} strategies)", highlight=False)
    with bench.step("backtests, backtest_summary"):
        corners = names[0], names[-1]
        run_strategy_years(bench.definitions, bench.instance, "backtests", corners, first_year, last_year)


def run_walk_forward(bench: Workbench) -> None:
    """Walk the parameters of all strategies forward over all history."""
    names = tunable(all_subjects(bench.settings))
    with bench.step("walk_forward"):
        run_members(bench.definitions, bench.instance, "walk_forward", names[0], names[-1])


def ingest_landing(bench: Workbench) -> int:
    """Bring every hour of the landing folder into the lake that no run has brought in yet; return how many.

    It decides as the landing sensor does, but waits for nothing: the running hour is taken as far as it is written.
    """
    rules = Rules(
        most=sys.maxsize, pause=timedelta(0), settle=timedelta(0), first=midnight(bench.settings.stream_start)
    )
    found = look(bench.settings.landing_dir, Memory(), datetime.now(UTC), rules)
    due = [hour for hour in found.due if not was_ingested(bench.instance, hour.content)]
    bench.console.print(f"live data, {len(due)} hour(s) of {bench.settings.landing_dir}", highlight=False)
    for hour in due:
        with bench.step(f"{hour.hour:%Y-%m-%d %H:00} UTC, {hour.segments} segments"):
            run_hour(bench.definitions, bench.instance, hour.hour, hour.content)
    return len(due)


def _check_coins(bench: Workbench, coins: Sequence[str]) -> None:
    """Accept coins that have partitions or that the settings track; ask CoinGecko about the others."""
    known = {*registered_coins(bench.instance), *tracked_coins(bench.settings)}
    with Clients(bench.settings) as clients:
        for coin in coins:
            if coin not in known:
                clients.coingecko.require_coin(coin)
    register_coins(bench.instance, coins)
