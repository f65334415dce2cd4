"""Signal files: the day's decisions as JSON, for programs that do not read the lake.

What belongs here: the shape of the files (a pure builder) and putting them in place (a thin writer). The shape::

    {"timestamp": "2024-03-06T00:01:00Z",
     "signals": [{"strategy": ..., "asset": ..., "signal": "LONG" | "SHORT" | "FLAT", "confidence": 0..1,
                  "position_size": fraction of equity, "risk_level": "low" | "medium" | "high",
                  "price": USD or null, "reason": ...}],
     "market_context": {"vix_level": index points or null, "correlation_btc_vix": -1..1 or null}}

The first signals are those of the portfolio of all strategies, ``aggregate``, one for each asset. They alone have two
more members: ``decided_by`` (the rule that had the last word) and ``contributions`` (the signals that were heard:
strategy, signal, confidence, position_size, weight, and vote, which is weight times confidence, negative for short).
Whoever wants one position for each asset reads those; the others are what they were made of.

``signal`` is the position to hold from the next open on, not an order: LONG on two days in a row is one position.
``timestamp`` is the latest decision in the file. Where a strategy decides more than once a day, the last one
counts.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from datetime import date
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pandas as pd

BITCOIN = "bitcoin"
LATEST = "latest.json"


class Signal(TypedDict):
    """One strategy's decision on one asset."""

    strategy: str
    asset: str
    signal: str
    confidence: float
    position_size: float
    risk_level: str
    price: float | None
    reason: str


class Contribution(TypedDict):
    """One strategy's part in a decision of the portfolio."""

    strategy: str
    signal: str
    confidence: float
    position_size: float
    weight: float
    vote: float


class PortfolioSignal(Signal):
    """The portfolio's decision on one asset."""

    decided_by: str
    contributions: list[Contribution]


class MarketContext(TypedDict):
    """The market at the time of the decisions."""

    vix_level: float | None
    correlation_btc_vix: float | None


class SignalDocument(TypedDict):
    """Content of one file."""

    timestamp: str
    signals: list[PortfolioSignal | Signal]
    market_context: MarketContext


def build_documents(
    signals: pd.DataFrame, features: pd.DataFrame, portfolio: pd.DataFrame | None = None
) -> dict[date, SignalDocument]:
    """One document for each day that has a signal.

    Args:
        signals: ``TradingSignals``, any number of days and strategies.
        features: ``features_daily`` of these days; bitcoin's row gives the context, null where there is none.
        portfolio: ``AggregatedSignals`` of these days.
    """
    decisions = _portfolio_signals(portfolio)
    bitcoin = features[features["coin"] == BITCOIN]
    context = dict(zip(_days(bitcoin), bitcoin[["vix", "vix_correlation"]].to_numpy(dtype="float64"), strict=True))
    last = (
        signals.assign(date=_days(signals))
        .sort_values(["date", "strategy", "asset", "timestamp"])
        .drop_duplicates(["date", "strategy", "asset"], keep="last")
    )
    documents: dict[date, SignalDocument] = {}
    for day, group in groupby(last.to_dict("records"), key=itemgetter("date")):
        rows = list(group)
        vix, correlation = context.get(day, (None, None))
        documents[day] = {
            "timestamp": max(row["timestamp"] for row in rows).tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),
            "signals": [*decisions.get(day, []), *(_signal(row) for row in rows)],
            "market_context": {"vix_level": _number(vix), "correlation_btc_vix": _number(correlation)},
        }
    return documents


def write_documents(folder: Path, documents: Mapping[date, SignalDocument]) -> list[Path]:
    """Write ``signals_YYYY-MM-DD.json`` for each day, and ``latest.json`` with the newest day in the folder.

    A reader sees the old or the new file, never a part: each is written beside its place and renamed.

    Returns:
        The files of the days, oldest first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for day in sorted(documents):
        path = folder / f"signals_{day.isoformat()}.json"
        _replace(path, json.dumps(documents[day], indent=2, allow_nan=False) + "\n")
        paths.append(path)
    newest = max(folder.glob("signals_????-??-??.json"), default=None)
    if newest is not None:
        _replace(folder / LATEST, newest.read_text(encoding="utf-8"))
    return paths


def _days(frame: pd.DataFrame) -> list[date]:
    """Calendar days of a frame, whether the lake gave timestamps or dates."""
    return [moment.date() for moment in pd.to_datetime(frame["date"])]


def _signal(row: Mapping[Hashable, Any]) -> Signal:
    return {
        "strategy": str(row["strategy"]),
        "asset": str(row["asset"]),
        "signal": str(row["direction"]).upper(),
        "confidence": float(row["confidence"]),
        "position_size": float(row["position_size"]),
        "risk_level": str(row["risk_level"]),
        "price": _number(row["price"]),
        "reason": str(row["reason"]),
    }


def _portfolio_signals(portfolio: pd.DataFrame | None) -> dict[date, list[PortfolioSignal]]:
    if portfolio is None:
        return {}
    rows = portfolio.assign(date=_days(portfolio)).sort_values(["date", "asset"]).to_dict("records")
    return {day: [_portfolio_signal(row) for row in group] for day, group in groupby(rows, key=itemgetter("date"))}


def _portfolio_signal(row: Mapping[Hashable, Any]) -> PortfolioSignal:
    contributions: list[Contribution] = [
        {
            "strategy": part["strategy"],
            "signal": part["direction"].upper(),
            "confidence": part["confidence"],
            "position_size": part["position_size"],
            "weight": part["weight"],
            "vote": part["vote"],
        }
        for part in json.loads(row["contributions"])
    ]
    return {**_signal(row), "decided_by": str(row["decided_by"]), "contributions": contributions}


def _number(value: float | None) -> float | None:
    """A float, or None where there is no value: JSON knows no NaN."""
    return None if value is None or pd.isna(value) else float(value)


def _replace(path: Path, text: str) -> None:
    """Put a file in place in one step."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
