"""Dagster objects, a folder a subject. Bodies are short: read, call one domain function, return.

What belongs here: assets, checks, schedules, sensors and jobs. What they compute lives in ``sources``, ``strategies``,
``sql_models`` and ``lake``, which know no Dagster.
"""
