"""One hour-partitioned asset for each dataset of the sidecar, and the hours computed from them.

What belongs here: which partitions bring in or compute what, and what a run tells about it. The sidecar itself is the
external origin of them all. Ingest and computation are in ``mts_dagster.live``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mts_dagster.defs.common import FETCH_RETRY, MARKET_DATA, lake_asset
from mts_dagster.lake.io_manager import run_origin
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.transaction import Origin
from mts_dagster.live.derive import Derived, derive_arbitrage, derive_spreads, derive_structure
from mts_dagster.live.ingest import Ingested, ingest
from mts_dagster.live.tables import (
    ARBITRAGE_OPPORTUNITIES,
    BID_ASK_SPREADS,
    LANDED,
    LIVE_FUNDING,
    LIVE_TICKERS,
    MARKET_STRUCTURE,
    ORDER_BOOK,
    Landed,
)
from mts_dagster.partitions import hourly, slices_of
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings

GROUP = "realtime"
DOMAIN = {"domain": "realtime"}
CODE_VERSION = "1"
MOST_DETAILED_HOURS = 31
Compute = Callable[[Settings, Sequence[Slice], datetime, Origin], list[Derived]]

SIDECAR = dg.AssetSpec(
    ["sidecar", "segments"],
    group_name=GROUP,
    kinds={"websocket", "parquet"},
    owners=MARKET_DATA,
    tags=DOMAIN,
    code_version=CODE_VERSION,
    description="The streaming sidecar (`mts stream`): order books and funding of Binance and Bybit over WebSocket, "
    "written as Parquet segments into the landing folder. It runs beside Dagster; a sensor brings its segments in.",
)
# Statistics of an hour begin with the samples just before it.
HOUR_BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1)


def build_live_assets() -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The sidecar, its landed datasets, and what is computed from them."""
    books, funding, tickers = (_key(landed.table) for landed in (ORDER_BOOK, LIVE_FUNDING, LIVE_TICKERS))
    warm = [dg.AssetDep(key, partition_mapping=HOUR_BEFORE) for key in (books, tickers)]
    return [
        SIDECAR,
        *(_landed_asset(landed) for landed in LANDED),
        _derived_asset(BID_ASK_SPREADS, [dg.AssetDep(books)], derive_spreads),
        _derived_asset(MARKET_STRUCTURE, warm, derive_structure),
        _derived_asset(ARBITRAGE_OPPORTUNITIES, [dg.AssetDep(books), dg.AssetDep(funding)], derive_arbitrage),
    ]


def _key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([table.schema, table.name])


def _landed_asset(landed: Landed) -> dg.AssetsDefinition:
    @lake_asset(
        landed.table,
        deps=[SIDECAR],
        partitions_def=hourly,
        retry_policy=FETCH_RETRY,
        group_name=GROUP,
        kinds={"parquet", "duckdb"},
        owners=MARKET_DATA,
        tags=DOMAIN,
        code_version=CODE_VERSION,
        description=f"{landed.table.description} Running it again changes nothing, also after its segments are gone.",
    )
    def landed_hours(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        windows = slices_of(context.partition_keys)
        done = ingest(settings, landed, windows, run_origin(context, CODE_VERSION))
        for damaged in (line for hour in done for line in hour.damaged):
            context.log.warning("moved to the quarantine: %s", damaged)
        return dg.MaterializeResult(metadata=_told_of_ingest(done))

    return landed_hours


def _derived_asset(table: Table, deps: Sequence[dg.AssetDep], compute: Compute) -> dg.AssetsDefinition:
    @lake_asset(
        table,
        deps=deps,
        partitions_def=hourly,
        retry_policy=FETCH_RETRY,
        group_name=GROUP,
        kinds={"python", "duckdb"},
        owners=MARKET_DATA,
        tags=DOMAIN,
        code_version=CODE_VERSION,
    )
    def derived_hours(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        windows = slices_of(context.partition_keys)
        done = compute(settings, windows, datetime.now(UTC), run_origin(context, CODE_VERSION))
        return dg.MaterializeResult(metadata=_told_of_computation(done))

    return derived_hours


def _told_of_ingest(done: Sequence[Ingested]) -> dict[str, Any]:
    """What the UI shows of an ingest."""
    damaged = [line for hour in done for line in hour.damaged]
    told: dict[str, Any] = {
        **_counted(done),
        "segments": sum(hour.segments for hour in done),
        "damaged_segments": len(damaged),
    }
    if len(done) == 1:
        told["segments_digest"] = done[0].digest
    if damaged:
        told["damaged"] = dg.MetadataValue.md("\n".join(f"- {line}" for line in damaged[:MOST_DETAILED_HOURS]))
    return told


def _told_of_computation(done: Sequence[Derived]) -> dict[str, Any]:
    """What the UI shows of a computation."""
    notes = sorted({hour.note for hour in done if hour.note})
    return {**_counted(done), **({"note": "; ".join(notes)} if notes else {})}


def _counted(done: Sequence[Ingested] | Sequence[Derived]) -> dict[str, Any]:
    rows = "dagster/partition_row_count" if len(done) == 1 else "rows_in_run"
    return {
        rows: sum(hour.rows_stored for hour in done),
        "rows_replaced": sum(hour.rows_replaced for hour in done),
    }
