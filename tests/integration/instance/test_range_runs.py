"""Whole runs on our instance and on a stock one: what the UI asks for is answered alike."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from mts_dagster.instance import home
from mts_dagster.instance.event_log import BatchingEventLogStorage
from mts_dagster.settings import load_settings

pytestmark = pytest.mark.filterwarnings("ignore:.*is currently in beta:dagster.BetaWarning")

BARS, RANKS = dg.AssetKey(["raw", "bars"]), dg.AssetKey(["marts", "ranks"])
FIRST, LAST, DAYS = "2024-01-01", "2024-01-15", 15


def days() -> dg.DailyPartitionsDefinition:
    """The calendar of the test."""
    return dg.DailyPartitionsDefinition("2024-01-01", timezone="UTC", end_date="2024-04-01")


class Nothing(dg.IOManager):
    """Stores nothing: the events are what is tested."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002 - Dagster's signature
        context.add_output_metadata({"rows": len(context.asset_partition_keys)})

    def load_input(self, context: dg.InputContext) -> None:
        """Nothing to load."""


def definitions() -> dg.Definitions:
    """An asset by coin and day, one by day with a check and half of its rows told by partition, one that fails."""
    daily = days()
    coins = dg.DynamicPartitionsDefinition(name="coin")
    policy = dg.BackfillPolicy.single_run()
    by_coin = dg.MultiPartitionsDefinition({"coin": coins, "date": daily})

    @dg.asset(key=BARS, partitions_def=by_coin, backfill_policy=policy)
    def bars() -> int:
        return 1

    @dg.asset(key=RANKS, partitions_def=daily, backfill_policy=policy)
    def ranks(context: dg.AssetExecutionContext) -> int:
        for number, key in enumerate(context.partition_keys[::2]):
            context.add_asset_metadata({"dagster/partition_row_count": number}, partition_key=key)
        return 1

    @dg.asset_check(asset=ranks)
    def is_ranked() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.asset(partitions_def=daily, backfill_policy=policy)
    def failing() -> int:
        raise ValueError("on purpose")

    jobs = [dg.define_asset_job(key.path[-1], selection=[key]) for key in (BARS, RANKS, dg.AssetKey("failing"))]
    return dg.Definitions(
        assets=[bars, ranks, failing], asset_checks=[is_ranked], jobs=jobs, resources={"io_manager": Nothing()}
    )


def run(instance: dg.DagsterInstance, job: str, first: str, last: str) -> bool:
    """One run over a range, as the command line starts it; whether it succeeded."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    resolved = definitions().resolve_job_def(job)
    return resolved.execute_in_process(instance=instance, tags=tags, run_config=quiet, raise_on_error=False).success


def collect(instance: dg.DagsterInstance) -> None:
    """Everything that the answers below are about."""
    instance.add_dynamic_partitions("coin", ["bitcoin", "ethereum"])
    assert run(instance, "bars", f"bitcoin|{FIRST}", f"ethereum|{LAST}")
    assert run(instance, "ranks", FIRST, LAST)
    assert run(instance, "ranks", "2024-01-11", "2024-01-12")
    assert not run(instance, "failing", FIRST, "2024-01-05")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """Our instance after the runs, with batches smaller than a run's events."""
    with pytest.MonkeyPatch.context() as patch:
        settings = load_settings(home=tmp_path_factory.mktemp("ours"))
        for name in home.environment(settings):
            patch.setenv(name, "")
        with home.open_instance(settings) as instance:
            patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "10")
            assert isinstance(instance.event_log_storage, BatchingEventLogStorage)
            collect(instance)
            yield instance


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A stock instance after the same runs, storing event by event."""
    folder = tmp_path_factory.mktemp("stock")
    folder.joinpath("dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            collect(instance)
            yield instance


def materialized(instance: dg.DagsterInstance) -> object:
    return instance.get_materialized_partitions(BARS), instance.get_materialized_partitions(RANKS)


def history(instance: dg.DagsterInstance) -> object:
    records = instance.fetch_materializations(RANKS, limit=1000).records
    return [(record.partition_key, told(record.asset_materialization)) for record in records]


def told(event: dg.AssetMaterialization | None) -> Mapping[str, Any]:
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


def latest(instance: dg.DagsterInstance) -> object:
    event = instance.get_latest_materialization_event(RANKS)
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.partition, event.asset_materialization.metadata


def latest_by_partition(instance: dg.DagsterInstance) -> object:
    return sorted(
        instance.event_log_storage.get_latest_tags_by_partition(
            BARS, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/partition/coin", "dagster/partition/date"]
        ).items()
    )


def planned(instance: dg.DagsterInstance) -> object:
    info = instance.event_log_storage.get_latest_planned_materialization_info(dg.AssetKey("failing"), "2024-01-04")
    return info and info.storage_id


def failed(instance: dg.DagsterInstance) -> object:
    storage = instance.event_log_storage
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations
    return sorted(attempts(dg.AssetKey("failing")))


def status_cache(instance: dg.DagsterInstance) -> list[tuple[list[str], list[str]]]:
    answers = []
    for key in (RANKS, dg.AssetKey("failing")):
        value = get_and_update_asset_status_cache_value(instance, key, days())
        assert value is not None
        done = value.deserialize_materialized_partition_subsets(days())
        broken = value.deserialize_failed_partition_subsets(days())
        answers.append((sorted(done.get_partition_keys()), sorted(broken.get_partition_keys())))
    return answers


def checks(instance: dg.DagsterInstance) -> object:
    key = dg.AssetCheckKey(RANKS, "is_ranked")
    executions = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    return [(execution.status, execution.partition) for execution in executions]


def run_events(instance: dg.DagsterInstance) -> object:
    """Type and partition of every event of every run, the oldest run first."""
    return [
        [(entry.dagster_event_type, entry.get_dagster_event().partition) for entry in instance.all_logs(run.run_id)]
        for run in reversed(instance.get_runs())
    ]


QUESTIONS = [materialized, history, latest, latest_by_partition, planned, failed, status_cache, checks, run_events]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_the_ui_gets_the_answers_of_a_stock_instance(
    ours: dg.DagsterInstance, stock: dg.DagsterInstance, question: Callable[[dg.DagsterInstance], object]
) -> None:
    """Partitions, history with metadata, plans, failures, status cache, checks, run logs."""
    assert question(ours) == question(stock)


def test_the_answers_are_the_expected_ones(ours: dg.DagsterInstance) -> None:
    """Counted by hand: 15 days, two coins, 2 days run again, 5 days planned and failed."""
    assert len(ours.get_materialized_partitions(BARS)) == 2 * DAYS
    assert len(ours.get_materialized_partitions(RANKS)) == DAYS
    assert len(ours.fetch_materializations(RANKS, limit=1000).records) == DAYS + 2
    (ranks, ranks_failed), (failing, failing_failed) = status_cache(ours)
    assert (len(ranks), len(ranks_failed), len(failing), len(failing_failed)) == (DAYS, 0, 0, 5)


def test_the_rows_lie_where_dagster_looks(ours: dg.DagsterInstance) -> None:
    """One file a run beside the index, as in a stock instance."""
    storage = ours.event_log_storage
    assert isinstance(storage, BatchingEventLogStorage)
    files = {path.name for path in Path(storage.path_for_shard("index")).parent.glob("*.db")}
    assert files == {"index.db", *(f"{each.run_id}.db" for each in ours.get_runs())}
