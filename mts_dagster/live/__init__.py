"""The live data of the sidecar in the lake: contracts, ingest of segments, and what is computed from them by the hour.

What belongs here: everything between the landing folder and the stored hours that needs no Dagster. Measures and
decisions are ``mts_realtime.analytics``', the same functions as in the running sidecar.
"""
