"""Macro series of FRED with their vintages.

What belongs here: which partitions ask for which series. The client is ``mts_dagster.sources.fred``.
"""

from __future__ import annotations

import dagster as dg
import pandas as pd

from mts_dagster.defs.common import FETCH_RETRY, MARKET_DATA, lake_asset
from mts_dagster.partitions import indicator_daily, slices_of
from mts_dagster.schemas import TABLES
from mts_dagster.sources.clients import Clients
from mts_dagster.sources.history import macro


@lake_asset(
    TABLES["macro_data"],
    partitions_def=indicator_daily,
    retry_policy=FETCH_RETRY,
    pool="fred",
    group_name="macro",
    kinds={"fred", "duckdb"},
    owners=MARKET_DATA,
    tags={"domain": "macro"},
    description="Observations of FRED series, one row for each vintage: VIX, broad dollar index (not ICE DXY), 10-year "
    "yield, effective Fed funds rate, and further series by configuration. available_at is when a value could first "
    "be known; pit_quality says how well that is known.",
    io_manager_key="lake",
)
def macro_data(context: dg.AssetExecutionContext, clients: dg.ResourceParam[Clients]) -> pd.DataFrame:
    """Observations of each indicator and day of the run."""
    return macro(clients.fred, slices_of(context.partition_keys))
