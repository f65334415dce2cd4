"""Several windows at once: order, progress, refusals beside answers, renamed coins."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from mts_dagster.lake.slices import Slice
from mts_dagster.sources.errors import BlockedByLocationError, SourceError, UnknownSymbolError
from mts_dagster.sources.fetch import KlineWindow, fetch_klines, in_parallel
from mts_dagster.sources.history import candles
from mts_dagster.sources.instruments import Instrument
from mts_dagster.sources.klines import STEP_MS, Candle, ClockOffset, FundingRow, funding_frame, klines_frame

START = datetime(2024, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Exchange:
    """A venue with daily candles of what it lists; it knows no other symbol."""

    def __init__(self, name: str, symbols: dict[str, str], refusal: SourceError | None = None) -> None:
        self.name = name
        self.refusal = refusal
        self._symbols = symbols

    def perpetuals(self) -> list[Instrument]:
        if self.refusal is not None:
            raise self.refusal
        return [
            Instrument(self.name, symbol, base, "USDT", 0.1, 0.1, 5.0, is_trading=True)
            for symbol, base in self._symbols.items()
        ]

    def klines(
        self, coin: str, symbol: str, interval: str, start: datetime, end: datetime, *, multiplier: float = 1.0
    ) -> pd.DataFrame:
        if symbol not in self._symbols:
            raise UnknownSymbolError(self.name, "unknown symbol")
        step = STEP_MS[interval]
        opens = range(round(start.timestamp() * 1000), round(end.timestamp() * 1000), step)
        candles: list[Candle] = [(open_ms, "1", "1", "1", "1", "1", "1", 1) for open_ms in opens]
        return klines_frame(
            candles, coin=coin, venue=self.name, symbol=symbol, interval=interval, delay_s=0, multiplier=multiplier
        )

    def funding_rates(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        return funding_frame(symbol, [FundingRow(round(start.timestamp() * 1000), "0")] if start < end else [])

    def server_time(self) -> datetime:
        if self.refusal is not None:
            raise self.refusal
        return START + 400 * DAY

    def clock_offset(self) -> ClockOffset:
        return ClockOffset(0, 0)

    def close(self) -> None:
        """Nothing is open."""


def window(coin: str, venue: str = "binance", days: int = 31) -> KlineWindow:
    return KlineWindow(coin, venue, "1d", START, START + DAY * days)


LISTED = Exchange("binance", {"BTCUSDT": "BTC", "RENDERUSDT": "RENDER", "1000SHIBUSDT": "1000SHIB"})


def test_outcomes_come_in_the_order_asked_for() -> None:
    """One outcome for each window, whoever was faster."""
    windows = [window(coin) for coin in ("shiba-inu", "bitcoin", "tether")]
    outcomes = fetch_klines(windows, {"binance": LISTED})
    assert [outcome.window for outcome in outcomes] == windows
    assert [outcome.symbols for outcome in outcomes] == [("1000SHIBUSDT",), ("BTCUSDT",), ()]
    assert [len(outcome.frame) for outcome in outcomes] == [31, 31, 0]
    assert outcomes[0].frame["close"].iloc[0] == 0.001


def test_a_coin_without_a_perpetual_is_no_error() -> None:
    """Tether has no candles, an empty frame of the contract, and nothing went wrong."""
    (outcome,) = fetch_klines([window("tether")], {"binance": LISTED})
    assert outcome.error is None
    assert "open_time" in outcome.frame.columns


def test_a_refusal_does_not_end_the_other_venue() -> None:
    """Binance refuses the country: Bybit answers beside it."""
    refused = BlockedByLocationError("binance", "refused")
    venues = {"binance": Exchange("binance", {}, refused), "bybit": Exchange("bybit", {"BTCUSDT": "BTC"})}
    outcomes = fetch_klines([window("bitcoin", name) for name in venues], venues)
    assert [(outcome.error, len(outcome.frame)) for outcome in outcomes] == [(refused, 0), (None, 31)]


def test_a_renamed_coin_is_fetched_under_its_names() -> None:
    """July 2024 of Render: the old name is gone from the venue, the new one begins on the 26th."""
    (outcome,) = fetch_klines([window("render-token")], {"binance": LISTED})
    assert (outcome.error, outcome.symbols) == (None, ("RENDERUSDT",))
    assert outcome.frame["open_time"].min() == datetime(2024, 7, 26, tzinfo=UTC)
    both = Exchange("binance", {"RNDRUSDT": "RNDR", "RENDERUSDT": "RENDER"})
    (outcome,) = fetch_klines([window("render-token")], {"binance": both})
    assert outcome.frame.groupby("symbol").size().to_dict() == {"RNDRUSDT": 25, "RENDERUSDT": 6}
    assert outcome.frame["open_time"].is_unique


def test_progress_counts_every_window_in_the_callers_thread() -> None:
    """1 of 3 to 3 of 3, from the thread that may draw a progress bar."""
    seen: list[tuple[int, int, int]] = []
    fetch_klines(
        [window(coin) for coin in ("bitcoin", "shiba-inu", "tether")],
        {"binance": LISTED},
        on_done=lambda _window, done, total: seen.append((done, total, threading.get_ident())),
    )
    assert seen == [(done, 3, threading.get_ident()) for done in (1, 2, 3)]


def test_jobs_run_side_by_side() -> None:
    """Two jobs that wait for each other only end when both run at once."""
    barrier = threading.Barrier(2, timeout=20)
    assert set(in_parallel({"a": barrier.wait, "b": barrier.wait}, workers=2).values()) == {0, 1}


def test_a_defect_ends_everything() -> None:
    """What is no refusal of a service is raised, not collected."""
    with pytest.raises(ZeroDivisionError):
        in_parallel({"wrong": lambda: 1 // 0, "right": lambda: 1})


def test_a_window_reads_well() -> None:
    """Progress lines name venue, coin, interval and window."""
    assert str(window("bitcoin", days=1)) == "binance bitcoin 1d [2024-07-01 00:00, 2024-07-02 00:00) UTC"


JULY = (Slice(START, START + 31 * DAY, ("bitcoin", "render-token", "tether")),)


def test_the_second_venue_fills_what_the_first_one_lacks() -> None:
    """Binance lists bitcoin alone: Render comes from Bybit, bitcoin is not fetched twice."""
    venues = (Exchange("binance", {"BTCUSDT": "BTC"}), Exchange("bybit", {"BTCUSDT": "BTC", "RENDERUSDT": "RENDER"}))
    collected = candles(venues, JULY, ["1d"], {})
    assert collected.problems == ()
    assert collected.frame.groupby(["coin", "venue"]).size().to_dict() == {
        ("bitcoin", "binance"): 31,
        ("render-token", "bybit"): 6,
    }


def test_a_refused_venue_is_a_problem_in_words() -> None:
    """Bybit's rows and one line about Binance, however many windows it refused."""
    refused = Exchange("binance", {}, BlockedByLocationError("binance", "refused"))
    collected = candles((refused, Exchange("bybit", {"BTCUSDT": "BTC"})), JULY, ["1d", "1h"], {})
    assert collected.problems == ("binance: refused",)
    assert set(collected.frame["venue"]) == {"bybit"}


def test_no_answer_at_all_is_an_error() -> None:
    """When every venue refuses there is nothing to store, and the first refusal is raised."""
    with pytest.raises(BlockedByLocationError, match="binance: refused"):
        candles((Exchange("binance", {}, BlockedByLocationError("binance", "refused")),), JULY, ["1d"], {})


def test_no_venue_lists_any_of_the_coins() -> None:
    """Tether alone: no rows, no problem, the contract's columns."""
    collected = candles((LISTED,), (Slice(START, START + DAY, ("tether",)),), ["1d"], {})
    assert (len(collected.frame), collected.problems) == (0, ())
    assert "open_time" in collected.frame.columns
