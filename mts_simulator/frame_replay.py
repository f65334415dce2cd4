"""Recorded WebSocket frames, played back to each connection at any speed.

What belongs here: reading recordings, and the source that plays them. A recording is a file of JSON lines
(``.jsonl``, also ``.gz``) of one exchange; each line holds the receive time in ``ts`` (seconds, ms, us or
ns, told apart by size) and the frame, as an object in the last member ``frame`` or as text in ``raw``; sent
frames (``"dir":"send"``) are passed over. A line without ``ts`` is a bare frame; its time is the exchange's
own. Frames are sent byte for byte as they were recorded.

Whose frame it is follows from its members: ``stream`` is Binance's, ``topic`` Bybit's; a body with
``lastUpdateId`` is a REST depth snapshot, which ``/fapi/v1/depth`` serves while its file plays.

Playback begins with the first subscription of a connection (after a moment in which more may arrive) at the
first frame of the venue, goes through all files in the order of their times, and stays silent after the
last frame. A pause of more than a minute is skipped.
"""

from __future__ import annotations

import gzip
import heapq
import json
import math
import re
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
_WRAPPED = re.compile(r'\{"ts": ?([\d.]+), ?(?:"dir": ?"(send|recv)", ?)?"frame": ?')
_EVENT_TIME = re.compile(r'"(?:E|ts)":(\d{13})')


class RecordedFrame(NamedTuple):
    """One line of a recording.

    Attributes:
        time_ms: Receive time.
        file: Number of the file.
        topic: Stream or topic name.
        text: The frame as it is sent: Binance's ``data``, Bybit's whole frame.
    """

    time_ms: float
    file: int
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
        return heapq.merge(
            *(self._of(number) for number, found in enumerate(self._venues) if found == venue),
            key=lambda frame: (frame.time_ms, frame.file),
        )

    def snapshot(self, file: int, symbol: str) -> JsonObject | None:
        """The REST depth snapshot of a symbol in a file."""
        return self._snapshots[file].get(symbol)

    def first_snapshot(self, symbol: str) -> JsonObject | None:
        """The first REST depth snapshot of a symbol in any file, in the order of their times."""
        found = (self.snapshot(file, symbol) for file in self._order)
        return next((body for body in found if body is not None), None)

    def _of(self, number: int) -> Iterator[RecordedFrame]:
        for time_ms, text in _lines(self._files[number]):
            named = _named(text)
            if named is not None:
                yield RecordedFrame(time_ms, number, named[1], named[2])

    @cached_property
    def _venues(self) -> list[str]:
        """Whose frames each file holds, by the first one that tells."""
        return [
            next((named[0] for _, text in _lines(file) if (named := _named(text)) is not None), "")
            for file in self._files
        ]

    @cached_property
    def _order(self) -> list[int]:
        """Numbers of the files by the time of their first line."""
        first = [next((time for time, _ in _lines(file)), math.inf) for file in self._files]
        return sorted(range(len(first)), key=first.__getitem__)

    @cached_property
    def _snapshots(self) -> list[dict[str, JsonObject]]:
        return [_snapshots_of(file) for file in self._files]


class Playback:
    """Makes the sources of one venue's connections, and knows which file plays.

    Args:
        recordings: What is played.
        venue: ``binance`` or ``bybit``.
        speed: How many times faster than recorded; infinity for as fast as possible.
    """

    def __init__(self, recordings: FrameRecordings, venue: str, speed: float) -> None:
        self._recordings = recordings
        self._venue = venue
        self._speed = speed
        self._playing: dict[str, int] = {}

    def source(self) -> PlaybackSource:
        """A source for one connection; it plays from the beginning."""
        return PlaybackSource(self._recordings.frames(self._venue), self._speed, self._note)

    def depth(self, symbol: str) -> JsonObject | None:
        """The recorded REST depth snapshot that belongs to what plays now."""
        if symbol in self._playing:
            return self._recordings.snapshot(self._playing[symbol], symbol)
        return self._recordings.first_snapshot(symbol)

    def _note(self, frame: RecordedFrame) -> None:
        symbol = frame.topic.split("@", 1)[0].upper()
        if self._playing.get(symbol) != frame.file and self._recordings.snapshot(frame.file, symbol):
            self._playing[symbol] = frame.file


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


def _lines(path: Path) -> Iterator[tuple[float, str]]:
    """(time in ms, text of the frame) of each received line."""
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                unpacked = _unpacked(line.strip())
            except (ValueError, KeyError, TypeError) as error:
                raise SimulatorError(f"{path}, line {number} is not a recorded frame: {error}") from None
            if unpacked is not None:
                yield unpacked


def _unpacked(line: str) -> tuple[float, str] | None:
    """Time and frame of a line; None for an empty line and for what the recorder had sent."""
    wrapped = _WRAPPED.match(line)
    if wrapped:
        return None if wrapped[2] == "send" else (_to_ms(float(wrapped[1])), line[wrapped.end() : -1].rstrip())
    if not line:
        return None
    value = json.loads(line)
    if "raw" in value:
        return None if value.get("dir") == "send" else (_to_ms(float(value["ts"])), str(value["raw"]))
    found = _EVENT_TIME.search(line)
    return (float(found[1]) if found else 0.0), line


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


def _snapshots_of(path: Path) -> dict[str, JsonObject]:
    """The first depth snapshot of each symbol, told by the update ids of the streams around it."""
    bodies: list[JsonObject] = []
    ids: dict[str, int] = {}
    for _, text in _lines(path):
        if _SNAPSHOT in text:
            body = json.loads(text)
            bodies.append(body if "lastUpdateId" in body else body["data"])
        elif '"depthUpdate"' in text and (symbol := _symbol_in(text)) not in ids:
            frame = json.loads(text)
            ids[symbol] = frame.get("data", frame)["u"]
    found: dict[str, JsonObject] = {}
    for body in bodies:
        if ids:
            found.setdefault(min(ids, key=lambda name: abs(ids[name] - body["lastUpdateId"])), body)
    return found


def _symbol_in(text: str) -> str:
    return text.partition('"s":"')[2].partition('"')[0]
