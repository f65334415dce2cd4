"""``decide``: only what was known counts, wrong signals are refused, and the order is fixed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mts_dagster.schemas import TradingSignals
from mts_dagster.strategies import (
    FEATURES,
    LookAheadError,
    Market,
    Rule,
    Strategy,
    StrategyConfig,
    StrategyError,
    decide,
)
from mts_dagster.strategies.momentum import Momentum, MomentumConfig

Rows = Callable[..., pd.DataFrame]
MARCH = (date(2024, 3, 1), date(2024, 4, 1))
COLUMNS = ("date", "coin", "available_at", "close_usd")


class Probe(Strategy[StrategyConfig]):
    """Long where ``score`` is positive, by the size of the score; what the score is, each test decides."""

    name = "probe"

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["close_usd"] - 100

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = market.table(FEATURES, COLUMNS)
        return frame.assign(score=self.score(frame))

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        score = analysis["score"].fillna(0.0)
        size = (score / 1000).clip(0.001, 1)
        return self.first_match(
            analysis,
            [Rule(score > 0, "long", "score {score:.6f}")],
            otherwise="no score",
            confidence=size,
            position_size=size,
            risk_level=pd.Series("low", index=analysis.index),
        )


class Change(Probe):
    """The move since the row before, whichever day that was."""

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame.groupby("coin")["close_usd"].diff()


class Leader(Probe):
    """How far a coin is above the mean of all coins of its day."""

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["close_usd"] - frame.groupby("date")["close_usd"].transform("mean")


class Peek(Probe):
    """Tomorrow's move."""

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame.groupby("coin")["close_usd"].shift(-1) - frame["close_usd"]


class WholeSample(Probe):
    """Compares with the mean over all days, later ones included."""

    def score(self, frame: pd.DataFrame) -> pd.Series[float]:
        return frame["close_usd"] - frame["close_usd"].mean()


class TooEarly(Probe):
    """Says that it decided at the day's beginning."""

    def analyse(self, market: Market) -> pd.DataFrame:
        frame = super().analyse(market)
        return frame.assign(available_at=frame["date"].dt.tz_localize("UTC"))


def probe(kind: type[Probe] = Probe, *assets: str) -> Probe:
    return kind(StrategyConfig(assets=assets or ("bitcoin",)))


def two_coins(rows: Rows, bitcoin: list[float], ethereum: list[float]) -> pd.DataFrame:
    return pd.concat([rows(coin="bitcoin", close_usd=bitcoin), rows(coin="ethereum", close_usd=ethereum)])


def literally(strategy: Probe, frame: pd.DataFrame) -> pd.DataFrame:
    """The meaning of ``decide``, word by word: one run a decision time, on the rows known then."""
    frame = frame.sort_values(["date", "coin"], ignore_index=True)
    parts = []
    for moment in sorted(frame["available_at"].unique()):
        known = Market({FEATURES: frame[frame["available_at"] <= moment]})
        signals = strategy.signals(strategy.analyse(known))
        parts.append(signals.loc[signals["timestamp"] == moment])
    whole: pd.DataFrame = pd.concat(parts).sort_values(["timestamp", "asset"], ignore_index=True)
    return whole


def test_decisions_fit_their_contract_exactly(rows: Rows) -> None:
    """The result has the columns and types of trading_signals, and nothing is left to coerce."""
    decisions = decide(probe(), Market({FEATURES: rows(close_usd=[90.0, 110.0])}), *MARCH)
    assert decisions.columns.tolist() == list(TradingSignals.to_schema().columns)
    pd.testing.assert_frame_equal(TradingSignals.validate(decisions), decisions)


def test_a_decision_is_stamped_with_when_it_was_possible(rows: Rows) -> None:
    """The close of 1 March counts as known one minute into 2 March."""
    decision = decide(probe(), Market({FEATURES: rows()}), *MARCH).iloc[0]
    known = pd.Timestamp("2024-03-02 00:01", tz="UTC")
    assert (decision["date"], decision["timestamp"], decision["available_at"]) == (
        pd.Timestamp("2024-03-01"),
        known,
        known,
    )


def test_the_window_is_half_open(rows: Rows) -> None:
    """The first day is in, the last is out."""
    market = Market({FEATURES: rows(close_usd=[100.0] * 10)})
    decisions = decide(probe(), market, date(2024, 3, 3), date(2024, 3, 6))
    assert decisions["date"].dt.day.tolist() == [3, 4, 5]


def test_days_from_the_end_on_are_not_shown(rows: Rows) -> None:
    """Even a strategy that peeks sees nothing after its window."""
    market = Market({FEATURES: rows(close_usd=[100.0, 200.0])})
    decisions = decide(probe(Peek), market, date(2024, 3, 1), date(2024, 3, 2))
    assert decisions["direction"].tolist() == ["flat"]


def test_coins_that_the_config_does_not_name_are_not_shown(rows: Rows) -> None:
    """A strategy on bitcoin alone neither decides on ethereum nor sees it."""
    market = Market({FEATURES: two_coins(rows, [100.0], [50.0])})
    decisions = decide(probe(Leader), market, *MARCH)
    assert decisions[["asset", "direction"]].to_numpy().tolist() == [["bitcoin", "flat"]]


def test_the_order_does_not_depend_on_the_order_of_rows(rows: Rows) -> None:
    """Time first, then asset, whatever the lake returned first."""
    frame = two_coins(rows, [101.0, 102.0, 103.0], [90.0, 120.0, 80.0])
    strategy = probe(Change, "ethereum", "bitcoin")
    ordered, mixed = (
        decide(strategy, Market({FEATURES: rows_}), *MARCH) for rows_ in (frame, frame.sample(frac=1, random_state=3))
    )
    assert ordered["asset"].tolist() == ["bitcoin", "ethereum"] * 3
    pd.testing.assert_frame_equal(ordered, mixed)


def test_a_row_that_comes_late_is_not_used_before(rows: Rows) -> None:
    """2 March is known only on 10 March: 3 March is decided without it, and 2 March itself on the 10th."""
    frame = rows(close_usd=[100.0, 50.0, 120.0, 121.0])
    frame.loc[1, "available_at"] = pd.Timestamp("2024-03-10", tz="UTC")
    decisions = decide(probe(Change), Market({FEATURES: frame}), *MARCH)
    assert decisions["date"].dt.day.tolist() == [1, 3, 4, 2]
    assert decisions["reason"].tolist() == ["no score", "score 20.000000", "score 1.000000", "no score"]


def test_a_late_row_of_a_day_outside_the_window_brings_no_decision(rows: Rows) -> None:
    """Bitcoin of 1 March comes together with ethereum of 2 March, while solana of 1 March is still missing."""
    frame = pd.concat([rows(coin=coin, close_usd=[100.0, 101.0]) for coin in ("bitcoin", "ethereum", "solana")])
    frame = frame.reset_index(drop=True)
    frame.loc[[0, 3], "available_at"] = pd.Timestamp("2024-03-03 00:05", tz="UTC")
    frame.loc[4, "available_at"] = pd.Timestamp("2024-03-05", tz="UTC")
    strategy = probe(Probe, "bitcoin", "ethereum", "solana")
    decisions = decide(strategy, Market({FEATURES: frame}), date(2024, 3, 2), date(2024, 3, 3))
    assert decisions["date"].dt.day.tolist() == [2, 2, 2]


def test_momentum_is_flat_while_its_earlier_close_is_late(rows: Rows) -> None:
    """A delivered strategy on late data: the move cannot be known yet."""
    frame = rows(close_usd=[100.0, 100.0, 120.0])
    frame.loc[1, "available_at"] = pd.Timestamp("2024-03-10", tz="UTC")
    decisions = decide(Momentum(MomentumConfig(window_days=1)), Market({FEATURES: frame}), *MARCH)
    third = decisions[decisions["date"] == "2024-03-03"].iloc[0]
    assert (third["direction"], third["reason"]) == ("flat", "no close 1 days earlier is known")


def test_another_coin_of_the_same_day_that_comes_late_is_not_used(rows: Rows) -> None:
    """Bitcoin at 100 leads no one while ethereum's 60 of the same day is unknown."""
    frame = two_coins(rows, [100.0], [60.0]).reset_index(drop=True)
    frame.loc[1, "available_at"] = pd.Timestamp("2024-03-02 00:40", tz="UTC")
    decisions = decide(probe(Leader, "bitcoin", "ethereum"), Market({FEATURES: frame}), *MARCH)
    assert decisions[["asset", "direction"]].to_numpy().tolist() == [["bitcoin", "flat"], ["ethereum", "flat"]]


@pytest.mark.parametrize("kind", [Probe, Change, Leader])
@given(
    closes=st.lists(st.tuples(st.integers(50, 150), st.integers(50, 150)), min_size=1, max_size=8),
    delays=st.lists(st.integers(0, 80), min_size=16, max_size=16),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_one_run_equals_a_run_for_each_decision(
    kind: type[Probe], closes: list[tuple[int, int]], delays: list[int]
) -> None:
    """With rows up to 80 hours late, decide gives what showing only the known rows each time gives."""
    days = pd.date_range("2024-03-01", periods=len(closes), unit="us")
    parts = [
        pd.DataFrame({"date": days, "coin": coin, "close_usd": [float(pair[position]) for pair in closes]})
        for position, coin in enumerate(("bitcoin", "ethereum"))
    ]
    frame = pd.concat(parts, ignore_index=True)
    late = pd.to_timedelta(delays[: len(frame)], unit="h").astype("timedelta64[us]")
    frame["available_at"] = frame["date"].dt.tz_localize("UTC") + pd.Timedelta(days=1) + late
    twice = frame.duplicated(["coin", "available_at"])
    frame.loc[twice, "available_at"] += pd.to_timedelta(np.arange(1, twice.sum() + 1), unit="s").astype(
        "timedelta64[us]"
    )
    strategy = probe(kind, "bitcoin", "ethereum")
    expected = TradingSignals.validate(literally(strategy, frame))
    pd.testing.assert_frame_equal(decide(strategy, Market({FEATURES: frame}), *MARCH), expected)


@pytest.mark.parametrize("kind", [Peek, WholeSample, TooEarly])
def test_looking_ahead_is_refused(rows: Rows, kind: type[Probe]) -> None:
    """Later rows are taken away at some times, and the decision that changes is named."""
    market = Market({FEATURES: rows(close_usd=[100.0 + (day * 7) % 11 for day in range(20)])})
    with pytest.raises(LookAheadError, match=r"strategy probe looks ahead: .* the decision on bitcoin at 2024-03-"):
        decide(probe(kind), market, *MARCH)


def test_looking_ahead_passes_where_checks_are_off(rows: Rows) -> None:
    """An optimiser that checked a strategy once may spare the cost."""
    market = Market({FEATURES: rows(close_usd=[100.0, 110.0, 120.0])})
    assert decide(probe(Peek), market, *MARCH, checked=False)["direction"].tolist() == ["long", "long", "flat"]


def test_no_rows_are_no_decisions(rows: Rows) -> None:
    """An empty window gives an empty frame of the right types."""
    decisions = decide(probe(), Market({FEATURES: rows()}), date(2025, 1, 1), date(2025, 2, 1))
    assert decisions.empty
    pd.testing.assert_frame_equal(TradingSignals.validate(decisions), decisions)


def test_an_empty_table_is_no_decisions(rows: Rows) -> None:
    """Before the first pull the strategy has nothing to say."""
    assert decide(probe(), Market({FEATURES: rows().iloc[:0]}), *MARCH).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="close_usd"), "table features_daily has no column close_usd"),
        (lambda frame: frame.drop(columns="date"), "table features_daily has no time column: it needs one of"),
        (lambda frame: frame.drop(columns="available_at"), "table features_daily has no column available_at"),
        (lambda frame: frame.assign(available_at=pd.NaT), "features_daily: available_at is null in 1 of 1 rows"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused(
    rows: Rows, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    """The table and the column are named."""
    with pytest.raises(StrategyError, match=message):
        decide(probe(), Market({FEATURES: change(rows())}), *MARCH)


def test_a_missing_input_is_refused() -> None:
    """The error tells which tables there are."""
    with pytest.raises(StrategyError, match=r"no table 'features_daily' \(it has: nothing\)"):
        decide(probe(), Market({}), *MARCH)


class Broken(Probe):
    """Its signals are spoilt by each test."""

    spoil: Callable[[pd.DataFrame], pd.DataFrame]

    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        return self.spoil(super().signals(analysis))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: f.assign(confidence=1.5),
            r"column confidence fails less_than.*\(1\) in 2 rows, first bitcoin at 2024-03-02 00:01:00 UTC: 1\.5",
        ),
        (
            lambda f: f.assign(direction=f["direction"].replace("flat", "up")),
            r"column direction fails isin\(.*\) in 1 rows, first bitcoin at 2024-03-03 00:01:00 UTC: up",
        ),
        (lambda f: f.assign(position_size=np.nan), "column position_size fails not_nullable in 2 rows"),
        (lambda f: f.assign(risk_level="extreme"), r"column risk_level fails isin\("),
        (lambda f: f.assign(price=-1.0), r"column price fails greater_than\(0\)"),
        (lambda f: f.drop(columns="reason"), r"columns missing: \['reason'\], not in the contract: \[\]"),
        (lambda f: f.assign(mood="good"), r"columns missing: \[\], not in the contract: \['mood'\]"),
        (lambda f: f.assign(timestamp=f["date"]), "column timestamp must be an aware time in UTC"),
        (lambda f: f.assign(strategy="other"), "column strategy is not the strategy's name in 2 rows"),
        (lambda f: f.assign(config_hash="0" * 12), "config_hash is not the config's in 2 rows"),
        (lambda f: f.assign(asset="dogecoin"), "the asset is not in the config in 2 rows"),
        (lambda f: pd.concat([f, f]), "there are two decisions for one asset and time in 2 rows"),
        (
            lambda f: f.assign(available_at=f["date"].dt.tz_localize("UTC")),
            "available_at is before the decision in 2 rows",
        ),
        (
            lambda f: f.assign(direction="flat"),
            "size must be 0 when flat and above 0 otherwise in 1 rows, first bitcoin at 2024-03-02 00:01:00",
        ),
        (lambda f: f.assign(position_size=0.0), "size must be 0 when flat and above 0 otherwise in 1 rows"),
    ],
)
def test_signals_that_break_their_contract_are_refused(
    rows: Rows, spoil: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    """The error names the column or rule, how many rows, and the first."""
    strategy = Broken(StrategyConfig(assets=("bitcoin",)))
    strategy.spoil = spoil
    with pytest.raises(StrategyError, match="signals of strategy probe break their contract: " + message):
        decide(strategy, Market({FEATURES: rows(close_usd=[110.0, 90.0])}), *MARCH)


def test_a_hedged_pair_cannot_be_short(rows: Rows) -> None:
    """A pair is held or not; short would be read as a bet on the coin."""

    class Pair(Broken):
        hedged = True

    strategy = Pair(StrategyConfig(assets=("bitcoin",)))
    strategy.spoil = lambda frame: frame.assign(direction=frame["direction"].replace("long", "short"))
    with pytest.raises(
        StrategyError, match="a hedged pair is held or not, it cannot be short in 1 rows, first bitcoin"
    ):
        decide(strategy, Market({FEATURES: rows(close_usd=[110.0, 90.0])}), *MARCH)


def test_a_failing_strategy_is_named(rows: Rows) -> None:
    """The cause stays attached for whoever wrote it."""

    class Failing(Probe):
        def score(self, frame: pd.DataFrame) -> pd.Series[float]:
            return frame["scoer"]

    with pytest.raises(StrategyError, match="strategy probe failed with KeyError: 'scoer'") as caught:
        decide(Failing(StrategyConfig()), Market({FEATURES: rows()}), *MARCH)
    assert isinstance(caught.value.__cause__, KeyError)


def test_tables_of_hours_work_like_tables_of_days() -> None:
    """Several decisions a day from a table ordered by open_time, each at its own time."""

    class Hourly(Probe):
        inputs = ("crypto_ohlcv",)

        def analyse(self, market: Market) -> pd.DataFrame:
            frame = market.table("crypto_ohlcv")
            day = frame["open_time"].dt.tz_localize(None).dt.normalize()
            score = frame["close"].diff()
            return frame.assign(date=day, close_usd=frame["close"], score=score)

    opened = pd.date_range("2024-03-01 22:00", periods=4, freq="h", tz="UTC", unit="us")
    bars = pd.DataFrame(
        {
            "coin": "bitcoin",
            "open_time": opened,
            "close": [1.0, 2.0, 3.0, 2.5],
            "available_at": opened + pd.Timedelta(minutes=61),
        }
    )
    decisions = decide(Hourly(StrategyConfig()), Market({"crypto_ohlcv": bars}), date(2024, 3, 1), date(2024, 3, 2))
    assert decisions["timestamp"].dt.strftime("%d %H:%M").tolist() == ["01 23:01", "02 00:01"]
    assert decisions["direction"].tolist() == ["flat", "long"]


def test_parts_of_a_window_add_up_to_the_window(market: Market) -> None:
    """A strategy decided month by month, each with its lookback, is the strategy decided in one run."""
    strategy: Strategy[Any] = Momentum(MomentumConfig())
    edges = [date(2024, month, 1) for month in (3, 4, 5, 6)]
    whole = decide(strategy, market, edges[0], edges[-1])
    parts = [
        decide(
            strategy,
            market.between((pd.Timestamp(start) - pd.Timedelta(days=strategy.lookback_days)).date(), end),
            start,
            end,
        )
        for start, end in pairwise(edges)
    ]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
