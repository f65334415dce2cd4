"""The IO manager under real Dagster runs: one partition, ranges, two dimensions, gaps, and wrong data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from mts_dagster.lake.io_manager import LakeIOManager
from mts_dagster.partitions import coin_daily, coins, daily
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings

from .conftest import price_frame, rows_by_day

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
WITH_A_GAP = dg.MultiPartitionsDefinition(
    {
        "coin": coins,
        "date": dg.DailyPartitionsDefinition(
            "2024-01-01", timezone="UTC", exclusions=[datetime(2024, 1, 2, tzinfo=UTC)]
        ),
    }
)


def key(coin: str, day: int) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"coin": coin, "date": f"2024-01-{day + 1:02}"})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("coin", ["bitcoin", "ethereum", "solana"])
        yield instance


class Bench:
    """Materialises ``raw/price_points`` with whatever frame a test wants."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.resources = {"lake": LakeIOManager(settings, TABLES)}

    def asset(
        self, frame: pd.DataFrame, partitions: dg.PartitionsDefinition | None = coin_daily
    ) -> dg.AssetsDefinition:
        @dg.asset(
            key=["raw", "price_points"],
            partitions_def=partitions,
            io_manager_key="lake",
            code_version="v7",
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def price_points() -> pd.DataFrame:
            return frame

        return price_points

    def run(
        self,
        frame: pd.DataFrame,
        first: str,
        last: str | None = None,
        partitions: dg.PartitionsDefinition | None = coin_daily,
    ) -> dg.ExecuteInProcessResult:
        """One run over one partition, or over the range to ``last``."""
        chosen: dict[str, Any] = {"partition_key": first}
        if last is not None:
            chosen = {"tags": {RANGE_START: first, RANGE_END: last}}
        return dg.materialize(
            [self.asset(frame, partitions)],
            instance=self.instance,
            resources=self.resources,
            raise_on_error=False,
            **chosen,
        )

    def put(
        self,
        frame: pd.DataFrame,
        first: str,
        last: str | None = None,
        partitions: dg.PartitionsDefinition | None = coin_daily,
    ) -> dg.ExecuteInProcessResult:
        result = self.run(frame, first, last, partitions)
        assert result.success
        return result

    def refusal(self, frame: pd.DataFrame, first: str, last: str | None = None) -> str:
        """The message that a failed run shows."""
        return failure_of(self.run(frame, first, last))


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The one line that the UI and the command line show of a failed run."""
    assert not result.success
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    line = str(failure.user_failure_data.description)
    assert "\n" not in line
    return line


@pytest.fixture
def bench(settings: Settings, instance: dg.DagsterInstance) -> Bench:
    return Bench(settings, instance)


def metadata_of(result: dg.ExecuteInProcessResult) -> Mapping[str, dg.MetadataValue[Any]]:
    return result.asset_materializations_for_node("raw__price_points")[0].metadata


def test_one_partition(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """The run's one coin and day are stored, nothing else."""
    bench.put(price_frame(0, 1.0), key("bitcoin", 0))
    assert rows_by_day(con) == {("bitcoin", 0): (24, 1.0)}


def test_a_lake_comes_into_being_with_its_first_run(bench: Bench, settings: Settings) -> None:
    """No bootstrap by hand: the first write makes lake and table."""
    assert not settings.home.exists()
    bench.put(price_frame(0, 1.0), key("bitcoin", 0))
    assert (settings.home / "lake.sqlite").exists()


def test_a_materialisation_tells_what_was_stored(bench: Bench) -> None:
    """Rows, columns with descriptions and units, and a small preview, under the names that the UI knows."""
    metadata = metadata_of(bench.put(price_frame(0, 1.0), key("bitcoin", 0)))
    assert metadata["dagster/partition_row_count"].value == 24
    assert metadata["rows_replaced"].value == 0
    schema = metadata["dagster/column_schema"].value
    price = next(column for column in schema.columns if column.name == "price_usd")
    assert (price.type, price.description, price.constraints.nullable) == ("DOUBLE", "Price. [usd]", False)
    assert schema.constraints.other == ["unique together: coin, sampled_at"]
    preview = str(metadata["preview"].value)
    assert "2024-01-01 23:00:00+00:00" in preview
    assert len(preview.splitlines()) == 2 + 5
    again = metadata_of(bench.put(price_frame(0, 2.0), key("bitcoin", 0)))
    assert again["rows_replaced"].value == 24


def test_a_range_of_two_dimensions_is_one_commit(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """Two coins, three days, one run, one snapshot, an event for each partition; a third coin is not touched."""
    bench.put(price_frame(1, 9.0, coin="solana"), key("solana", 1))
    before = con.execute("select max(snapshot_id) from lake.snapshots()").fetchall()[0][0]
    frame = pd.concat([price_frame(0, 1.0, days=3, coin=coin) for coin in ("bitcoin", "ethereum")])
    result = bench.put(frame, key("bitcoin", 0), key("ethereum", 2))
    assert len(result.asset_materializations_for_node("raw__price_points")) == 6
    assert metadata_of(result)["rows_in_run"].value == 144
    assert con.execute("select max(snapshot_id) from lake.snapshots()").fetchall()[0][0] == before + 1
    assert rows_by_day(con) == {
        **{(coin, day): (24, 1.0) for coin in ("bitcoin", "ethereum") for day in range(3)},
        ("solana", 1): (24, 9.0),
    }


def test_days_with_a_gap_leave_the_gap_alone(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """A calendar without 2 January: the run replaces the 1st and the 3rd, and what was stored for the 2nd stays."""
    for day in range(3):
        bench.put(price_frame(day, 1.0), key("bitcoin", day))
    identity = "select snapshot_id, rowid from price_points where sampled_at::date = '2024-01-02' order by all"
    kept = con.execute(identity).fetchall()
    frame = pd.concat([price_frame(day, 2.0) for day in (0, 2)])
    bench.put(frame, key("bitcoin", 0), key("bitcoin", 2), partitions=WITH_A_GAP)
    assert rows_by_day(con) == {("bitcoin", 0): (24, 2.0), ("bitcoin", 1): (24, 1.0), ("bitcoin", 2): (24, 2.0)}
    assert con.execute(identity).fetchall() == kept


def test_rows_in_the_gap_are_refused(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """They belong to no partition of the run."""
    result = bench.run(price_frame(0, 2.0, days=3), key("bitcoin", 0), key("bitcoin", 2), partitions=WITH_A_GAP)
    assert "24 rows lie outside the partition bitcoin" in failure_of(result)
    assert rows_by_day(con) == {}


def test_a_reversed_range_fails(bench: Bench) -> None:
    """Dagster makes no partitions of it, and a run that stores nothing must not be green."""
    result = bench.run(price_frame(0, 1.0), key("bitcoin", 2), key("bitcoin", 0))
    assert not result.success


def test_partitions_without_rows_are_named(bench: Bench) -> None:
    """A gap in the source is never silent."""
    metadata = metadata_of(bench.put(price_frame(0, 1.0, days=2), key("bitcoin", 0), key("bitcoin", 3)))
    assert metadata["partitions_without_rows"].value == 2
    assert metadata["first_partitions_without_rows"].value == "bitcoin|2024-01-03, bitcoin|2024-01-04"


def test_a_long_range_keeps_to_the_counts(bench: Bench) -> None:
    """Dagster copies metadata to every partition's event; a backfill leaves schema and preview out."""
    last = dg.MultiPartitionKey({"coin": "bitcoin", "date": "2024-02-09"})
    metadata = metadata_of(bench.put(price_frame(0, 1.0, days=40), key("bitcoin", 0), last))
    assert set(metadata) == {"rows_in_run", "rows_replaced"}


def test_the_commit_names_run_partition_and_code(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """From the lake back to the run in the UI."""
    result = bench.put(price_frame(0, 1.0, days=2), key("bitcoin", 0), key("bitcoin", 1))
    origin = con.execute(
        "select commit_extra_info->>'run_id', commit_extra_info->>'asset', commit_extra_info->>'code_version', "
        "commit_extra_info->>'partitions' from lake.snapshots() order by snapshot_id desc limit 1"
    ).fetchall()
    assert origin == [
        (result.run_id, "raw/price_points", "v7", "bitcoin|2024-01-01...bitcoin|2024-01-02 (2 partitions)")
    ]


WRONG = {
    "missing column": price_frame(0, 2.0).drop(columns="source_tier"),
    "wrong type": price_frame(0, 2.0).assign(price_usd="2.0"),
    "broken check": price_frame(0, -2.0),
    "naive times": price_frame(0, 2.0).assign(sampled_at=pd.date_range("2024-01-01", periods=24, freq="h")),
    "double keys": pd.concat([price_frame(0, 2.0), price_frame(0, 2.0).head(2)]),
    "outside the partition": price_frame(0, 2.0, days=2),
    "empty": price_frame(0, 2.0).head(0),
}
FIRST_ROW = "(coin=bitcoin, sampled_at=2024-01-01 00:00:00+00:00); "
MESSAGES = {
    "missing column": "column source_tier: missing; nothing stored",
    "wrong type": f"column price_usd: numbers expected, found str in 24 of 24 rows, first: {FIRST_ROW}",
    "broken check": f"column price_usd: -2.0 breaks greater_than(0) in 24 of 24 rows, first: {FIRST_ROW}",
    "naive times": "column sampled_at: times with time zone expected, found datetime64[us] in 24 of 24 rows, first: ",
    "double keys": "column coin, sampled_at: 4 rows share their key, first: [('bitcoin', '2024-01-01 00:00:00+00:00')",
    "outside the partition": "column sampled_at, coin: 24 rows lie outside the partition bitcoin [2024-01-01 00:00, ",
    "empty": "refusing to replace 24 stored rows of bitcoin [2024-01-01 00:00, 2024-01-02 00:00) UTC by none; nothing ",
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_data_fails_the_run_and_changes_nothing(bench: Bench, con: duckdb.DuckDBPyConnection, kind: str) -> None:
    """The message names table, column, count and first rows; the stored partition is byte-equal."""
    bench.put(price_frame(0, 1.0), key("bitcoin", 0))
    everything = "select snapshot_id, rowid, * from price_points order by all"
    before = con.execute(everything).fetchall()
    message = bench.refusal(WRONG[kind], key("bitcoin", 0))
    assert re.fullmatch(rf"table raw\.price_points[:,] {re.escape(MESSAGES[kind])}.*", message)
    assert con.execute(everything).fetchall() == before


def test_an_empty_frame_where_nothing_is_stored(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """A coin that did not exist yet has no prices, and that is no error."""
    metadata = metadata_of(bench.put(price_frame(0, 1.0).head(0), key("bitcoin", 0)))
    assert metadata["dagster/partition_row_count"].value == 0
    assert metadata["partitions_without_rows"].value == 1
    assert rows_by_day(con) == {}


def test_an_asset_without_contract(bench: Bench, settings: Settings) -> None:
    """The error names the asset and the place for its contract."""

    @dg.asset(key=["raw", "rumours"], partitions_def=daily, io_manager_key="lake")
    def rumours() -> pd.DataFrame:
        return pd.DataFrame()

    result = dg.materialize(
        [rumours], instance=bench.instance, resources=bench.resources, partition_key="2024-01-01", raise_on_error=False
    )
    assert failure_of(result) == "asset raw/rumours has no table contract in schemas.py"
    assert not settings.home.exists()


def test_an_asset_without_partitions(bench: Bench) -> None:
    """Replacing the whole table by accident is not possible."""
    result = dg.materialize(
        [bench.asset(price_frame(0, 1.0), None)],
        instance=bench.instance,
        resources=bench.resources,
        raise_on_error=False,
    )
    assert failure_of(result) == "asset raw/price_points writes frames but has no partitions"


def read_downstream(
    bench: Bench, partition_key: str, mapping: dg.PartitionMapping | None, partitions: dg.PartitionsDefinition
) -> pd.DataFrame:
    """What an asset below ``raw/price_points`` is given."""
    seen = []

    @dg.asset(
        partitions_def=partitions,
        ins={"prices": dg.AssetIn(["raw", "price_points"], partition_mapping=mapping, input_manager_key="lake")},
    )
    def below(prices: pd.DataFrame) -> None:
        seen.append(prices)

    upstream = bench.asset(price_frame(0, 1.0))
    dg.materialize(
        [upstream, below],
        selection=[below],
        instance=bench.instance,
        resources=bench.resources,
        partition_key=partition_key,
    )
    return seen[0]


def test_an_input_is_the_same_partition(bench: Bench) -> None:
    """Coin and day of the run, in the contract's types."""
    bench.put(price_frame(0, 1.0, days=3), key("bitcoin", 0), key("bitcoin", 2))
    bench.put(price_frame(1, 2.0, coin="ethereum"), key("ethereum", 1))
    frame = read_downstream(bench, key("bitcoin", 1), None, coin_daily)
    pd.testing.assert_frame_equal(frame, price_frame(1, 1.0).astype({"coin": "str", "source_tier": "str"}))


def test_an_input_of_all_coins(bench: Bench) -> None:
    """A day asset over a coin x day one reads that day of every coin."""
    bench.put(price_frame(0, 1.0, days=4), key("bitcoin", 0), key("bitcoin", 3))
    bench.put(price_frame(2, 2.0, coin="ethereum"), key("ethereum", 2))
    mapping = dg.MultiToSingleDimensionPartitionMapping("date")
    frame = read_downstream(bench, "2024-01-03", mapping, daily)
    assert sorted(set(frame["coin"])) == ["bitcoin", "ethereum"]
    assert set(frame["sampled_at"].dt.date) == {datetime(2024, 1, 3, tzinfo=UTC).date()}


def test_an_input_before_the_first_partition_is_empty(bench: Bench) -> None:
    """A mapping that clips to nothing gives no rows, with columns, instead of all rows or an error."""
    first = datetime.combine(daily.start, datetime.min.time(), UTC)
    bench.put(price_frame(0, 1.0), key("bitcoin", 0))
    before = dg.MultiPartitionMapping(
        {
            "coin": dg.DimensionPartitionMapping("coin", dg.IdentityPartitionMapping()),
            "date": dg.DimensionPartitionMapping("date", dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)),
        }
    )
    day = dg.MultiPartitionKey({"coin": "bitcoin", "date": f"{first:%Y-%m-%d}"})
    frame = read_downstream(bench, day, before, coin_daily)
    assert len(frame) == 0
    assert list(frame.columns) == [column.name for column in TABLES["price_points"].columns]


def test_two_runs_in_a_row_are_one_result(bench: Bench, con: duckdb.DuckDBPyConnection) -> None:
    """Materialising again changes nothing that anybody can see: idempotence."""
    for _ in range(2):
        bench.put(price_frame(0, 1.0, days=2), key("bitcoin", 0), key("bitcoin", 1))
    assert rows_by_day(con) == {("bitcoin", 0): (24, 1.0), ("bitcoin", 1): (24, 1.0)}


def test_wrong_data_is_not_fetched_again(bench: Bench, settings: Settings) -> None:
    """An asset that may be retried is not, when what it brought breaks the contract."""
    calls = []

    @dg.asset(
        key=["raw", "price_points"],
        partitions_def=coin_daily,
        io_manager_key="lake",
        retry_policy=dg.RetryPolicy(max_retries=3),
    )
    def price_points() -> pd.DataFrame:
        calls.append(1)
        return price_frame(0, -1.0)

    result = dg.materialize(
        [price_points],
        instance=bench.instance,
        resources=bench.resources,
        partition_key=key("bitcoin", 0),
        raise_on_error=False,
    )
    assert "breaks greater_than(0)" in failure_of(result)
    assert len(calls) == 1
    assert not settings.home.exists()
