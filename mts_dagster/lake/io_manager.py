"""The IO manager: pandas frames in, partition slices of lake tables out, and back.

What belongs here: the meeting of Dagster's contexts with the lake. Validation, replacing and reading live in their own
modules and know no Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from mts_dagster.errors import BadDataError, LakeError, LakeLockedError, MtsError
from mts_dagster.lake.read import count_rows, read_slices
from mts_dagster.lake.replace import Replaced, replace_frame
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice, in_words
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.validate import validate_frame
from mts_dagster.partitions import slices_of, split_key
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings

PREVIEW_ROWS = 5
MOST_NAMED_PARTITIONS = 50
MOST_DETAILED_PARTITIONS = 31


class LakeIOManager(dg.IOManager):
    """Stores the frame of an asset in the table of the same name, replacing exactly the run's partitions."""

    def __init__(self, settings: Settings, tables: Mapping[str, Table]) -> None:
        """Take the lake and the contracts of all tables that assets may write, by table name."""
        self._settings = settings
        self._tables = tables

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Validate and store; on any error the stored partition stays as it was.

        Raises:
            dagster.Failure: with the one line of ours that tells what is wrong. Only a lock that stayed taken is worth
                the asset's retries; fetching wrong data again would bring the same.
        """
        try:
            metadata = self._store(context, obj)
        except MtsError as error:
            passing = isinstance(error, LakeLockedError)
            raise dg.Failure(description=str(error), allow_retries=passing) from error
        context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Read the partitions that the downstream run maps to; the whole table for an unpartitioned input."""
        table = self._table(context.asset_key)
        slices = input_slices(context)
        with session(self._settings) as con:
            return read_slices(con, table, slices)

    def _store(self, context: dg.OutputContext, obj: pd.DataFrame) -> dict[str, Any]:
        table = self._table(context.asset_key)
        slices = output_slices(context)
        frame = validate_frame(table, obj)
        with session(self._settings, read_only=False) as con:
            bootstrap(con, [table])
            if frame.empty:
                _refuse_to_empty(con, table, slices)
            replaced = replace_frame(con, table, slices, frame, run_origin(context, _code_version(context)))
        return materialization_metadata(table, frame, replaced, context.asset_partition_keys)

    def _table(self, key: dg.AssetKey) -> Table:
        try:
            return self._tables[key.path[-1]]
        except KeyError:
            raise LakeError(f"asset {key.to_user_string()} has no table contract in schemas.py") from None


def output_slices(context: dg.OutputContext) -> list[Slice]:
    """The slices that this output replaces."""
    if not context.has_asset_partitions:
        raise LakeError(f"asset {context.asset_key.to_user_string()} writes frames but has no partitions")
    return slices_of(list(context.asset_partition_keys))


def input_slices(context: dg.InputContext) -> list[Slice] | None:
    """The slices that a run reads: none where its mapping clips before the first partition, None for all rows."""
    if not context.has_asset_partitions:
        return None
    keys = list(context.asset_partition_keys)
    return slices_of(keys) if keys else []


def run_origin(context: dg.OutputContext | dg.AssetExecutionContext, code_version: str) -> Origin:
    """What the snapshot will say about where its rows came from."""
    if isinstance(context, dg.OutputContext):
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else []
        run_id = context.run_id
    else:
        keys = list(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else []
        run_id = context.run.run_id
    return Origin(
        asset=context.asset_key.to_user_string(),
        run_id=run_id,
        code_version=code_version,
        partitions=described(keys),
    )


def described(keys: Sequence[str]) -> str:
    """Partition keys in few words."""
    if len(keys) <= 1:
        return "".join(keys)
    return f"{keys[0]}...{keys[-1]} ({len(keys)} partitions)"


def materialization_metadata(
    table: Table, frame: pd.DataFrame, replaced: Replaced, keys: Sequence[str]
) -> dict[str, Any]:
    """What the UI shows of a write: counts, partitions that stayed empty, columns, a small preview.

    Dagster copies it to the event of every partition of the run, so long backfills keep to the counts: with columns and
    preview, five years of three coins would put 5,478 copies of some 4 kB into the event log.
    """
    metadata: dict[str, Any] = {
        "dagster/partition_row_count" if len(keys) == 1 else "rows_in_run": replaced.rows_inserted,
        "rows_replaced": replaced.rows_deleted,
    }
    if empty := partitions_without_rows(table, frame, keys):
        metadata["partitions_without_rows"] = len(empty)
        metadata["first_partitions_without_rows"] = ", ".join(empty[:MOST_NAMED_PARTITIONS])
    if len(keys) <= MOST_DETAILED_PARTITIONS:
        metadata["dagster/column_schema"] = column_schema(table)
        if len(frame):
            metadata["preview"] = dg.MetadataValue.md(frame.tail(PREVIEW_ROWS).astype(str).to_markdown(index=False))
    return metadata


def partitions_without_rows(table: Table, frame: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Partition keys of the run for which the frame has no row: a gap should never be silent."""
    if table.time_column is None:
        return []
    days = pd.to_datetime(frame[table.time_column], utc=True).dt.floor("D")
    members = frame[table.partition_column] if table.partition_column else [None] * len(frame)
    present = set(zip(members, days, strict=True))
    return sorted(key for key in keys if split_key(key)[:2] not in present)  # Dagster gives no order


def column_schema(table: Table) -> dg.TableSchema:
    """Columns, types, units and keys in the form that the UI shows."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.sql_type,
                description=column.description + (f" [{column.unit}]" if column.unit else ""),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ],
        constraints=dg.TableConstraints(other=[f"unique together: {', '.join(table.key)}"]),
    )


def _code_version(context: dg.OutputContext) -> str:
    """Code version of the asset that the output belongs to."""
    return context.asset_spec.code_version or ""


def _refuse_to_empty(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice]) -> None:
    """A source that suddenly answers nothing must not wipe what is known."""
    stored = count_rows(con, table, slices)
    if stored:
        raise BadDataError(
            f"table {table.qualified}: refusing to replace {stored} stored rows of "
            f"{in_words(slices)} by none; nothing changed; the log of the run says what the source could not give"
        )
