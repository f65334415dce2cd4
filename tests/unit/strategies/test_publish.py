"""Signal files: exact shape, no NaN, whole files only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mts_dagster.strategies import FEATURES, Market, decide
from mts_dagster.strategies.aggregate import AggregationConfig, aggregate
from mts_dagster.strategies.publish import SignalDocument, build_documents, write_documents
from mts_dagster.strategies.vix_correlation import VixCorrelation, VixCorrelationConfig

Rows = Callable[..., pd.DataFrame]
DAYS = (date(2024, 3, 1), date(2024, 3, 4))


@pytest.fixture
def features(rows: Rows) -> pd.DataFrame:
    """Two days of bitcoin and ethereum; ethereum's features are unknown on the first."""
    bitcoin = rows(vix_correlation=[-0.8, 0.7], close_usd=[100.0, 110.0], vix=[14.5, 15.5])
    ethereum = rows(coin="ethereum", vix_correlation=[None, 0.0], close_usd=[None, 11.0])
    return pd.concat([bitcoin, ethereum], ignore_index=True)


@pytest.fixture
def signals(features: pd.DataFrame) -> pd.DataFrame:
    return decide(VixCorrelation(VixCorrelationConfig()), Market({FEATURES: features}), *DAYS)


def document(day: int) -> SignalDocument:
    return {
        "timestamp": f"2024-03-{day + 1:02d}T00:01:00Z",
        "signals": [],
        "market_context": {"vix_level": float(day), "correlation_btc_vix": None},
    }


def test_the_document_of_a_day(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """Every member, written out: required ones first, then price and reason; null where nothing is known."""
    assert build_documents(signals, features)[date(2024, 3, 1)] == {
        "timestamp": "2024-03-02T00:01:00Z",
        "signals": [
            {
                "strategy": "vix_correlation",
                "asset": "bitcoin",
                "signal": "LONG",
                "confidence": pytest.approx(0.5),
                "position_size": pytest.approx(0.1),
                "risk_level": "low",
                "price": 100.0,
                "reason": "correlation with VIX -0.800 over 30 observations is below -0.60",
            },
            {
                "strategy": "vix_correlation",
                "asset": "ethereum",
                "signal": "FLAT",
                "confidence": 0.0,
                "position_size": 0.0,
                "risk_level": "low",
                "price": None,
                "reason": "no close price on 2024-03-01",
            },
        ],
        "market_context": {"vix_level": 14.5, "correlation_btc_vix": -0.8},
    }


def test_each_day_has_its_own_document(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """The second day is short on bitcoin and has its own context."""
    documents = build_documents(signals, features)
    assert list(documents) == [date(2024, 3, 1), date(2024, 3, 2)]
    assert [signal["signal"] for signal in documents[date(2024, 3, 2)]["signals"]] == ["SHORT", "FLAT"]
    assert documents[date(2024, 3, 2)]["market_context"] == {"vix_level": 15.5, "correlation_btc_vix": 0.7}


def test_the_context_is_null_where_bitcoin_is_unknown(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """No row, or a null in it, becomes null and never NaN."""
    unknown = features[features["coin"] == "bitcoin"].assign(vix=float("nan"), vix_correlation=float("nan"))
    for frame in (unknown, unknown.iloc[:0]):
        context = build_documents(signals, frame)[date(2024, 3, 1)]["market_context"]
        assert context == {"vix_level": None, "correlation_btc_vix": None}


def test_the_last_decision_of_a_day_counts(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """A strategy that decides by the hour has one entry for each asset and day."""
    later = signals.assign(timestamp=signals["timestamp"] + pd.Timedelta(hours=1), direction="short")
    published = build_documents(pd.concat([later, signals]), features)[date(2024, 3, 1)]
    assert published["timestamp"] == "2024-03-02T01:01:00Z"
    assert [signal["signal"] for signal in published["signals"]] == ["SHORT", "SHORT"]


def test_the_portfolio_comes_first(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """One entry an asset, with the rule that decided and what was heard."""
    volatility = features.assign(volatility_30d_ann_pct=40.0)[["date", "coin", "volatility_30d_ann_pct"]]
    portfolio, _ = aggregate(signals, volatility, AggregationConfig(max_position=0.05))
    first, *others = build_documents(signals, features, portfolio)[date(2024, 3, 1)]["signals"]
    assert first == {
        "strategy": "aggregate",
        "asset": "bitcoin",
        "signal": "LONG",
        "confidence": pytest.approx(0.5),
        "position_size": pytest.approx(0.05),
        "risk_level": "low",
        "price": 100.0,
        "reason": "position_limit: 1 strategies, long 0.50 against short 0.00; "
        "0.100 exceeds the position limit of 0.050",
        "decided_by": "position_limit",
        "contributions": [
            {
                "strategy": "vix_correlation",
                "signal": "LONG",
                "confidence": pytest.approx(0.5),
                "position_size": pytest.approx(0.1),
                "weight": 1.0,
                "vote": pytest.approx(0.5),
            }
        ],
    }
    assert [(entry["strategy"], entry["asset"]) for entry in others] == [
        ("aggregate", "ethereum"),
        ("vix_correlation", "bitcoin"),
        ("vix_correlation", "ethereum"),
    ]


def test_no_signals_are_no_documents(signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """A day without decisions has no file."""
    assert build_documents(signals.iloc[:0], features) == {}


def test_files_hold_the_documents(tmp_path: Path, signals: pd.DataFrame, features: pd.DataFrame) -> None:
    """One file a day and latest.json, plain JSON that a strict reader takes, and nothing else."""
    documents = build_documents(signals, features)
    paths = write_documents(tmp_path / "signals", documents)
    assert [path.name for path in paths] == ["signals_2024-03-01.json", "signals_2024-03-02.json"]
    assert sorted(path.name for path in (tmp_path / "signals").iterdir()) == [
        "latest.json",
        "signals_2024-03-01.json",
        "signals_2024-03-02.json",
    ]

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    for path, content in zip(paths, documents.values(), strict=True):
        assert json.loads(path.read_text(), parse_constant=refuse) == content


def test_latest_is_the_newest_day_of_the_folder(tmp_path: Path) -> None:
    """Filling in an older day does not turn latest.json back."""
    write_documents(tmp_path, {date(2024, 3, 5): document(5)})
    write_documents(tmp_path, {date(2024, 3, 2): document(2)})
    assert json.loads((tmp_path / "latest.json").read_text()) == document(5)
    write_documents(tmp_path, {date(2024, 3, 6): document(6)})
    assert json.loads((tmp_path / "latest.json").read_text()) == document(6)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A value that JSON cannot hold fails before anything is replaced, and leaves no temporary file."""
    write_documents(tmp_path, {date(2024, 3, 5): document(5)})
    bad = document(5)
    bad["market_context"]["vix_level"] = float("nan")
    with pytest.raises(ValueError, match="Out of range float values"):
        write_documents(tmp_path, {date(2024, 3, 5): bad})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "signals_2024-03-05.json"]
    assert json.loads((tmp_path / "signals_2024-03-05.json").read_text()) == document(5)


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    """While the files are replaced again and again, each read is a whole document."""
    signal: Any = {"strategy": "s", "asset": "a", "reason": "r" * 200}
    contents = [{**document(day), "signals": [signal] * 400} for day in (1, 2)]
    write_documents(tmp_path, {date(2024, 3, 1): contents[0]})  # type: ignore[dict-item]
    done, seen, wrong = threading.Event(), 0, []

    def read() -> None:
        nonlocal seen
        while not done.is_set() or not seen:
            for name in ("signals_2024-03-01.json", "latest.json"):
                try:
                    assert json.loads((tmp_path / name).read_text()) in contents
                except (AssertionError, ValueError, OSError) as error:
                    wrong.append(error)
            seen += 1

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        write_documents(tmp_path, {date(2024, 3, 1): contents[turn % 2]})  # type: ignore[dict-item]
    done.set()
    reader.join()
    assert wrong == []
