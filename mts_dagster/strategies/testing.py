"""The test kit for strategies: finds what makes the results of a strategy untrue.

What belongs here: checks that any strategy has to pass, MTS's own and yours. In a test of yours::

    from mts_dagster.strategies.testing import assert_sound

    def test_dip_is_sound():
        assert_sound(Dip(DipConfig()), Market({"features_daily": frame}), date(2024, 1, 1), date(2025, 1, 1))

The checks: *schema* (signals fit their contract, every day of every asset is decided), *look_ahead* (decisions
stay the same when the later rows are taken away), *lookback* (nothing older than ``lookback_days`` matters),
*determinism* (no chance, no memory, no dependence on the order of rows, inputs stay untouched) and *config* (wrong
values are refused, parameters are usable over their whole range). What they cannot find: prices that a strategy keeps
at module level or reads from elsewhere, since only the rows that it is shown are taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mts_dagster.errors import ConfigError
from mts_dagster.strategies.base import FEATURES, Parameter, Strategy
from mts_dagster.strategies.config import build_config
from mts_dagster.strategies.decisions import conform, decide, first_difference
from mts_dagster.strategies.errors import StrategyError
from mts_dagster.strategies.market import Market

DEFAULT_CUTS = 40


@dataclass(frozen=True)
class Finding:
    """Something wrong with a strategy.

    Attributes:
        check: schema, look_ahead, lookback, determinism or config.
        message: what is wrong, with the first case.
    """

    check: str
    message: str


def assert_sound(strategy: Strategy[Any], market: Market, start: date, end: date, *, cuts: int = DEFAULT_CUTS) -> None:
    """Run all checks on the decisions of the days ``[start, end)``.

    Raises:
        StrategyError: names every finding.
    """
    findings = examine(strategy, market, start, end, cuts=cuts)
    if findings:
        listed = "; ".join(f"{finding.check}: {finding.message}" for finding in findings)
        raise StrategyError(f"strategy {strategy.name} is not sound: {listed}")


def examine(
    strategy: Strategy[Any], market: Market, start: date, end: date, *, cuts: int = DEFAULT_CUTS
) -> tuple[Finding, ...]:
    """Run all checks on the decisions of the days ``[start, end)``.

    Args:
        strategy: the strategy with a config.
        market: its input tables, from ``lookback_days`` before ``start`` on; real history finds most.
        start: first day decided on, inclusive.
        end: last day decided on, exclusive.
        cuts: number of times, spread evenly over the window, at which history is truncated.

    Returns:
        What is wrong; empty if nothing was found.
    """
    findings = [*_config(strategy)]
    try:
        inputs = market.prepared(strategy.inputs, strategy.config.assets)
        decisions = conform(strategy, decide(strategy, inputs, start, end, checked=False))
    except StrategyError as error:
        return (*findings, Finding("schema", str(error)))
    findings += _completeness(inputs, decisions, start, end)
    findings += _determinism(strategy, inputs, decisions, start, end)
    findings += _look_ahead(strategy, inputs, decisions, (start, end), cuts)
    findings += _lookback(strategy, inputs, decisions, cuts)
    findings += _tuned(strategy, inputs, start, end)
    return tuple(findings)


def _completeness(market: Market, decisions: pd.DataFrame, start: date, end: date) -> Iterator[Finding]:
    """Every day of every asset that has features has a decision."""
    if FEATURES not in market.frames:
        return
    due = market.between(start, end).frames[FEATURES]
    wanted = pd.MultiIndex.from_arrays([due["date"].astype("datetime64[ns]"), due["coin"]])
    missing = wanted.difference(pd.MultiIndex.from_frame(decisions[["date", "asset"]]))
    if len(missing):
        day, coin = missing.to_frame(index=False).iloc[0]
        yield Finding(
            "schema", f"{len(missing)} of {len(wanted)} days have no decision, first {coin} on {day:%Y-%m-%d}"
        )


def _determinism(
    strategy: Strategy[Any], market: Market, decisions: pd.DataFrame, start: date, end: date
) -> Iterator[Finding]:
    """Two runs, a new instance and rows in another order agree, and no run changes its inputs."""
    before = {name: frame.copy(deep=True) for name, frame in market.frames.items()}
    shuffled = Market({name: frame.sample(frac=1, random_state=0) for name, frame in market.frames.items()})
    for what, runner, rows in (
        ("a second run", strategy, market),
        ("a new instance", type(strategy)(strategy.config), market),
        ("rows in another order", strategy, shuffled),
    ):
        difference = _difference(runner, rows, decisions, start, end)
        if difference:
            yield Finding("determinism", f"with {what} {difference}")
    strategy.signals(strategy.analyse(market))
    for name, frame in before.items():
        if not frame.equals(market.frames[name]):
            yield Finding("determinism", f"a run changes its input table {name}")


def _look_ahead(
    strategy: Strategy[Any], market: Market, decisions: pd.DataFrame, window: tuple[date, date], cuts: int
) -> Iterator[Finding]:
    """Decisions up to a time are the same when only the rows known at that time exist."""
    for moment in _spread(decisions["timestamp"], cuts):
        known = decisions[decisions["timestamp"] <= moment]
        difference = _difference(strategy, market.known_at(moment), known, *window)
        if difference:
            yield Finding(
                "look_ahead", f"without the rows known only after {moment:%Y-%m-%d %H:%M:%S} UTC {difference}"
            )
            return


def _lookback(strategy: Strategy[Any], market: Market, decisions: pd.DataFrame, cuts: int) -> Iterator[Finding]:
    """A day's decisions are the same when nothing older than the lookback exists."""
    for day in (moment.date() for moment in _spread(decisions["date"], cuts)):
        beyond = day + timedelta(days=1)
        recent = market.between(day - timedelta(days=strategy.lookback_days), beyond)
        that_day = decisions[decisions["date"] == pd.Timestamp(day)]
        difference = _difference(strategy, recent, that_day, day, beyond)
        if difference:
            yield Finding("lookback", f"with lookback_days = {strategy.lookback_days} alone before {day} {difference}")
            return


def _config(strategy: Strategy[Any]) -> Iterator[Finding]:
    """Unknown fields and later changes are refused, and the config survives its JSON."""
    model, values = strategy.config_type, strategy.config.model_dump()
    if not _refused(strategy, {**values, "no_such_field": 1}):
        yield Finding("config", f"{model.__name__} accepts an unknown field; keep extra='forbid'")
    if not model.model_config.get("frozen"):
        yield Finding("config", f"{model.__name__} can be changed after loading; keep frozen=True")
    try:
        same = model.model_validate_json(strategy.config.model_dump_json()) == strategy.config
    except ValidationError as error:
        same, reason = False, f": {error.errors()[0]['msg']}"
    else:
        reason = ""
    if not same:
        yield Finding("config", f"{model.__name__} does not survive being written to JSON and read again{reason}")
    for parameter in strategy.parameters():
        yield from _bounds(strategy, parameter)


def _bounds(strategy: Strategy[Any], parameter: Parameter) -> Iterator[Finding]:
    """A parameter's value lies within its bounds and the config accepts both ends."""
    if not parameter.low <= parameter.value <= parameter.high:
        bounds = f"{parameter.low}..{parameter.high}"
        yield Finding("config", f"parameter {parameter.name} is {parameter.value}, outside its bounds {bounds}")
    if not 0 < parameter.step <= parameter.high - parameter.low:
        yield Finding("config", f"parameter {parameter.name}: step {parameter.step} does not fit its bounds")
    for end in (parameter.low, parameter.high):
        try:
            strategy.tuned({parameter.name: end})
        except ConfigError as error:
            yield Finding("config", f"parameter {parameter.name} cannot take its own bound {end}: {error}")


def _tuned(strategy: Strategy[Any], market: Market, start: date, end: date) -> Iterator[Finding]:
    """The strategy works at both ends of each parameter."""
    for parameter in strategy.parameters():
        for bound in (parameter.low, parameter.high):
            if _refused(strategy, {**strategy.config.model_dump(), parameter.name: bound}):
                continue  # reported by the config check
            tuned = strategy.tuned({parameter.name: bound})
            days = timedelta(days=tuned.lookback_days)
            try:
                conform(tuned, decide(tuned, market.between(start - days, end), start, end, checked=False))
            except StrategyError as error:
                yield Finding("config", f"with {parameter.name} = {bound}: {error}")


def _refused(strategy: Strategy[Any], values: Mapping[str, object]) -> bool:
    """Whether the config class refuses these values."""
    try:
        build_config(strategy.config_type, values)
    except ConfigError:
        return True
    return False


def _difference(strategy: Strategy[Any], market: Market, expected: pd.DataFrame, start: date, end: date) -> str:
    """How the decisions on another market differ from the expected ones; a failure is a difference too."""
    try:
        return first_difference(expected, decide(strategy, market, start, end, checked=False))
    except StrategyError as error:
        return f"it fails: {error}"


def _spread(times: pd.Series[pd.Timestamp], count: int) -> list[pd.Timestamp]:
    """At most ``count`` of the different times, spread evenly from the first to the last."""
    different = list(times.drop_duplicates().sort_values())
    positions = np.unique(np.linspace(0, len(different) - 1, min(count, len(different))).astype(int))
    return [different[position] for position in positions]
