"""A run that is killed in the middle of an asset with a pool, or ends well: killed_run.py HOME die|live."""

import os
import sys

import dagster as dg

from mts_dagster.instance.home import open_instance
from mts_dagster.settings import load_settings


@dg.asset(pool="service")
def pooled() -> None:
    """Vanish like a process under ``kill -9``, if so told."""
    if sys.argv[2] == "die":
        os._exit(9)


if __name__ == "__main__":
    job = dg.Definitions(assets=[pooled], jobs=[dg.define_asset_job("one", [pooled])]).resolve_job_def("one")
    with open_instance(load_settings(home=sys.argv[1])) as instance:
        sys.exit(not job.execute_in_process(instance=instance).success)
