"""Backtests: a fold for each strategy and year, their summary, and walk-forward."""
