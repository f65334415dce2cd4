"""The whole chain in process, from invented markets over HTTP to signal files: what is stored, and what never is."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mts_dagster.defs.quality.checks import build_checks
from mts_dagster.defs.resources import build_resources
from mts_dagster.defs.signals.assets import signal_table
from mts_dagster.defs.sql_models.assets import project_of
from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.instance.home import open_instance
from mts_dagster.lake import write
from mts_dagster.lake.provenance import origin_of_rows
from mts_dagster.lake.shared import session
from mts_dagster.runs import Days, RunFailedError, run_days
from mts_dagster.strategies.registry import load_strategies
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals
from mts_simulator.faults import Fault
from tests.conftest import simulated_settings

from .conftest import HISTORY, LAST, SIGNAL_DAYS, World, days_back, everything, settings_of

pytestmark = pytest.mark.xdist_group("shell")

COINS = ["binancecoin", "bitcoin", "ethereum", "tether"]
STRATEGIES = [
    "buy_hold",
    "funding_arbitrage",
    "market_structure",
    "mean_reversion",
    "momentum",
    "spread_arbitrage",
    "vix_correlation",
    "volume_spike",
]
SOME_DAYS = Days(LAST - timedelta(days=2), LAST)


# What a collection leaves behind


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("raw.coin_universe", 51 * 4),
        ("raw.klines", 51 * 3 * 25),
        ("raw.funding_rates", 51 * 3 * 2 * 3),
        ("marts.crypto_ohlcv", 51 * 4 * 24 - 1),
        ("marts.ohlcv_daily", 51 * 4 - 1),
        ("marts.features_daily", 51 * 4 - 1),
        ("marts.funding_daily", 51 * 3),
        ("signals.trading_signals", 11 * 3 * 8),
    ],
)
def test_every_day_has_its_rows(filled: World, table: str, rows: int) -> None:
    """51 days, 4 coins of which 3 have perpetuals, settled by 2 venues 3 times a day, 8 strategies over 11 days.

    The last hour of a coin that has samples alone is not over before a later sample says so.
    """
    assert filled.rows(f"select count(*) from {table}") == [(rows,)]


def test_no_table_is_empty(filled: World) -> None:
    """Every contract and every model has rows after one collection; live data is the sidecar's to fill in."""
    tables = filled.rows(
        "select schema_name || '.' || table_name from duckdb_tables() "
        "where database_name = 'lake' and schema_name not in ('live', 'backtests') "
        "and table_name not in ('arbitrage_daily', 'market_structure_daily')"
    )
    assert [name for (name,) in tables if filled.rows(f"select count(*) from {name}") == [(0,)]] == []


def test_a_coin_without_a_perpetual_lives_on_samples(filled: World) -> None:
    """Tether has prices and bars, no candles, and nothing failed."""
    assert filled.rows("select count(*) from raw.klines where coin = 'tether'") == [(0,)]
    assert filled.rows("select distinct source, ohlc_method from marts.crypto_ohlcv where coin = 'tether'") == [
        ("coingecko", "sampled")
    ]


def test_the_first_venue_answers_everything(filled: World) -> None:
    """Bybit is asked for what Binance lacks, and it lacks nothing."""
    assert filled.rows("select distinct venue from raw.klines") == [("binance",)]


def test_the_first_day_of_funding_knows_its_interval(filled: World) -> None:
    """It comes from a settlement of the day before, which is not stored."""
    assert filled.rows("select distinct interval_hours from raw.funding_rates") == [(8.0,)]
    assert filled.rows("select min(settled_at) from raw.funding_rates") == [(datetime(2024, 1, 1, tzinfo=UTC),)]


def test_a_day_filled_in_later_ranks_the_tracked_coins(filled: World) -> None:
    """CoinGecko tells no ranking of the past, and the rows say so."""
    assert filled.rows("select distinct ranking_source from raw.coin_universe") == [("tracked_coins",)]
    assert filled.rows("select coin from raw.coin_universe where date = '2024-02-20' order by coin") == [
        (coin,) for coin in COINS
    ]


def test_rows_lead_to_their_run(filled: World) -> None:
    """From a stored row to a run of this instance that succeeded and that says which partitions it had."""
    with session(filled.settings) as con:
        (origin,) = origin_of_rows(con, "klines", "coin = 'bitcoin' and open_time = '2024-02-20'")
    assert origin.origin is not None
    assert origin.origin.asset == "raw/klines"
    assert origin.origin.partitions == "bitcoin|2024-01-01...bitcoin|2024-02-20 (51 partitions)"
    with open_instance(filled.settings) as instance:
        run = instance.get_run_by_id(origin.origin.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.SUCCESS


def test_signal_files_have_the_published_shape(filled: World) -> None:
    """A file a day, the newest again as latest.json, with the members that readers rely on."""
    folder = filled.settings.signal_folder
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["latest.json", *(f"signals_2024-02-{day}.json" for day in range(10, 21))]
    document = json.loads((folder / "signals_2024-02-20.json").read_text())
    assert list(document) == ["timestamp", "signals", "market_context"]
    assert document["timestamp"] >= "2024-02-21T00:01:00Z"
    assert set(document["market_context"]) == {"vix_level", "correlation_btc_vix"}
    assert 5 < document["market_context"]["vix_level"] < 100
    wanted = {"strategy", "asset", "signal", "confidence", "position_size", "risk_level"}
    assert all(wanted <= set(signal) for signal in document["signals"])
    assert {signal["signal"] for signal in document["signals"]} <= {"LONG", "SHORT", "FLAT"}
    assert sorted({signal["strategy"] for signal in document["signals"]}) == ["aggregate", *STRATEGIES]
    assert (folder / "latest.json").read_text() == (folder / "signals_2024-02-20.json").read_text()


def test_the_union_is_what_the_strategies_said(filled: World) -> None:
    """No decision is lost or changed on the way into trading_signals."""
    parts = " union all ".join(f"select * from signals.{name}_signals" for name in STRATEGIES)
    assert filled.rows(f"({parts}) except all from signals.trading_signals") == []
    assert filled.rows(f"from signals.trading_signals except all ({parts})") == []


# Doing it again


def test_doing_it_again_changes_no_row(copied: World) -> None:
    """The last days pulled and computed anew: every table holds the same rows as before."""
    with session(copied.settings) as con:
        before = everything(con)

    def again(bench: Workbench) -> None:
        collect_macro(bench, SOME_DAYS)
        collect_market(bench, SOME_DAYS)
        compute_signals(bench, SOME_DAYS)

    copied.run(again)
    with session(copied.settings) as con:
        after = everything(con)
    assert {name: len(rows) for name, rows in after.items()} == {name: len(rows) for name, rows in before.items()}
    assert [name for name in before if after[name] != before[name]] == []


def test_a_live_ranking_of_a_past_day_is_kept(copied: World) -> None:
    """It cannot be had again; materialising the day once more must not overwrite it with a poorer one."""
    copied.write("delete from raw.coin_universe where date = '2024-02-19'")
    copied.write(
        "insert into raw.coin_universe select * replace (date '2024-02-19' as date, 'live_ranking' as ranking_source, "
        "'Frozen' as name) from raw.coin_universe where date = '2024-02-20' and coin = 'bitcoin'"
    )
    copied.run(lambda bench: collect_market(bench, SOME_DAYS, coins=["bitcoin"]))
    query = "select name, ranking_source from raw.coin_universe where date = ? order by all"
    assert copied.rows(query, [date(2024, 2, 19)]) == [("Frozen", "live_ranking")]
    assert {source for _, source in copied.rows(query, [date(2024, 2, 20)])} == {"tracked_coins"}


def test_today_is_ranked_live(empty: World) -> None:
    """And the coins that it brings get partitions and bars."""
    empty.run(lambda bench: collect_market(bench, days_back(1), coins=["bitcoin"]))
    rows = empty.rows("select coin, ranking_source from raw.coin_universe where in_universe order by rank")
    assert [source for _, source in rows] == ["live_ranking"] * 3
    assert rows[0][0] == "bitcoin"


# Faults of the sources


def test_a_broken_source_leaves_stored_rows(copied: World) -> None:
    """An HTML page in place of one coin's prices: the run fails in one line that names it, and nothing changes."""
    copied.simulator.faults.add(Fault("html", "coingecko_pro", "/coins/bitcoin/*", times=None))
    with session(copied.settings) as con:
        before = everything(con)
    with pytest.raises(RunFailedError, match=r"failed: coingecko bitcoin .* \(run [0-9a-f-]{36}\)$") as caught:
        copied.run(lambda bench: collect_market(bench, SOME_DAYS, coins=["bitcoin"]))
    assert "\n" not in str(caught.value)
    with session(copied.settings) as con:
        assert everything(con) == before


def test_an_outage_does_not_empty_what_is_stored(copied: World) -> None:
    """Status 500 on one coin: the public host stands in, which keeps one year; older rows are not replaced by none."""
    copied.simulator.faults.add(Fault("status", "coingecko_pro", "/coins/bitcoin/*", times=None, status=500))
    with pytest.raises(RunFailedError, match=r"refusing to replace 12 stored rows .* by none; nothing changed"):
        copied.run(lambda bench: collect_market(bench, SOME_DAYS, coins=["bitcoin"]))
    assert copied.rows("select count(*) from raw.coin_universe") == [(51 * 4,)]


def test_the_second_venue_fills_in(empty: World) -> None:
    """Binance refuses the country: all candles are Bybit's, and the run says why."""
    empty.simulator.faults.add(Fault("status", "binance", times=None, status=451))
    empty.run(lambda bench: collect_market(bench, SOME_DAYS, coins=["bitcoin"]))
    assert empty.rows("select distinct venue from raw.klines") == [("bybit",)]
    assert empty.rows("select distinct source from marts.crypto_ohlcv where coin = 'bitcoin'") == [("bybit",)]
    with open_instance(empty.settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["raw", "klines"]))
    assert event is not None
    assert event.asset_materialization is not None
    assert "binance" in str(event.asset_materialization.metadata["not_covered"].value)


def test_an_unknown_coin_is_refused_in_one_line(copied: World) -> None:
    """CoinGecko was asked, and nothing was pulled for it."""
    with pytest.raises(Exception, match="there is no coin 'no-such-coin'"):
        copied.run(lambda bench: collect_market(bench, SOME_DAYS, coins=["no-such-coin"]))
    with open_instance(copied.settings) as instance:
        assert "no-such-coin" not in instance.get_dynamic_partitions("coin")


def test_an_unknown_indicator_is_refused(copied: World) -> None:
    """The configured ones are named, with the setting."""
    with pytest.raises(UsageError, match=r"unknown indicator GDPX; configured are VIXCLS, .*MTS_MACRO_INDICATORS"):
        copied.run(lambda bench: collect_macro(bench, SOME_DAYS, ["gdpx"]))


# Strategies


OWN = '''"""A third-party strategy."""

from __future__ import annotations

import pandas as pd

from mts_dagster.strategies import Market, Rule, Strategy, StrategyConfig


class AlwaysLongConfig(StrategyConfig):
    size: float = 0.05


class AlwaysLong(Strategy[AlwaysLongConfig]):
    """Holds a little of everything."""

    name = "always_long"

    def analyse(self, market: Market) -> pd.DataFrame:
        return market.table("features_daily", ["date", "coin", "available_at", "close_usd"])

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        every = pd.Series(True, index=analysis.index)
        size = pd.Series(self.config.size, index=analysis.index)
        return self.first_match(
            analysis,
            [Rule(every, "long", "always")],
            otherwise="never",
            confidence=size,
            position_size=size,
            risk_level=pd.Series("low", index=analysis.index),
        )
'''


def test_a_strategy_of_ones_own_is_one_file(copied: World, tmp_path: Path) -> None:
    """Dropped into a folder of MTS_STRATEGY_FOLDERS it becomes an asset, a table and part of the union."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "always_long.py").write_text(OWN)
    (folder / "always_long.json").write_text('{"size": 0.07, "assets": ["bitcoin"]}')
    settings = simulated_settings(
        copied.simulator, copied.settings.home, coins=tuple(COINS), strategy_folders=(str(folder),)
    )
    world = World(copied.simulator, settings)
    world.run(lambda bench: compute_signals(bench, SOME_DAYS))
    assert world.rows("select distinct asset, direction, position_size from signals.always_long_signals") == [
        ("bitcoin", "long", 0.07)
    ]
    assert world.rows("select count(*) from signals.trading_signals where strategy = 'always_long'") == [(3,)]


A_DAY_OF_THE_STREAM = """
    create temp table seconds as
    select unnest(generate_series(timestamptz '2024-02-19', timestamptz '2024-02-19 23:59', interval 10 second)) as t;
    insert into live.market_structure by name
    select t as timestamp, exchange, 'BTCUSDT' as symbol, 'bitcoin' as coin, 1 as mid, 1 as micro_price,
        0.4 as imbalance, 1e6 as bid_depth_10bps_usd, 1e6 as ask_depth_10bps_usd, 50 as liquidity_score,
        t as available_at
    from seconds, (values ('binance'), ('bybit')) as exchanges(exchange);
    insert into live.arbitrage_opportunities by name
    select 'a' || epoch(t) as opportunity_id, 'spread' as kind, 'BTCUSDT' as symbol, 'bitcoin' as coin,
        'bybit' as buy_exchange, 'binance' as sell_exchange, t as opened_at, t + interval 2 second as expired_at,
        2000 as lifetime_ms, 2 as update_count, 'gone' as expired_reason, 3 as peak_net_bps, 14 as peak_gross_bps,
        5 as peak_net_usd, 1 as peak_size_base, 1 as peak_buy_price, 1 as peak_sell_price, 0.5 as confidence,
        true as feasible, 1 as net_bps_after_1000ms, t + interval 2 second as available_at
    from seconds where minute(t) % 30 = 0 and second(t) = 0;
"""


def test_a_day_of_the_stream_becomes_decisions(copied: World) -> None:
    """Stored hours of live data make a day of each model, and the strategies decide on it; the next day is flat."""
    with session(copied.settings, read_only=False) as con, write(con):
        con.execute(A_DAY_OF_THE_STREAM)
    copied.run(lambda bench: compute_signals(bench, SOME_DAYS))
    assert copied.rows("select coin, hours_covered, lasting_opportunities, net_sum_usd from marts.arbitrage_daily") == [
        ("bitcoin", 24.0, 48, 240.0)
    ]
    query = (
        "select date::varchar, direction, reason from signals.{}_signals "
        "where asset = 'bitcoin' and date >= '2024-02-19' order by date"
    )
    (spread, unseen) = copied.rows(query.format("spread_arbitrage"))
    assert spread[:2] == ("2024-02-19", "long")
    assert spread[2].startswith("buy bybit, sell binance: 48 of 48 spreads left an edge after a second")
    assert unseen == ("2024-02-20", "flat", "no two exchanges were seen on 2024-02-20")
    (books, _) = copied.rows(query.format("market_structure"))
    assert books[1] == "long"


def test_the_running_day_of_the_stream_has_no_row(copied: World) -> None:
    """Of a stream that reaches into today the models store the whole day before, and nothing that could stay half."""
    today = days_back(1).last
    with session(copied.settings, read_only=False) as con, write(con):
        con.execute(A_DAY_OF_THE_STREAM.replace("2024-02-19", str(today - timedelta(days=1))))
        con.execute("drop table seconds")
        con.execute(A_DAY_OF_THE_STREAM.replace("2024-02-19", str(today)))

    def build(bench: Workbench) -> None:
        run_days(bench.definitions, bench.instance, "sql_models", days_back(2))

    copied.run(build)
    for model in ("arbitrage_daily", "market_structure_daily"):
        assert copied.rows(f"select distinct date from marts.{model}") == [(today - timedelta(days=1),)]


def test_a_wrong_config_names_file_field_and_what_is_allowed(filled: World, tmp_path: Path) -> None:
    """Before anything runs."""
    folder = tmp_path / "configs"
    shutil.copytree(filled.settings.strategy_config_folder, folder)
    path = folder / "mean_reversion.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vix_above": -3}))
    settings = filled.settings.model_copy(update={"strategy_config_folder": folder})
    with pytest.raises(ConfigError, match=r"mean_reversion\.json: field 'vix_above': got -3, allowed: a number"):
        World(filled.simulator, settings).run(print)


# Checks: each is proven to fail once


def failed_checks(world: World) -> dict[str, str]:
    """Checks that fail on the stored rows as they are, and what they say."""
    project = project_of(world.settings)
    strategies = list(load_strategies(world.settings).values())
    definitions = dg.Definitions(
        asset_checks=build_checks(project, strategies),
        resources=build_resources(world.settings, project, [signal_table(strategy) for strategy in strategies]),
        jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
        executor=dg.in_process_executor,
    )
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("checks").execute_in_process(
            instance=instance, run_config=quiet, raise_on_error=False
        )
    return {
        f"{found.asset_key.path[-1]}.{found.check_name}": found.description or ""
        for found in result.get_asset_check_evaluations()
        if not found.passed
    }


def test_sound_rows_pass_all_blocking_checks(filled: World) -> None:
    """The lake ends in February 2024, in an hour of a sampled coin that is not over: two warnings, both right."""
    found = failed_checks(filled)
    assert found.pop("macro_daily.macro_is_fresh").startswith("DFF: not computed since 2024-02-20; ")
    assert found == {"coverage_daily.hours_are_not_missing": "hours_are_not_missing: 1 rows"}


SPOILED = {
    "crypto_ohlcv.bar_bounds_hold": "update marts.crypto_ohlcv set high = low - 1 "
    "where coin = 'bitcoin' and open_time = '2024-02-19'",
    "crypto_ohlcv.accepted_values": "update marts.crypto_ohlcv set source = 'ftx' "
    "where coin = 'bitcoin' and open_time = '2024-02-18'",
    "ohlcv_daily.not_known_before": "update marts.ohlcv_daily set available_at = available_at - interval 1 day "
    "where coin = 'bitcoin' and date = '2024-02-19'",
    "ohlcv_daily.daily_close_equals_last_hour": "update marts.ohlcv_daily set close = close * 0.99999 "
    "where coin = 'ethereum' and date = '2024-02-17'",
    "macro_daily.unique_grain": "insert into marts.macro_daily from marts.macro_daily "
    "where date = '2024-02-19' and indicator = 'DFF'",
    "macro_daily.macro_daily_has_every_day": "delete from marts.macro_daily "
    "where date = '2024-02-01' and indicator = 'VIXCLS'",
    "features_daily.features_cover_every_daily_bar": "delete from marts.features_daily "
    "where date = '2024-01-20' and coin = 'bitcoin'",
    "coverage_daily.hours_are_not_missing": "delete from marts.crypto_ohlcv "
    "where coin = 'bitcoin' and open_time = '2024-02-01 05:00:00Z'",
    "funding_rates.no_settlement_is_missing": "delete from raw.funding_rates "
    "where coin = 'bitcoin' and venue = 'bybit' and settled_at = '2024-02-10 08:00:00Z'",
    "momentum_signals.does_not_look_ahead": "update signals.momentum_signals set direction = 'short', "
    "position_size = 0.5, confidence = 0.5 where asset = 'bitcoin' and date = '2024-02-19'",
}
TOLD = {
    "crypto_ohlcv.bar_bounds_hold": "bar_bounds_hold_crypto_ohlcv: 1 rows",
    "crypto_ohlcv.accepted_values": "accepted_values_crypto_ohlcv_source: 1 rows",
    "ohlcv_daily.not_known_before": "not_known_before_ohlcv_daily: 1 rows",
    "ohlcv_daily.daily_close_equals_last_hour": "daily_close_equals_last_hour: 1 rows",
    "macro_daily.unique_grain": "unique_grain_macro_daily: 1 rows",
    "macro_daily.macro_daily_has_every_day": "macro_daily_has_every_day: 2 rows",
    "features_daily.features_cover_every_daily_bar": "features_cover_every_daily_bar: 1 rows",
    "coverage_daily.hours_are_not_missing": "hours_are_not_missing: 2 rows",
    "funding_rates.no_settlement_is_missing": "settlements missing: 1, the first of bitcoin (BTCUSDT at bybit) "
    "between 2024-02-10 00:00 and 2024-02-10 16:00; pull these days again",
    "momentum_signals.does_not_look_ahead": "on rows known then, the decision on bitcoin at 2024-02-20 00:01:00 UTC "
    "changes from short (confidence 0.5, size 0.5, ",
}


@pytest.fixture(scope="module")
def spoiled(filled: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Failed checks of a lake in which one row a kind was made wrong."""
    home = tmp_path_factory.mktemp("spoiled") / "home"
    shutil.copytree(filled.settings.home, home)
    world = World(filled.simulator, settings_of(filled.simulator, home))
    for statement in SPOILED.values():
        world.write(statement)
    return failed_checks(world)


@pytest.mark.parametrize("check", SPOILED)
def test_each_check_finds_the_row_that_is_wrong(spoiled: dict[str, str], check: str) -> None:
    """It names the test, or the decision, and how many rows."""
    assert spoiled[check].startswith(TOLD[check])


def test_a_missing_value_is_found(copied: World) -> None:
    """The column may not be null in the contract; a lake from elsewhere may hold it all the same."""
    copied.write("alter table marts.crypto_ohlcv alter column source drop not null")
    copied.write("update marts.crypto_ohlcv set source = null where open_time = '2024-02-20' and coin = 'bitcoin'")
    project = project_of(copied.settings)
    (not_null,) = [test for test in project.tests if test.name == "not_null_crypto_ohlcv_source"]
    assert len(copied.rows(project.render_test(not_null))) == 1


def test_a_failed_check_stops_what_stands_below(copied: World) -> None:
    """Wrong bars give no signals: the run ends with the check's own words, and the old signals stay."""
    copied.write("update signals.trading_signals set reason = 'as it was' where date = '2024-02-20'")
    copied.write("update marts.ohlcv_daily set high = low / 2 where coin = 'bitcoin' and date = '2024-01-15'")
    with pytest.raises(RunFailedError, match=r"marts/ohlcv_daily fails its check bar_bounds_hold \(1 failing rows\)"):
        copied.run(lambda bench: compute_signals(bench, Days(LAST, LAST)))
    assert copied.rows("select distinct reason from signals.trading_signals where date = '2024-02-20'") == [
        ("as it was",)
    ]


def test_times_are_utc(filled: World) -> None:
    """Bars begin on whole hours of UTC, and a decision follows its bar's close."""
    first, last = filled.rows("select min(open_time), max(open_time) from marts.crypto_ohlcv")[0]
    assert (first, last) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 20, 23, tzinfo=UTC))
    assert filled.rows(
        "select count(*) from signals.trading_signals where timestamp < timezone('UTC', (date + 1)::timestamp)"
    ) == [(0,)]


def test_the_window_of_the_signals_is_the_one_asked_for(filled: World) -> None:
    """No decision outside of it."""
    assert filled.rows("select min(date)::varchar, max(date)::varchar from signals.trading_signals") == [
        SIGNAL_DAYS.keys
    ]
    assert len(HISTORY) == 51
