"""Backtests: an engine with one set of rules, its metrics, and the search over parameters.

Nothing is imported here, so that ``mts_dagster.backtest.config`` can be read without compiling or loading
anything.
"""
