"""MTS realtime: the sidecar that holds live order books and funding of several exchanges.

It runs beside Dagster for weeks, imports neither Dagster nor ``mts_dagster``, and hands its data on as immutable
Parquet segments (``landing``) and as a live feed (``feed``). A pure core (``exchanges``, ``book``, ``analytics``,
``pipeline``) computes from frames and receipt times alone; the shell (``connection``, ``supervisor``, ``sidecar``,
``runner``) owns sockets, files and the clock.
"""
