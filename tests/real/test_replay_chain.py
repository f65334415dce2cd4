"""The whole chain on real recordings: the numbers in the lake are those of the files, computed another way."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import Chain
from .recordings import BAR_DELAY, PAIRS, SYMBOLS, daily_futures, known_vix

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real"), pytest.mark.timeout(600)]

FIRST_FUTURES_DAY = "2024-01-10"
LAST_DAY = "2025-06-30"
COINS = sorted(SYMBOLS)


def decided_at(day: pd.Timestamp) -> datetime:
    """When the decision on a day's close is possible."""
    return day.tz_localize(UTC).to_pydatetime() + timedelta(days=1) + BAR_DELAY


@pytest.mark.parametrize("coin", COINS)
def test_daily_closes_are_those_of_the_recorded_candles(chain: Chain, shared_data: Path, coin: str) -> None:
    """Each day has the close of the perpetual's own daily candle, to the last digit."""
    stored = chain.con.execute(
        "select date, close from ohlcv_daily where coin = ? and date between ? and ? order by date",
        [coin, FIRST_FUTURES_DAY, LAST_DAY],
    ).df()
    recorded = daily_futures(shared_data, coin)
    expected = recorded[(recorded.index >= FIRST_FUTURES_DAY) & (recorded.index <= LAST_DAY)]
    assert stored["date"].tolist() == expected.index.tolist()
    assert stored["close"].tolist() == expected["close"].tolist()


@pytest.mark.parametrize("coin", COINS)
def test_a_candle_still_in_progress_never_enters(chain: Chain, shared_data: Path, coin: str) -> None:
    """The recording's last row is an open candle: it is served, and must not be stored."""
    open_day = daily_futures(shared_data, coin).index[-1]
    row = chain.con.execute(
        "select max(open_time) filter (where interval = '1d'), max(close_time) from klines where coin = ?", [coin]
    ).fetchone()
    assert row is not None
    newest_daily, newest_close = row
    assert newest_daily == (open_day - timedelta(days=1)).tz_localize(UTC)
    assert newest_close <= pd.Timestamp("2026-03-19 19:00", tz=UTC)


def test_vix_is_filled_forward_by_availability_only(chain: Chain, shared_data: Path) -> None:
    """Each calendar day shows the newest VIX that was published before the day ended."""
    stored = chain.con.execute(
        "select date, value from macro_daily where indicator = 'VIXCLS' and date between '2024-01-01' and ? "
        "order by date",
        [LAST_DAY],
    ).df()
    expected = [known_vix(shared_data, day.tz_localize(UTC) + timedelta(days=1)).iloc[-1] for day in stored["date"]]
    assert len(stored) == (date(2025, 6, 30) - date(2024, 1, 1)).days + 1
    assert stored["value"].tolist() == expected


@pytest.mark.parametrize("coin", COINS)
def test_funding_is_that_of_the_recordings(chain: Chain, shared_data: Path, coin: str) -> None:
    """Every recorded settlement up to the last day, to the last digit; only the first has no interval."""
    recorded = pd.read_csv(shared_data / "funding" / f"binance_usdm_{SYMBOLS[coin]}USDT_funding_2025-2026.csv")
    recorded = recorded[recorded["funding_time"] < "2025-07-01"]
    stored = chain.con.execute(
        "select settled_at, funding_rate, interval_hours from funding_rates "
        "where coin = ? and settled_at < '2025-07-01' order by settled_at",
        [coin],
    ).df()
    assert stored["settled_at"].tolist() == pd.to_datetime(recorded["funding_time"], utc=True).tolist()
    assert stored["funding_rate"].tolist() == recorded["funding_rate"].tolist()
    assert stored["interval_hours"].fillna(-1).tolist() == [-1.0] + [8.0] * (len(recorded) - 1)


def expected_correlation(shared_data: Path, coin: str, day: pd.Timestamp) -> float | None:
    """Correlation of the last 30 steps between VIX observations known at the decision, by numpy."""
    closes = daily_futures(shared_data, coin)["close"]
    known = known_vix(shared_data, decided_at(day))
    known = known[known.index <= day].tail(2 * PAIRS)
    pairs = []
    for previous, current in zip(known.index[:-1], known.index[1:], strict=True):
        if previous in closes.index:
            pairs.append((math.log(closes[current] / closes[previous]), math.log(known[current] / known[previous])))
    if len(pairs) < PAIRS:
        return None
    return float(np.corrcoef(np.array(pairs[-PAIRS:]).T)[0, 1])


@pytest.mark.parametrize("coin", COINS)
def test_correlations_agree_with_an_independent_computation(chain: Chain, shared_data: Path, coin: str) -> None:
    """Every tenth day's 30-observation correlation agrees to 1e-9."""
    days = pd.date_range("2024-04-01", LAST_DAY, freq="10D")
    stored = chain.con.execute(
        "select date, vix_correlation from features_daily where coin = ? order by date", [coin]
    ).df()
    found = stored.set_index("date")["vix_correlation"].reindex(days)
    expected = [expected_correlation(shared_data, coin, day) for day in days]
    assert None not in expected
    np.testing.assert_allclose(found.to_numpy(), np.array(expected, dtype=float), rtol=0, atol=1e-9)


@pytest.mark.parametrize("coin", COINS)
def test_the_days_that_signal_are_those_beyond_the_threshold(chain: Chain, shared_data: Path, coin: str) -> None:
    """vix_correlation is long below -0.6, short above +0.6 and flat between, on exactly the computed days."""
    stored = chain.con.execute(
        "select date, direction from signals.vix_correlation_signals where asset = ? and date >= '2024-03-01' "
        "order by date",
        [coin],
    ).df()
    expected = []
    for day in stored["date"]:
        correlation = expected_correlation(shared_data, coin, day)
        if correlation is not None and correlation < -0.6:
            expected.append("long")
        elif correlation is not None and correlation > 0.6:
            expected.append("short")
        else:
            expected.append("flat")
    assert stored["direction"].tolist() == expected
    assert "long" in expected


@pytest.mark.parametrize("coin", COINS)
def test_mean_reversion_buys_fear_and_only_fear(chain: Chain, shared_data: Path, coin: str) -> None:
    """Long exactly when the known VIX is above 25 and the close is more than 10 % below its 90-day high."""
    closes = daily_futures(shared_data, coin)["close"]
    stored = chain.con.execute(
        "select date, direction from signals.mean_reversion_signals where asset = ? and date >= '2024-05-01' "
        "order by date",
        [coin],
    ).df()
    expected = []
    for day in stored["date"]:
        fear = known_vix(shared_data, decided_at(day)).iloc[-1]
        highest = closes[(closes.index > day - timedelta(days=90)) & (closes.index <= day)].max()
        expected.append("long" if fear > 25 and (1 - closes[day] / highest) * 100 > 10 else "flat")
    assert stored["direction"].tolist() == expected
    assert "long" in expected
