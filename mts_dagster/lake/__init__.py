"""Storage: the DuckLake that every part of MTS reads and writes.

The public door is ``connect`` and ``write``::

    from mts_dagster.lake import connect

    con = connect()  # read-only; may stay open for hours while everything else writes
    con.sql("select * from crypto_ohlcv order by open_time desc limit 5")

What belongs here: connections, the writer lock, transactions, creating tables, replacing slices, maintenance. What
the tables mean stands in ``mts_dagster.schemas`` and in the YAML files beside the SQL models.
"""

from mts_dagster.lake.connection import connect
from mts_dagster.lake.transaction import transact, write

__all__ = ["connect", "transact", "write"]
