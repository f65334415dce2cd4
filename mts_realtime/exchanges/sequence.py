"""Sequence rules of the exchanges' book streams: which update may be applied to which book.

What belongs here: one sequencer per exchange and product, pure and without levels. Rules are numbered as the code
cites them; their sources are named. A sequencer remembers sequence numbers only and answers with a verdict, or
raises ``SequenceGapError``, which is terminal for the book.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from mts_realtime.errors import SequenceGapError
from mts_realtime.events import BookDelta, BookSnapshot


class Verdict(IntEnum):
    """What to do with an update."""

    APPLY = 0
    DROP = 1
    """Older than the book, or the same again: nothing is lost by skipping it."""


class Sequencer(Protocol):
    """Judges the updates of one topic."""

    def __init__(self, topic: str) -> None: ...

    def snapshot(self, event: BookSnapshot) -> Verdict:
        """Judge a full picture."""
        ...

    def delta(self, event: BookDelta) -> Verdict:
        """Judge changed levels."""
        ...

    def reset(self) -> None:
        """Forget everything: the topic is subscribed to afresh."""
        ...


class BinancePartialDepth:
    """Binance USD-M ``@depth5``, ``@depth10``, ``@depth20``: each message is a full picture.

    Rules (derived from the stream's fields; the exchange promises no continuity for pictures):

    P1. Order by ``u``. A picture with ``u`` at or below the last one is dropped.
    P2. ``pu`` unequal to the last ``u`` means that a picture was missed. It is counted; this picture heals it.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.last_id = -1
        self.missed_pictures = 0

    def snapshot(self, event: BookSnapshot) -> Verdict:
        """Apply P1 and P2."""
        last = self.last_id
        if event.last_id <= last:
            return Verdict.DROP
        if last >= 0 and event.previous_id != last:
            self.missed_pictures += 1
        self.last_id = event.last_id
        return Verdict.APPLY

    def delta(self, event: BookDelta) -> Verdict:
        """Pictures have no deltas: one on this topic means that the stream is another one than thought."""
        raise SequenceGapError(self.topic, f"update {event.last_id} on a stream of pictures")

    def reset(self) -> None:
        """Forget the last picture."""
        self.last_id = -1


class BinanceDiffDepth:
    """Binance USD-M ``@depth``: updates on top of a REST snapshot.

    Rules ("How to manage a local order book correctly", USD-M futures; its steps 4 to 6):

    D1. Updates with ``u`` below the snapshot's ``lastUpdateId`` are dropped.
    D2. The first update applied must have ``U <= lastUpdateId <= u``. One whose ``pu`` equals ``lastUpdateId``
        continues the snapshot without a seam and is as good.
    D3. Afterwards each ``pu`` must equal the last ``u``; otherwise the book is invalid and starts again.
    D4. An update with ``u`` at or below the last one is a repetition and dropped (overlapping connections).
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.last_id = -1
        self.bridged = False

    def snapshot(self, event: BookSnapshot) -> Verdict:
        """Take the snapshot as the new start."""
        self.last_id = event.last_id
        self.bridged = False
        return Verdict.APPLY

    def delta(self, event: BookDelta) -> Verdict:
        """Apply D1 to D4."""
        last = self.last_id
        if self.bridged:
            if event.previous_id == last:
                self.last_id = event.last_id
                return Verdict.APPLY
            if event.last_id <= last:
                return Verdict.DROP
            raise SequenceGapError(
                self.topic, f"update {event.first_id}..{event.last_id} follows {event.previous_id}, book is at {last}"
            )
        if event.last_id < last:
            return Verdict.DROP
        if event.first_id <= last or event.previous_id == last:
            self.last_id = event.last_id
            self.bridged = True
            return Verdict.APPLY
        raise SequenceGapError(
            self.topic, f"first update {event.first_id}..{event.last_id} does not reach back to snapshot {last}"
        )

    def reset(self) -> None:
        """Forget snapshot and position."""
        self.last_id = -1
        self.bridged = False


class BybitOrderBook:
    """Bybit v5 ``orderbook.{depth}.{symbol}``: a snapshot, then deltas.

    Rules (v5 order book page; B3 to B5 follow from ``u`` being continuous and ``seq`` only growing):

    B1. A snapshot replaces everything, at any time.
    B2. ``u`` equal to 1 means that the service started again: the message is a snapshot, whatever its type says.
    B3. A delta must have ``u`` equal to the last ``u`` plus one.
    B4. ``u`` and ``seq`` both at or below the last ones: a repetition, dropped. This holds for snapshots too.
    B5. Anything else is a gap: ``u`` jumped, or ``u`` and ``seq`` disagree about which message is newer (a restart
        whose snapshot was missed, or a message from before it).
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.last_id = -1
        self.last_cross_id = -1

    def snapshot(self, event: BookSnapshot) -> Verdict:
        """Apply B1, B4 and B5."""
        cross = event.cross_id or 0
        if cross <= self.last_cross_id:
            if cross == self.last_cross_id and event.last_id == self.last_id:
                return Verdict.DROP
            raise SequenceGapError(
                self.topic, f"snapshot {event.last_id} (seq {cross}) is older than seq {self.last_cross_id}"
            )
        self.last_id = event.last_id
        self.last_cross_id = cross
        return Verdict.APPLY

    def delta(self, event: BookDelta) -> Verdict:
        """Apply B3, B4 and B5; B2 is applied where the message is read."""
        update, cross = event.last_id, event.cross_id or 0
        if update == self.last_id + 1 and cross >= self.last_cross_id:
            self.last_id = update
            self.last_cross_id = cross
            return Verdict.APPLY
        if update <= self.last_id and cross <= self.last_cross_id:
            return Verdict.DROP
        raise SequenceGapError(
            self.topic, f"update {update} (seq {cross}), book is at {self.last_id} (seq {self.last_cross_id})"
        )

    def reset(self) -> None:
        """Forget the position, so that any snapshot is accepted."""
        self.last_id = -1
        self.last_cross_id = -1
