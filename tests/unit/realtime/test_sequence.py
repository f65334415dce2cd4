"""Sequence rules as tables: before the snapshot, stale, first bridging, next, gap."""

from __future__ import annotations

import pytest

from mts_realtime.errors import SequenceGapError
from mts_realtime.events import BookDelta, BookSnapshot
from mts_realtime.exchanges.sequence import BinanceDiffDepth, BinancePartialDepth, BybitOrderBook, Verdict

GAP = "gap"


def snapshot(last: int, *, previous: int | None = None, cross: int | None = None) -> BookSnapshot:
    return BookSnapshot("t", 0, 0, last, previous, cross, [], [])


def delta(first: int, last: int, *, previous: int, cross: int | None = None) -> BookDelta:
    return BookDelta("t", 0, 0, first, last, previous, cross, [], [])


@pytest.mark.parametrize(
    ("last", "previous", "verdict", "missed"),
    [
        (101, 100, Verdict.APPLY, 0),
        (105, 103, Verdict.APPLY, 1),
        (100, 99, Verdict.DROP, 0),
        (99, 98, Verdict.DROP, 0),
    ],
)
def test_binance_partial_depth(last: int, previous: int, verdict: Verdict, missed: int) -> None:
    """After picture 100: P1 drops what is not newer, P2 counts what was missed and goes on."""
    rules = BinancePartialDepth("t")
    assert rules.snapshot(snapshot(100, previous=90)) is Verdict.APPLY
    assert rules.snapshot(snapshot(last, previous=previous)) is verdict
    assert rules.missed_pictures == missed


def test_update_on_a_stream_of_pictures_is_a_gap() -> None:
    """The stream is not the one it was taken for."""
    with pytest.raises(SequenceGapError):
        BinancePartialDepth("t").delta(delta(1, 2, previous=0))


@pytest.mark.parametrize(
    ("first", "last", "previous", "verdict"),
    [
        (90, 99, 89, Verdict.DROP),
        (95, 100, 94, Verdict.APPLY),
        (95, 105, 94, Verdict.APPLY),
        (100, 105, 99, Verdict.APPLY),
        (103, 108, 100, Verdict.APPLY),
        (101, 105, 98, GAP),
        (120, 125, 119, GAP),
    ],
)
def test_first_update_after_a_binance_snapshot(first: int, last: int, previous: int, verdict: Verdict | str) -> None:
    """After snapshot 100: D1 drops older ones, D2 wants the one that bridges, anything else is a gap."""
    rules = BinanceDiffDepth("t")
    rules.snapshot(snapshot(100))
    update = delta(first, last, previous=previous)
    if verdict is GAP:
        with pytest.raises(SequenceGapError, match="does not reach back to snapshot 100"):
            rules.delta(update)
    else:
        assert rules.delta(update) is verdict


@pytest.mark.parametrize(
    ("first", "last", "previous", "verdict"),
    [
        (106, 110, 105, Verdict.APPLY),
        (95, 105, 94, Verdict.DROP),
        (111, 115, 110, GAP),
        (106, 110, 104, GAP),
    ],
)
def test_next_binance_update(first: int, last: int, previous: int, verdict: Verdict | str) -> None:
    """At update 105: D3 wants ``pu`` 105, D4 drops repetitions."""
    rules = BinanceDiffDepth("t")
    rules.snapshot(snapshot(100))
    rules.delta(delta(95, 105, previous=94))
    update = delta(first, last, previous=previous)
    if verdict is GAP:
        with pytest.raises(SequenceGapError, match="book is at 105"):
            rules.delta(update)
    else:
        assert rules.delta(update) is verdict


@pytest.mark.parametrize(
    ("update", "cross", "verdict"),
    [
        (101, 1010, Verdict.APPLY),
        (101, 1000, Verdict.APPLY),
        (100, 1000, Verdict.DROP),
        (99, 990, Verdict.DROP),
        (102, 1020, GAP),
        (2, 1020, GAP),
        (101, 990, GAP),
        (150, 900, GAP),
    ],
)
def test_bybit_delta(update: int, cross: int, verdict: Verdict | str) -> None:
    """At update 100, seq 1000: B3 wants 101, B4 drops repetitions, B5 finds what disagrees."""
    rules = BybitOrderBook("t")
    rules.snapshot(snapshot(100, cross=1000))
    event = delta(update, update, previous=update - 1, cross=cross)
    if verdict is GAP:
        with pytest.raises(SequenceGapError, match=r"book is at 100 \(seq 1000\)"):
            rules.delta(event)
    else:
        assert rules.delta(event) is verdict


@pytest.mark.parametrize(
    ("update", "cross", "verdict"),
    [(200, 2000, Verdict.APPLY), (1, 1001, Verdict.APPLY), (100, 1000, Verdict.DROP), (90, 900, GAP), (1, 900, GAP)],
)
def test_bybit_snapshot(update: int, cross: int, verdict: Verdict | str) -> None:
    """A newer snapshot replaces (B1, restarts included), the same again is dropped, an older one is a gap."""
    rules = BybitOrderBook("t")
    rules.snapshot(snapshot(100, cross=1000))
    if verdict is GAP:
        with pytest.raises(SequenceGapError, match="older than seq 1000"):
            rules.snapshot(snapshot(update, cross=cross))
    else:
        assert rules.snapshot(snapshot(update, cross=cross)) is verdict


def test_reset_accepts_anything_again() -> None:
    """After a new subscription an old position means nothing."""
    rules = BybitOrderBook("t")
    rules.snapshot(snapshot(100, cross=1000))
    rules.reset()
    assert rules.snapshot(snapshot(5, cross=7)) is Verdict.APPLY
