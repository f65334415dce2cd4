"""Errors of strategies: a broken strategy file, wrong signals, a decision that looks ahead.

What belongs here: what is wrong with a strategy's code or its output. A wrong value in a config file is a
``ConfigError`` of the common family.
"""

from __future__ import annotations

from mts_dagster.errors import MtsError


class StrategyError(MtsError):
    """A strategy's file cannot be used, or what it returned breaks the contract of signals."""


class LookAheadError(StrategyError):
    """A decision changes when rows that became known only after it are taken away."""
