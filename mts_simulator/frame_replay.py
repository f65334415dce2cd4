"""Recorded WebSocket frames, played back to each connection at any speed.

What belongs here: reading recordings, and the source that plays them. A recording is a file of JSON lines (``.jsonl``,
also ``.gz``). A line holds the receive time in ``ts`` (seconds, ms, us or ns, told apart by size) and the frame, as an
object in the last member ``frame`` or as text in ``raw``. Other members are optional: ``dir`` (what was sent is passed
over), ``conn`` (number of the connection, see below), ``topic`` (whose REST snapshot it is), ``event`` (``start``
begins a new count of connections). A line without ``ts`` is a bare frame; its time is the exchange's own. Whose frame
it is follows from its members: ``stream`` is Binance's, ``topic`` Bybit's. Frames are sent byte for byte.

A body with ``lastUpdateId`` is a REST depth snapshot; ``/fapi/v1/depth`` serves the first one that is not older than
what was played last. Where a recording holds a topic of two connections (one took over from the other), the newer
one counts from its first frame on.

Playback begins with the first subscription of a connection (after a moment in which more may arrive) at the first
frame of the venue, goes through all files in the order of their times, and stays silent after the last frame. A
pause of more than a minute is skipped.
"""

from __future__ import annotations

import gzip
import heapq
import json
import math
import re
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mts_simulator.clock import MINUTE_MS
from mts_simulator.errors import SimulatorError
from mts_simulator.streams import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mts_simulator.wire import JsonObject

BINANCE, BYBIT = "binance", "bybit"

_START_DELAY_MS = 250
_LONGEST_PAUSE_MS = MINUTE_MS
_BATCH = 2_000
_ENDINGS = (".jsonl", ".jsonl.gz")
_SPEED = re.compile(r"@\d+m?s$")
_SNAPSHOT = '"lastUpdateId"'
_DATA = ',"data":'
_UNITS = ((10**17, 1e-6), (10**14, 1e-3), (10**11, 1.0), (0, 1e3))
_LAST_ID = re.compile(r'"u":(\d+)')
_EVENT_TIME = re.compile(r'"(?:E|ts)":(\d{13})')
_START = "start"


class _Line(NamedTuple):
    """One line of a recording, unpacked."""

    time_ms: float
    text: str
    connection: int = 0
    topic: str = ""
    event: str = ""


class RecordedFrame(NamedTuple):
    """One frame of a recording.

    Attributes:
        time_ms: Receive time.
        topic: Stream or topic name.
        text: The frame as it is sent: Binance's ``data``, Bybit's whole frame.
    """

    time_ms: float
    topic: str
    text: str


class FrameRecordings:
    """Some recordings.

    Args:
        files: The files; none is a recording of silence.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    @classmethod
    def at(cls, path: Path) -> FrameRecordings:
        """A single recording, or all in a folder and below it.

        Raises:
            SimulatorError: When there is none.
        """
        if not path.exists():
            raise SimulatorError(f"there are no recorded frames at {path}")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [file for file in found if file.is_file() and file.name.endswith(_ENDINGS)]
        if not files:
            raise SimulatorError(f"there are no recorded frames (*.jsonl, *.jsonl.gz) in {path}")
        return cls(files)

    def frames(self, venue: str) -> Iterator[RecordedFrame]:
        """All frames of one venue in the order of their receive times."""
        newest: dict[str, int] = {}
        files = [file for file, venues in zip(self._files, self._venues, strict=True) if venue in venues]
        for line in heapq.merge(*map(_lines, files), key=lambda line: line.time_ms):
            if line.event == _START:
                newest.clear()
            named = _named(line.text)
            if named is None or named[0] != venue:
                continue
            _, topic, text = named
            if line.connection >= newest.setdefault(topic, line.connection):
                newest[topic] = line.connection
                yield RecordedFrame(line.time_ms, topic, text)

    def snapshots(self, symbol: str) -> list[JsonObject]:
        """The REST depth snapshots of a symbol, oldest first."""
        return self._snapshots.get(symbol, [])

    @cached_property
    def _venues(self) -> list[set[str]]:
        """Whose frames each file holds; a file whose first frame has no connection holds one venue's only."""
        return [_venues_of(file) for file in self._files]

    @cached_property
    def _snapshots(self) -> dict[str, list[JsonObject]]:
        found: dict[str, list[JsonObject]] = {}
        for file in self._files:
            for symbol, body in _snapshots_of(file):
                found.setdefault(symbol, []).append(body)
        return {symbol: sorted(bodies, key=_update_id) for symbol, bodies in found.items()}


class Playback:
    """Makes the sources of one venue's connections, and knows how far they have played.

    Args:
        recordings: What is played.
        venue: ``binance`` or ``bybit``.
        speed: How many times faster than recorded; infinity for as fast as possible.
    """

    def __init__(self, recordings: FrameRecordings, venue: str, speed: float) -> None:
        self._recordings = recordings
        self._venue = venue
        self._speed = speed
        self._played: dict[str, str] = {}

    def source(self) -> PlaybackSource:
        """A source for one connection; it plays from the beginning."""
        return PlaybackSource(self._recordings.frames(self._venue), self._speed, self._note)

    def depth(self, symbol: str) -> JsonObject | None:
        """The first recorded REST depth snapshot not older than what was played last, or else the newest."""
        bodies = self._recordings.snapshots(symbol)
        found = _LAST_ID.search(self._played.get(symbol, ""))
        last = int(found[1]) if found else 0
        newest = bodies[-1] if bodies else None
        return next((body for body in bodies if _update_id(body) >= last), newest)

    def _note(self, frame: RecordedFrame) -> None:
        symbol, _, kind = frame.topic.partition("@")
        if kind.startswith("depth"):
            self._played[symbol.upper()] = frame.text


class PlaybackSource:
    """The recorded frames of the topics that one connection subscribes to."""

    def __init__(self, frames: Iterator[RecordedFrame], speed: float, note: Callable[[RecordedFrame], None]) -> None:
        self._frames = frames
        self._speed = speed
        self._note = note
        self._wanted: dict[str, str] = {}
        self._start_ms: float | None = None
        self._elapsed_ms = 0.0
        self._last_ms: float | None = None
        self._next: RecordedFrame | None = None

    def add(self, topic: str, now_ms: int) -> None:
        """Let a topic through; the first one starts the playback."""
        self._wanted[_family(topic)] = topic
        if self._start_ms is None:
            self._start_ms = now_ms + _START_DELAY_MS
            self._advance()

    def remove(self, topic: str) -> None:
        """Hold a topic back."""
        self._wanted.pop(_family(topic), None)

    def restart(self, topic: str) -> None:
        """Recordings cannot restart."""

    def next_ms(self) -> float:
        """When the next frame is due; infinity after the last."""
        if self._next is None or self._start_ms is None:
            return math.inf
        return self._start_ms + self._elapsed_ms / self._speed

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now that are subscribed to."""
        found: list[Frame] = []
        while self._next is not None and self.next_ms() <= now_ms and len(found) < _BATCH:
            frame = self._next
            topic = self._wanted.get(_family(frame.topic))
            if topic is not None:
                self._note(frame)
                found.append(Frame(topic, frame.text))
            self._advance()
        return found

    def _advance(self) -> None:
        """Look at the next frame and count the time to it."""
        self._next = next(self._frames, None)
        if self._next is None:
            return
        if self._last_ms is not None:
            pause = self._next.time_ms - self._last_ms
            self._elapsed_ms += pause if pause <= _LONGEST_PAUSE_MS else 0.0
        self._last_ms = self._next.time_ms


def _family(topic: str) -> str:
    """A stream without its speed: what was recorded at 0 ms serves a subscription at 100 ms."""
    return _SPEED.sub("", topic)


def _lines(path: Path) -> Iterator[_Line]:
    """Received lines. The end that a killed recorder left behind is passed over."""
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):  # noqa: B007  named in the error
                if line.endswith("\n") and (unpacked := _unpacked(line.strip())) is not None:
                    yield unpacked
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return
        except (ValueError, KeyError, TypeError) as error:
            raise SimulatorError(f"{path}, line {number} is not a recorded frame: {error}") from None


def _unpacked(line: str) -> _Line | None:
    """A line's parts; None for an empty line and for what the recorder had sent."""
    if not line:
        return None
    position = line.find('"frame":')
    if not line.startswith('{"ts":'):
        value = json.loads(line)
        found = _EVENT_TIME.search(line)
        return _Line(float(found[1]) if found else 0.0, line) if value else None
    if position < 0:
        value, text = json.loads(line), ""
    else:
        value, text = json.loads(line[:position].rstrip(", ") + "}"), line[position + len('"frame":') : -1].strip()
    if value.get("dir") == "send":
        return None
    return _Line(
        time_ms=_to_ms(float(value["ts"])),
        text=text or str(value.get("raw", "")),
        connection=int(value.get("conn", 0)),
        topic=str(value.get("topic", "")),
        event=str(value.get("event", "")),
    )


def _to_ms(time: float) -> float:
    """A receive time in ms, whatever its unit."""
    return next(time * factor for bound, factor in _UNITS if time >= bound)


def _named(text: str) -> tuple[str, str, str] | None:
    """Venue, topic and payload of a frame; None for acknowledgements, snapshots and the like."""
    for prefix, venue in (('{"stream":"', BINANCE), ('{"topic":"', BYBIT)):
        if text.startswith(prefix):
            name, _, rest = text[len(prefix) :].partition('"')
            if venue == BYBIT:
                return BYBIT, name, text
            if rest.startswith(_DATA):
                return BINANCE, name, rest[len(_DATA) : -1]
    if not ('"stream"' in text or '"topic"' in text):
        return None
    frame = json.loads(text)
    if "stream" in frame:
        return BINANCE, frame["stream"], json.dumps(frame["data"], separators=(",", ":"))
    return (BYBIT, frame["topic"], text) if "topic" in frame else None


def _venues_of(path: Path) -> set[str]:
    for line in _lines(path):
        if line.connection or line.event:
            return {BINANCE, BYBIT}
        named = _named(line.text)
        if named is not None:
            return {named[0]}
    return set()


def _snapshots_of(path: Path) -> list[tuple[str, JsonObject]]:
    """(symbol, body) of each depth snapshot; without a topic, told by the ids of the streams around it."""
    found: list[tuple[str, JsonObject]] = []
    ids: dict[str, int] = {}
    for line in _lines(path):
        if _SNAPSHOT in line.text:
            body = json.loads(line.text)
            found.append((line.topic.partition("@")[0].upper(), body if "lastUpdateId" in body else body["data"]))
        elif '"depthUpdate"' in line.text and (symbol := _symbol_in(line.text)) not in ids:
            last = _LAST_ID.search(line.text)
            if last:
                ids[symbol] = int(last[1])

    def nearest(body: JsonObject) -> str:
        return min(ids, key=lambda name: abs(ids[name] - _update_id(body)), default="")

    return [(symbol or nearest(body), body) for symbol, body in found]


def _update_id(body: JsonObject) -> int:
    return int(body["lastUpdateId"])


def _symbol_in(text: str) -> str:
    return text.partition('"s":"')[2].partition('"')[0]
