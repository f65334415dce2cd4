"""Dagster objects, a folder a subject. Bodies are short: read, call one domain function, return.

What belongs here: assets, checks, schedules, sensors and jobs. What they compute lives in ``sources``, ``strategies``,
``sql_models`` and ``lake``, which know no Dagster.
"""

import warnings

import dagster as dg

# Beta features that we chose knowingly; Dagster would warn of each use, seventy times a start. Others still warn.
for _feature in (
    "Parameter `backfill_policy` of",
    "Parameter `allow_nonexistent_upstream_partitions` of",
    "Class `MultiToSingleDimensionPartitionMapping`",
):
    warnings.filterwarnings("ignore", message=_feature, category=dg.BetaWarning)
