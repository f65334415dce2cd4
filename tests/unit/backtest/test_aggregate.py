"""The aggregator: votes, limits and the rule that decided, with the numbers worked out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_dagster.errors import UsageError
from mts_dagster.schemas import TradingSignals
from mts_dagster.strategies.aggregate import AggregationConfig, PortfolioState, aggregate, state_after

DAY = pd.Timestamp("2024-03-01")
LOOSE = AggregationConfig(max_position=1.0, max_portfolio_risk=1.0, target_volatility_pct=1000.0)

Said = tuple[str, str, str, float, float]  # strategy, asset, direction, confidence, size


def signal_rows(*said: Said, day: pd.Timestamp = DAY, price: float = 100.0) -> pd.DataFrame:
    """Return one day's signals, decided a minute after its close."""
    known = (day + pd.Timedelta(days=1, minutes=1)).tz_localize("UTC")
    frame = pd.DataFrame(said, columns=["strategy", "asset", "direction", "confidence", "position_size"])
    return frame.assign(
        date=day,
        timestamp=known,
        available_at=known,
        risk_level=np.where(frame["direction"] == "flat", "low", "medium"),
        price=price,
        reason="because",
        config_hash="0123456789ab",
    )


def calm(*days: pd.Timestamp, volatility_pct: float = 40.0) -> pd.DataFrame:
    """Return the volatility of three coins."""
    coins = ("bitcoin", "ethereum", "binancecoin")
    rows = [(day, coin, volatility_pct) for day in days or (DAY,) for coin in coins]
    return pd.DataFrame(rows, columns=["date", "coin", "volatility_30d_ann_pct"])


def decided(*said: Said, config: AggregationConfig = LOOSE, **more: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - volatility or state
    """Return the decisions of one day by asset."""
    rows, _ = aggregate(signal_rows(*said), more.pop("volatility", calm()), config, **more)
    return {str(row["asset"]): {str(name): value for name, value in row.items()} for row in rows.to_dict("records")}


def test_one_strategy_alone_is_followed() -> None:
    """Confidence 0.8 of weight 1; the size is its size."""
    row = decided(("a", "bitcoin", "long", 0.8, 0.1))["bitcoin"]
    assert (row["direction"], row["confidence"]) == ("long", 0.8)
    assert row["position_size"] == pytest.approx(0.1)
    assert row["decided_by"] == "vote"


def test_opposing_signals_are_settled_by_weighted_votes() -> None:
    """Long 2 x 0.6 = 1.2 against short 1 x 0.8: margin 0.4 / 2.0 = 0.2, size 0.1 x 0.2, confidence 0.4 / 3."""
    config = LOOSE.model_copy(update={"weights": {"a": 2.0}, "min_margin": 0.15})
    row = decided(("a", "bitcoin", "long", 0.6, 0.1), ("b", "bitcoin", "short", 0.8, 0.1), config=config)["bitcoin"]
    assert row["direction"] == "long"
    assert row["position_size"] == pytest.approx(0.02)
    assert row["confidence"] == pytest.approx(0.4 / 3)


def test_a_small_majority_is_flat() -> None:
    """Long 0.6 against short 0.5: margin 0.1 / 1.1 = 0.09 is below 0.2."""
    row = decided(("a", "bitcoin", "long", 0.6, 0.1), ("b", "bitcoin", "short", 0.5, 0.1))["bitcoin"]
    assert (row["direction"], row["position_size"], row["decided_by"]) == ("flat", 0.0, "conflict")
    assert "margin 0.09 is below 0.20" in row["reason"]


def test_a_tie_is_flat_even_without_a_margin() -> None:
    """Equal votes have no winner."""
    config = LOOSE.model_copy(update={"min_margin": 0.0})
    row = decided(("a", "bitcoin", "long", 0.5, 0.1), ("b", "bitcoin", "short", 0.5, 0.1), config=config)["bitcoin"]
    assert (row["direction"], row["decided_by"]) == ("flat", "conflict")


def test_flat_lowers_confidence_and_votes_for_neither_side() -> None:
    """One long at 0.9 among three: full margin, confidence 0.3."""
    said = (("a", "bitcoin", "long", 0.9, 0.1), ("b", "bitcoin", "flat", 0.0, 0.0), ("c", "bitcoin", "flat", 0.0, 0.0))
    row = decided(*said)["bitcoin"]
    assert row["position_size"] == pytest.approx(0.1)
    assert row["confidence"] == pytest.approx(0.3)


def test_all_flat_is_no_vote() -> None:
    """Nobody wants anything."""
    assert decided(("a", "bitcoin", "flat", 0.0, 0.0))["bitcoin"]["decided_by"] == "no_vote"


def test_winners_sizes_are_weighted_as_their_votes() -> None:
    """0.9 x 0.10 and 0.3 x 0.02 over 1.2 is 0.08."""
    row = decided(("a", "bitcoin", "long", 0.9, 0.10), ("b", "bitcoin", "long", 0.3, 0.02))["bitcoin"]
    assert row["position_size"] == pytest.approx(0.08)


def test_a_weight_of_zero_silences_a_strategy() -> None:
    """Its opposition does not count, and neither does its presence."""
    config = LOOSE.model_copy(update={"weights": {"b": 0.0}})
    row = decided(("a", "bitcoin", "long", 0.6, 0.1), ("b", "bitcoin", "short", 0.9, 0.1), config=config)["bitcoin"]
    assert (row["direction"], row["confidence"]) == ("long", 0.6)


def test_a_hedged_pair_has_no_vote_on_direction() -> None:
    """It is recorded with weight 0: the short decides alone, and a pair alone moves nothing."""
    said = (
        ("pair", "bitcoin", "long", 1.0, 0.1),
        ("b", "bitcoin", "short", 0.6, 0.1),
        ("pair", "ethereum", "long", 1.0, 0.1),
    )
    rows = decided(*said, hedged=("pair",))
    assert (rows["bitcoin"]["direction"], rows["bitcoin"]["confidence"]) == ("short", 0.6)
    assert (rows["ethereum"]["direction"], rows["ethereum"]["decided_by"]) == ("flat", "no_vote")
    heard = {item["strategy"]: item["weight"] for item in json.loads(rows["bitcoin"]["contributions"])}
    assert heard == {"b": 1.0, "pair": 0.0}


def test_the_contributions_are_recorded() -> None:
    """Who said what, with which weight, and how much it counted."""
    row = decided(("a", "bitcoin", "long", 0.8, 0.1), ("b", "bitcoin", "short", 0.1, 0.1))["bitcoin"]
    heard = json.loads(row["contributions"])
    assert [(item["strategy"], item["vote"]) for item in heard] == [("a", 0.8), ("b", pytest.approx(-0.1))]
    assert heard[0]["reason"] == "because"


def test_volatility_reduces_the_size_and_never_enlarges_it() -> None:
    """80 % against a target of 50 % leaves 0.625 of the size; 25 % leaves all of it."""
    config = LOOSE.model_copy(update={"target_volatility_pct": 50.0})
    wild = decided(("a", "bitcoin", "long", 1.0, 0.08), config=config, volatility=calm(volatility_pct=80.0))["bitcoin"]
    assert wild["position_size"] == pytest.approx(0.05)
    assert wild["decided_by"] == "volatility"
    tame = decided(("a", "bitcoin", "long", 1.0, 0.08), config=config, volatility=calm(volatility_pct=25.0))["bitcoin"]
    assert tame["position_size"] == pytest.approx(0.08)


def test_unknown_volatility_is_flat() -> None:
    """What cannot be sized is not held."""
    row = decided(("a", "bitcoin", "long", 1.0, 0.08), volatility=calm().iloc[:0])["bitcoin"]
    assert (row["direction"], row["decided_by"]) == ("flat", "volatility_unknown")


def test_a_position_is_cut_to_its_limit() -> None:
    """0.5 becomes 0.1."""
    config = LOOSE.model_copy(update={"max_position": 0.1})
    row = decided(("a", "bitcoin", "short", 1.0, 0.5), config=config)["bitcoin"]
    assert (row["direction"], row["position_size"], row["decided_by"]) == ("short", 0.1, "position_limit")


def test_positions_beyond_the_portfolio_risk_are_scaled_alike() -> None:
    """0.2 + 0.1 + 0.2 = 0.5 against 0.25: each half."""
    config = LOOSE.model_copy(update={"max_portfolio_risk": 0.25})
    rows = decided(
        ("a", "bitcoin", "long", 1.0, 0.2),
        ("a", "ethereum", "short", 1.0, 0.1),
        ("a", "binancecoin", "long", 1.0, 0.2),
        config=config,
    )
    assert [rows[c]["position_size"] for c in ("bitcoin", "ethereum", "binancecoin")] == pytest.approx([0.1, 0.05, 0.1])
    assert {row["decided_by"] for row in rows.values()} == {"portfolio_risk"}


def test_positions_without_a_signal_today_count_into_the_risk() -> None:
    """0.15 held in ethereum leaves 0.10 of 0.25 for bitcoin."""
    config = LOOSE.model_copy(update={"max_portfolio_risk": 0.25})
    before = PortfolioState(positions={"ethereum": -0.15}, prices={"ethereum": 10.0})
    row = decided(("a", "bitcoin", "long", 1.0, 0.2), config=config, before=before)["bitcoin"]
    assert row["position_size"] == pytest.approx(0.10)


def test_the_surest_openings_take_the_trades_of_the_day() -> None:
    """One trade: ethereum at 0.9 has it, bitcoin at 0.5 waits."""
    config = LOOSE.model_copy(update={"max_trades_per_day": 1})
    rows = decided(("a", "bitcoin", "long", 0.5, 0.1), ("a", "ethereum", "long", 0.9, 0.1), config=config)
    assert (rows["ethereum"]["direction"], rows["bitcoin"]["direction"]) == ("long", "flat")
    assert rows["bitcoin"]["decided_by"] == "trade_limit"


@pytest.mark.parametrize(("direction", "size", "left"), [("flat", 0.0, 0.0), ("long", 0.04, 0.04), ("short", 0.1, 0.0)])
def test_closing_needs_no_trade(direction: str, size: float, left: float) -> None:
    """With no trade left a position of 0.1 can be closed or reduced; a reversal only closes."""
    config = LOOSE.model_copy(update={"max_trades_per_day": 0})
    before = PortfolioState(positions={"bitcoin": 0.1}, prices={"bitcoin": 100.0})
    row = decided(("a", "bitcoin", direction, 1.0, size), config=config, before=before)["bitcoin"]
    assert row["position_size"] == pytest.approx(left)


def test_a_small_change_keeps_the_position() -> None:
    """From 0.100 to 0.103 is not worth a trade, to 0.12 it is."""
    before = PortfolioState(positions={"bitcoin": 0.1}, prices={"bitcoin": 100.0})
    kept = decided(("a", "bitcoin", "long", 1.0, 0.103), before=before)["bitcoin"]
    assert (kept["position_size"], kept["decided_by"]) == (0.1, "unchanged")
    assert decided(("a", "bitcoin", "long", 1.0, 0.12), before=before)["bitcoin"]["position_size"] == 0.12


def fall(config: AggregationConfig) -> tuple[pd.DataFrame, PortfolioState]:
    """Return decisions over days on which a full position loses half and the price then stays."""
    days = [DAY + pd.Timedelta(days=i) for i in range(6)]
    prices = [100.0, 100.0, 50.0, 50.0, 50.0, 50.0]
    said = ("a", "bitcoin", "long", 1.0, 1.0)
    signals = [signal_rows(said, day=day, price=price) for day, price in zip(days, prices, strict=True)]
    return aggregate(pd.concat(signals), calm(*days), config)


def test_a_drawdown_stops_everything_for_a_while() -> None:
    """Down 50 % on the third day: flat that day and the next, long again after a pause of two days."""
    rows, _ = fall(LOOSE.model_copy(update={"max_drawdown_pct": 20.0, "drawdown_pause_days": 2}))
    assert rows["direction"].tolist() == ["long", "long", "flat", "flat", "long", "long"]
    assert rows["decided_by"].tolist()[2:4] == ["drawdown_stop", "drawdown_stop"]
    assert rows["paper_equity"].tolist() == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    assert rows["paper_peak"].tolist() == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.5, 0.5])


def test_a_drawdown_closes_positions_that_no_strategy_speaks_of() -> None:
    """Ethereum is held without a signal today; it gets a flat row of its own."""
    before = PortfolioState(positions={"bitcoin": 1.0, "ethereum": 0.5}, prices={"bitcoin": 200.0, "ethereum": 10.0})
    rows = decided(("a", "bitcoin", "long", 1.0, 0.5), before=before)
    assert rows["ethereum"]["direction"] == "flat"
    assert rows["ethereum"]["decided_by"] == "drawdown_stop"


def test_days_can_be_decided_one_by_one_from_the_stored_rows() -> None:
    """Deciding all at once equals deciding each day from the state that the rows before it tell."""
    config = LOOSE.model_copy(update={"max_drawdown_pct": 20.0, "drawdown_pause_days": 2})
    whole, _ = fall(config)
    parts: list[pd.DataFrame] = []
    for number, price in enumerate([100.0, 100.0, 50.0, 50.0, 50.0, 50.0]):
        day = DAY + pd.Timedelta(days=number)
        state = state_after(pd.concat(parts)) if parts else None
        signals = signal_rows(("a", "bitcoin", "long", 1.0, 1.0), day=day, price=price)
        parts.append(aggregate(signals, calm(day), config, state)[0])
    single = pd.concat(parts, ignore_index=True)
    columns = ["direction", "position_size", "decided_by", "paper_equity", "paper_peak"]
    pd.testing.assert_frame_equal(single[columns], whole[columns])


def test_the_rows_keep_the_contract_of_signals() -> None:
    """They can be stored, published and backtested like any strategy's."""
    rows, _ = aggregate(
        signal_rows(("a", "bitcoin", "long", 0.8, 0.1), ("a", "ethereum", "flat", 0.0, 0.0)), calm(), LOOSE
    )
    contract = list(TradingSignals.to_schema().columns)
    TradingSignals.validate(rows[contract])
    assert (rows["strategy"] == "aggregate").all()


def test_a_day_is_decided_when_its_last_signal_is_known() -> None:
    """One strategy is an hour late, and the limits tie all assets together."""
    rows = signal_rows(("a", "bitcoin", "long", 1.0, 0.1), ("b", "ethereum", "long", 1.0, 0.1))
    rows.loc[1, ["timestamp", "available_at"]] += pd.Timedelta(hours=1)
    found, _ = aggregate(rows, calm(), LOOSE)
    assert found["timestamp"].tolist() == [rows["timestamp"].max()] * 2


def test_of_several_decisions_on_one_day_the_last_counts() -> None:
    """Hourly strategies decide again; the earlier word is gone."""
    early, late = signal_rows(("a", "bitcoin", "short", 1.0, 0.1)), signal_rows(("a", "bitcoin", "long", 1.0, 0.1))
    early["timestamp"] -= pd.Timedelta(hours=5)
    found, _ = aggregate(pd.concat([late, early]), calm(), LOOSE)
    assert found["direction"].tolist() == ["long"]


def test_assets_outside_the_config_are_left_out() -> None:
    """Only what the config names is decided on."""
    found, _ = aggregate(signal_rows(("a", "dogecoin", "long", 1.0, 0.1)), calm(), LOOSE)
    assert found.empty


def test_a_missing_column_is_named() -> None:
    """A frame that is not of signals."""
    with pytest.raises(UsageError, match="confidence"):
        aggregate(signal_rows(("a", "bitcoin", "long", 1.0, 0.1)).drop(columns="confidence"), calm(), LOOSE)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_limits_hold_whatever_is_said(seed: int) -> None:
    """No position beyond 10 %, no portfolio beyond 25 %, no more openings a day than allowed."""
    rng = np.random.default_rng(seed)
    config = AggregationConfig(max_trades_per_day=2, max_drawdown_pct=10.0, drawdown_pause_days=2)
    days = [DAY + pd.Timedelta(days=i) for i in range(12)]
    said = []
    for day in days:
        rows: list[Said] = [
            (name, coin, str(rng.choice(["long", "short", "flat"])), float(rng.random()), float(rng.random()))
            for name in ("a", "b", "c")
            for coin in config.assets
            if rng.random() < 0.8
        ]
        said.append(signal_rows(*rows, day=day).assign(price=lambda f: 100 * np.exp(rng.normal(0, 0.2, len(f)))))
    found, _ = aggregate(pd.concat(said), calm(*days), config)
    positions = found["position_size"] * found["direction"].map({"long": 1, "short": -1, "flat": 0})
    table = found.assign(position=positions).pivot_table(index="date", columns="asset", values="position")
    held = table.ffill().fillna(0.0)
    assert (held.abs() <= 0.10 + 1e-9).all().all()
    assert (held.abs().sum(axis=1) <= 0.25 + 1e-9).all()
    before = held.shift(1, fill_value=0.0)
    opened = (held * before < 0) | (held.abs() > before.abs() + 1e-9)
    assert (opened.sum(axis=1) <= 2).all()
