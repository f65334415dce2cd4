"""What Dagster loads: it is whole, it is described, and its partitions fit together."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mts_dagster.definitions import build_definitions
from mts_dagster.settings import REPOSITORY, load_settings

BIN = Path(sys.executable).parent
ASSETS = [
    "backtests/backtest_summary",
    "backtests/backtests",
    "backtests/walk_forward",
    "live/arbitrage_opportunities",
    "live/bid_ask_spreads",
    "live/live_funding",
    "live/live_opportunities",
    "live/live_signals",
    "live/live_tickers",
    "live/market_structure",
    "live/order_book",
    "live/stream_gaps",
    "marts/arbitrage_daily",
    "marts/coverage_daily",
    "marts/crypto_ohlcv",
    "marts/features_daily",
    "marts/funding_daily",
    "marts/macro_daily",
    "marts/market_structure_daily",
    "marts/ohlcv_daily",
    "marts/order_book_levels",
    "raw/coin_universe",
    "raw/funding_rates",
    "raw/klines",
    "raw/macro_data",
    "raw/price_points",
    "sidecar/segments",
    "signals/aggregated_signals",
    "signals/buy_hold_signals",
    "signals/funding_arbitrage_signals",
    "signals/market_structure_signals",
    "signals/mean_reversion_signals",
    "signals/momentum_signals",
    "signals/signal_files",
    "signals/spread_arbitrage_signals",
    "signals/trading_signals",
    "signals/vix_correlation_signals",
    "signals/volume_spike_signals",
    "staging/stg_coingecko__price_points",
    "staging/stg_exchanges__funding_rates",
    "staging/stg_exchanges__klines",
    "staging/stg_fred__macro_data",
]
SIDECAR = "sidecar/segments"  # external: nothing of it is made by Dagster
WHOLE = {"backtests/backtest_summary"}  # one row for each backtest, written as a whole
FILES_NOT_TABLES = {"signals/signal_files", SIDECAR}
JOBS = {
    "backtests",
    "expire_landing",
    "live_hours",
    "macro",
    "macro_models",
    "maintenance",
    "market",
    "market_models",
    "signals",
    "sql_models",
    "universe",
    "walk_forward",
}
SCHEDULES = {
    "universe_hourly": "universe",
    "market_hourly": "market",
    "macro_6_hourly": "macro",
    "sql_models_hourly": "sql_models",
    "signals_daily": "signals",
    "backtests_daily": "backtests",
    "walk_forward_weekly": "walk_forward",
    "maintenance_weekly": "maintenance",
    "expire_landing_daily": "expire_landing",
}
TICK = datetime(2024, 3, 1, 0, 45, tzinfo=UTC)


@cache
def definitions() -> dg.Definitions:
    return build_definitions(load_settings(fred_api_key="a" * 32))


@cache
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions().resolve_all_asset_specs()}


def test_definitions_are_loadable() -> None:
    """Dagster's own validation: resources bound, keys unique, jobs resolvable."""
    dg.Definitions.validate_loadable(definitions())


def test_the_asset_keys_are_these() -> None:
    """Renaming an asset loses its history: it has to show in a review."""
    assert sorted(specs()) == ASSETS


@pytest.mark.parametrize("key", ASSETS)
def test_a_stranger_can_read_the_graph(key: str) -> None:
    """Every asset has group, owner, kinds, tags, a code version and a description that is a sentence."""
    spec = specs()[key]
    assert spec.group_name not in (None, "default")
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    assert "domain" in spec.tags
    assert spec.description
    assert spec.description.endswith(".")


@pytest.mark.parametrize("key", sorted(set(ASSETS) - FILES_NOT_TABLES))
def test_every_table_shows_its_columns(key: str) -> None:
    """Before the first materialisation already, each with type and description."""
    schema = dict(specs()[key].metadata)["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema | dg.TableSchemaMetadataValue)
    columns = schema.columns if isinstance(schema, dg.TableSchema) else schema.schema.columns
    assert columns
    assert [column.name for column in columns if not column.description or not column.type] == []


@pytest.mark.parametrize("key", sorted(set(ASSETS) - {SIDECAR}))
def test_every_partitioned_asset_takes_a_range_in_one_run(key: str) -> None:
    """Five years of history must not be 1,800 runs."""
    asset = definitions().resolve_assets_def(dg.AssetKey(key.split("/")))
    if asset.partitions_def is None:
        assert "view" in specs()[key].kinds or key in WHOLE
    else:
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


@pytest.mark.parametrize("key", [key for key in ASSETS if key.startswith("raw/")])
def test_what_fetches_is_retried_and_limited(key: str) -> None:
    """An outage passes; two runs must not spend one budget twice."""
    op = definitions().resolve_assets_def(dg.AssetKey(key.split("/"))).op
    assert op.retry_policy is not None
    assert op.pool


def test_every_sql_file_is_one_asset() -> None:
    """And every model asset has its file."""
    files = sorted(path.stem for path in (REPOSITORY / "dbt_like_sql" / "models").rglob("*.sql"))
    models = sorted(key.split("/")[1] for key, spec in specs().items() if spec.tags["domain"] == "models")
    assert models == files


def test_signals_wait_for_blocking_checks() -> None:
    """Every model states its grain as a blocking check, and every strategy is checked for look-ahead."""
    graph = definitions().resolve_asset_graph()
    checks: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
        if key.name in ("unique_grain", "not_null", "does_not_look_ahead"):
            assert graph.get_check_spec(key).blocking
    models = [key for key, spec in specs().items() if spec.tags["domain"] == "models"]
    strategies = [key for key, spec in specs().items() if "strategy" in spec.tags]
    assert [key for key in models if "unique_grain" not in checks[key]] == []
    assert [key for key in strategies if "does_not_look_ahead" not in checks[key]] == []


def test_jobs_and_schedules_are_these() -> None:
    """Each schedule starts its job, in UTC, and runs without being switched on by hand."""
    found = {
        schedule.name: schedule
        for schedule in definitions().schedules or []
        if isinstance(schedule, dg.ScheduleDefinition)
    }
    assert {name: schedule.job_name for name, schedule in found.items()} == SCHEDULES
    assert {schedule.execution_timezone for schedule in found.values()} == {"UTC"}
    assert {schedule.default_status for schedule in found.values()} == {dg.DefaultScheduleStatus.RUNNING}
    assert {job.name for job in definitions().resolve_all_job_defs() if not job.name.startswith("__")} == JOBS


def test_the_sensor_starts_the_job_of_the_hours() -> None:
    """It runs without being switched on by hand, and no job of days has an asset of hours in it."""
    (sensor,) = definitions().sensors or []
    assert sensor.job_name == "live_hours"
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    hours = {key for key in ASSETS if key.startswith("live/")}
    selected = {job: job_assets(job) for job in JOBS - {"maintenance", "expire_landing"}}
    assert selected.pop("live_hours") == hours
    assert [job for job, keys in selected.items() if keys & hours] == []


def job_assets(job: str) -> set[str]:
    keys = definitions().resolve_job_def(job).asset_layer.executable_asset_keys
    return {key.to_user_string() for key in keys}


def test_the_sidecar_is_the_origin_of_what_lands() -> None:
    """It is external, and everything live leads back to it."""
    graph = definitions().resolve_asset_graph()
    origin = graph.get(dg.AssetKey(SIDECAR.split("/")))
    assert not origin.is_materializable
    landed = {key.to_user_string() for key in origin.child_keys}
    derived = {"live/arbitrage_opportunities", "live/bid_ask_spreads", "live/market_structure"}
    assert landed | derived == {key for key in ASSETS if key.startswith("live/")}


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_job_resolves(job: str) -> None:
    """A selection that fits no asset fails here and not at three in the morning."""
    assert definitions().resolve_job_def(job).nodes


def ranges(
    schedule: str, instance: dg.DagsterInstance | None = None, **settings: object
) -> list[tuple[str, str]] | str:
    """First and last partition of each run that a tick asks for, or why it asks for none."""
    defs = build_definitions(load_settings(**settings))
    found = next(entry for entry in defs.schedules or [] if entry.name == schedule)
    assert isinstance(found, dg.ScheduleDefinition)
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=TICK,
        resources={"bare_settings": load_settings(**settings)},
        repository_def=defs.get_repository_def(),
    ) as context:
        data = found.evaluate_tick(context)
    if data.skip_message:
        return data.skip_message
    tags: Sequence[dict[str, str]] = [dict(request.tags) for request in data.run_requests or []]
    return [(tag["dagster/asset_partition_range_start"], tag["dagster/asset_partition_range_end"]) for tag in tags]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as opened:
        yield opened


def test_today_is_ranked() -> None:
    """One day: rankings of the past are kept."""
    assert ranges("universe_hourly") == [("2024-03-01", "2024-03-01")]


def test_each_coin_is_pulled_over_the_trailing_days(instance: dg.DagsterInstance) -> None:
    """One run a coin; the day before a 1 March is a 29 February."""
    instance.add_dynamic_partitions("coin", ["bitcoin", "tether"])
    assert ranges("market_hourly", instance) == [
        ("bitcoin|2024-02-28", "bitcoin|2024-03-01"),
        ("tether|2024-02-28", "tether|2024-03-01"),
    ]


def test_no_coin_yet_is_said(instance: dg.DagsterInstance) -> None:
    """The skip tells what to do."""
    told = ranges("market_hourly", instance)
    assert isinstance(told, str)
    assert "mts collect" in told


def test_each_indicator_is_pulled_over_its_trailing_days() -> None:
    """Dagster sorts the dimensions of a key by name: the day comes first."""
    found = ranges("macro_6_hourly", fred_api_key="a" * 32)
    assert found == [
        (f"2024-02-21|{indicator}", f"2024-03-01|{indicator}") for indicator in ("VIXCLS", "DTWEXBGS", "DGS10", "DFF")
    ]


def test_macro_without_a_key_is_skipped() -> None:
    """A schedule that fails every six hours teaches people to ignore failures."""
    told = ranges("macro_6_hourly", fred_api_key=None)
    assert isinstance(told, str)
    assert "MTS_FRED_API_KEY" in told


@pytest.mark.parametrize(("schedule", "first"), [("sql_models_hourly", "2024-02-28"), ("signals_daily", "2024-02-21")])
def test_models_and_signals_cover_what_may_have_changed(schedule: str, first: str) -> None:
    """Three days of prices, ten of macro values that came late."""
    assert ranges(schedule) == [(first, "2024-03-01")]


def test_backtests_cover_the_years_of_the_trailing_days() -> None:
    """All strategies in one run; ten days before 1 March lie in the same year."""
    assert ranges("backtests_daily") == [("aggregate|2024", "volume_spike|2024")]
    assert ranges("walk_forward_weekly") == [("market_structure", "volume_spike")]


def test_a_window_never_begins_before_the_history() -> None:
    """Partitions before the first do not exist."""
    context_start = ranges("signals_daily", macro_trailing_days=5000)
    assert context_start == [("2021-01-01", "2024-03-01")]


def upstream(child: str, parent: str, day: str, now: datetime = TICK) -> list[str]:
    """Days or hours of ``parent`` that a day of ``child`` reads, in order."""
    graph = definitions().resolve_asset_graph()
    child_key, parent_key = (dg.AssetKey(name.split("/")) for name in (child, parent))
    mapping = graph.get_partition_mapping(child_key, parent_key)
    down, up = graph.get(child_key).partitions_def, graph.get(parent_key).partitions_def
    assert down is not None
    assert up is not None
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("coin", ["bitcoin"])
    result = mapping.get_upstream_mapped_partitions_result_for_partitions(
        down.subset_with_partition_keys([day]),
        down,
        up,
        current_time=now,
        dynamic_partitions_store=instance,
    )
    assert not result.required_but_nonexistent_subset.get_partition_keys()
    return sorted(
        str(key).replace("bitcoin|", "").split("|")[0] for key in result.partitions_subset.get_partition_keys()
    )


@pytest.mark.parametrize(
    ("child", "parent", "first"),
    [
        ("marts/crypto_ohlcv", "raw/klines", "2024-02-20"),
        ("marts/crypto_ohlcv", "raw/price_points", "2024-02-20"),
        ("marts/features_daily", "marts/ohlcv_daily", "2023-11-22"),
        ("signals/mean_reversion_signals", "marts/features_daily", "2024-02-20"),
        ("signals/trading_signals", "signals/mean_reversion_signals", "2024-02-20"),
        ("marts/funding_daily", "raw/funding_rates", "2024-02-20"),
        ("signals/funding_arbitrage_signals", "marts/funding_daily", "2024-02-14"),
        ("signals/spread_arbitrage_signals", "marts/arbitrage_daily", "2024-02-20"),
    ],
)
def test_a_day_reads_the_days_that_it_needs(child: str, parent: str, first: str) -> None:
    """The lineage tells what a day rests on: 90 days of bars for features, 7 of funding, the day itself elsewhere."""
    read = upstream(child, parent, "2024-02-20")
    assert (read[0], read[-1]) == (first, "2024-02-20")


@pytest.mark.parametrize("parent", ["arbitrage_opportunities", "market_structure", "live_funding"])
def test_a_day_of_live_data_reads_its_hours(parent: str) -> None:
    """All 24 of a day that is over, those of the running day up to now, and none from before the stream began."""
    now = datetime(2026, 3, 5, 2, 30, tzinfo=UTC)
    read = {
        day: upstream("marts/arbitrage_daily", f"live/{parent}", day, now)
        for day in ("2025-12-31", "2026-03-04", "2026-03-05")
    }
    assert read["2025-12-31"] == []
    assert (read["2026-03-04"][0], read["2026-03-04"][-1]) == ("2026-03-04-00:00", "2026-03-04-23:00")
    assert len(read["2026-03-04"]) == 24
    assert read["2026-03-05"] == [f"2026-03-05-0{hour}:00" for hour in range(3)]


def test_both_configurations_name_one_module() -> None:
    """``dg`` reads pyproject, the webserver and the daemon read workspace.yaml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    (location,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    assert project["code_location_target_module"] == location["python_module"]["module_name"]
    assert project["code_location_name"] == location["python_module"]["location_name"]


@pytest.mark.parametrize(
    "command", [["dg", "check", "defs"], ["dagster", "definitions", "validate", "-w", "workspace.yaml"]], ids=" ".join
)
def test_dagster_itself_accepts_the_project(command: list[str], tmp_path: Path) -> None:
    """As the server loads it: another process, from the repository's folder."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
