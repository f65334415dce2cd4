"""The Dagster instance of MTS: where it lives, how it is set up, and an event log fit for wide backfills.

What belongs here: the home folder with its ``dagster.yaml`` (``home``) and the storage class that this file names
(``event_log``). Assets, jobs and the processes that serve them live elsewhere. Nothing is imported here: Dagster's
processes load ``event_log`` through this package and need no more than that module.
"""
