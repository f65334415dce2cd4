"""What holds for every strategy that MTS delivers: the test kit, bounds, and behaviour without a price."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mts_dagster.settings import load_settings
from mts_dagster.strategies import FEATURES, Market, decide, load_strategies
from mts_dagster.strategies.testing import assert_sound

DecideOne = Callable[..., "pd.Series[Any]"]

STRATEGIES = load_strategies(load_settings(strategy_folders=()))
DELIVERED = (
    "buy_hold",
    "funding_arbitrage",
    "market_structure",
    "mean_reversion",
    "momentum",
    "spread_arbitrage",
    "vix_correlation",
    "volume_spike",
)
HEDGED = {"funding_arbitrage", "spread_arbitrage"}
each_strategy = pytest.mark.parametrize("name", list(STRATEGIES))
# No recording holds the funding or the books of two exchanges over a long time.
of_recorded_tables = pytest.mark.parametrize(
    "name", [name for name in STRATEGIES if STRATEGIES[name].inputs == (FEATURES,)]
)

maybe = st.none()
percent = st.floats(-99, 500)
feature_rows = st.lists(
    st.fixed_dictionaries(
        {
            "close_usd": maybe | st.floats(1e-6, 1e6),
            "return_pct": maybe | percent,
            "volatility_30d_ann_pct": maybe | st.floats(0, 1000),
            "drawdown_90d_pct": maybe | st.floats(0, 100),
            "vix": maybe | st.floats(5, 150),
            "vix_correlation": maybe | st.floats(-1, 1),
            "vix_correlation_pairs": st.integers(0, 30),
            "volume_zscore_30d": maybe | st.floats(-10, 10),
        }
    ),
    min_size=1,
    max_size=40,
)


hours = st.floats(0, 24)
table_values: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "funding_daily": {
        "long_venue": st.just("binance"),
        "short_venue": st.just("bybit"),
        "differential_pct_per_year": st.floats(0, 1000),
        "long_hours_covered": hours,
        "short_hours_covered": hours,
        "fees_bps": st.floats(0, 100),
    },
    "arbitrage_daily": {
        "kind": st.just("spread"),
        "hours_covered": hours,
        "opportunities": st.integers(200, 300),
        "lasting_opportunities": st.integers(0, 200),
        "lifetime_median_ms": st.floats(0, 1e7),
        "peak_net_median_bps": st.floats(-50, 50),
        "best_buy_exchange": st.just("bybit"),
        "best_sell_exchange": st.just("binance"),
    },
    "market_structure_daily": {
        "exchange": st.just("binance"),
        "samples": st.integers(1, 86_400),
        "hours_covered": hours,
        "hours_sampled": st.just(24),
        "hours_bid_heavy": st.integers(0, 24),
        "hours_ask_heavy": st.integers(0, 24),
        "imbalance_mean": st.floats(-1, 1),
        "liquidity_score_mean": st.floats(0, 100),
    },
}


def test_the_delivered_strategies_are_found() -> None:
    """Each is there by its name, in alphabetical order."""
    assert tuple(STRATEGIES) == DELIVERED


def test_the_hedged_strategies_say_so() -> None:
    """Everything else is a bet on the coin's price."""
    assert {name for name, strategy in STRATEGIES.items() if strategy.hedged} == HEDGED


@each_strategy
def test_it_is_sound_on_a_seeded_market(name: str, market: Market) -> None:
    """No look-ahead, lookback enough, deterministic, right shape, config and parameters usable."""
    assert_sound(STRATEGIES[name], market, date(2024, 2, 5), date(2024, 10, 20), cuts=12)


@of_recorded_tables
def test_it_is_sound_on_recorded_history(name: str, recorded_market: Market) -> None:
    """The same on BTC, ETH and BNB with VIX, 2024-02 to 2025-06."""
    assert_sound(STRATEGIES[name], recorded_market, date(2024, 2, 10), date(2025, 7, 1), cuts=12)


@each_strategy
def test_it_trades_on_the_seeded_market(name: str, market: Market) -> None:
    """The checks above are not empty: positions are held on some days, and each is between 0 and 1."""
    decisions = decide(STRATEGIES[name], market, date(2024, 2, 5), date(2024, 10, 20))
    held = decisions[decisions["direction"] != "flat"]
    assert len(held) > 20
    assert held["confidence"].between(0, 1).all()


@each_strategy
@given(rows=feature_rows, data=st.data())
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_confidence_and_size_stay_within_bounds(name: str, rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whatever the tables hold: confidence 0..1, size 0..maximum, nothing when flat, no NaN in a reason."""
    strategy = STRATEGIES[name]
    frame = pd.DataFrame(rows).astype("float64")
    frame = frame.assign(
        coin="bitcoin",
        date=pd.date_range("2024-01-01", periods=len(frame), unit="us"),
        available_at=pd.date_range("2024-01-02 00:01", periods=len(frame), unit="us", tz="UTC"),
    )
    tables = {FEATURES: frame}
    for table in strategy.inputs[1:]:
        drawn = data.draw(st.lists(st.fixed_dictionaries(table_values[table]), min_size=1, max_size=len(frame)))
        tables[table] = pd.DataFrame(drawn).assign(**frame[["coin", "date", "available_at"]].head(len(drawn)))
    signals = strategy.signals(strategy.analyse(Market(tables)))
    largest = getattr(strategy.config, "max_position_size", 1.0)
    flat = signals["direction"] == "flat"
    assert len(signals) == len(frame)
    assert signals["confidence"].between(0, 1).all()
    assert signals["position_size"].between(0, largest).all()
    assert np.array_equal(signals["position_size"] == 0, flat)
    assert (signals.loc[flat, "confidence"] == 0).all()
    assert not signals["reason"].str.contains(r"\bnan\b").any()


@each_strategy
def test_without_a_close_it_is_flat(name: str, decide_one: DecideOne) -> None:
    """No price, no position, and the reason says so."""
    signal = decide_one(STRATEGIES[name], close_usd=None, vix_correlation=-0.9, vix=50.0, drawdown_90d_pct=40.0)
    assert signal["direction"] == "flat"
    assert signal["reason"] == "no close price on 2024-03-01"
    assert pd.isna(signal["price"])


@each_strategy
def test_its_config_file_states_every_value(name: str) -> None:
    """No value of a delivered strategy hides in the code."""
    path = load_settings().strategy_config_folder / f"{name}.json"
    stated = pd.read_json(path, typ="series").index
    assert set(stated) == set(type(STRATEGIES[name].config).model_fields)
