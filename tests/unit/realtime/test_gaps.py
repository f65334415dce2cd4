"""The gap ledger: every gap that was open ends as rows."""

from __future__ import annotations

from mts_realtime.gaps import Covered, Gap, GapLedger, GapReason

TICKER = Covered("bybit", "BTCUSDT", "tickers.BTCUSDT", ("funding", "tickers"))
BOOK = Covered("bybit", "BTCUSDT", "orderbook.50.BTCUSDT", ("order_book",))


def ledger() -> tuple[GapLedger, list[Gap]]:
    declared: list[Gap] = []
    return GapLedger(declared.append), declared


def test_closing_declares_every_dataset_of_the_topic() -> None:
    """A topic that feeds two datasets misses in both."""
    gaps, declared = ledger()
    gaps.open(TICKER, 10, GapReason.SILENCE)
    gaps.close(TICKER, 30)
    assert [(gap.dataset, gap.start_ns, gap.end_ns, gap.reason) for gap in declared] == [
        ("funding", 10, 30, "silence"),
        ("tickers", 10, 30, "silence"),
    ]
    assert gaps.declared == {"silence": 1}


def test_first_start_and_reason_stay() -> None:
    """What breaks an already broken topic makes its gap no shorter."""
    gaps, declared = ledger()
    gaps.open(BOOK, 10, GapReason.SILENCE)
    gaps.open(BOOK, 20, GapReason.DISCONNECTED)
    gaps.close(BOOK, 30)
    assert [(gap.start_ns, gap.reason) for gap in declared] == [(10, "silence")]


def test_rolling_shows_a_lasting_gap_and_goes_on() -> None:
    """Declared up to now, still open from now: the pieces join without overlap."""
    gaps, declared = ledger()
    gaps.open(BOOK, 10, GapReason.SILENCE)
    gaps.roll(100)
    assert gaps.is_open(BOOK)
    gaps.close(BOOK, 130)
    assert [(gap.start_ns, gap.end_ns) for gap in declared] == [(10, 100), (100, 130)]


def test_closing_what_is_not_open_is_nothing() -> None:
    """Every event of a live topic may try."""
    gaps, declared = ledger()
    gaps.close(BOOK, 30)
    assert declared == []


def test_gap_without_duration_is_none() -> None:
    """Start and end in one moment miss nothing."""
    gaps, declared = ledger()
    gaps.open(BOOK, 10, GapReason.STARTING)
    gaps.close(BOOK, 10)
    assert (declared, gaps.still_open()) == ([], [])
