"""Captures: every frame as it came, in the order it was handled, and the way back from a capture to segments.

What belongs here: the capture's file format, its writer, its reader, and the replay through the same pipeline.

A capture is a folder of ``capture-<start ms>.jsonl.gz`` files, one JSON object a line, in the order of handling::

    {"ts": <receipt time, ns>, "venue": "bybit", "route": "books", "conn": 3, "frame": <raw frame>}
    {"ts": ..., "venue": "binance", "route": "public", "conn": 1, "text": "<a frame that is not JSON>"}
    {"ts": ..., "venue": "binance", "route": "rest", "conn": 1, "topic": "<stream>", "frame": <REST snapshot>}
    {"ts": ..., "venue": ..., "route": ..., "conn": ..., "event": "open", "plan": {...}}       also close and shed
    {"ts": ..., "event": "start"}                                                               also stop

The same capture always gives the same segments, byte for byte: the pipeline knows no other clock than ``ts``.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from mts_realtime.errors import LandingError
from mts_realtime.exchanges.base import ConnectionPlan
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.origin import guard_landing, kind_of_settings, read_mark
from mts_realtime.pipeline import Pipeline
from mts_realtime.writer import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mts_realtime.recorder import Batch
    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings

MOST_WAITING_BYTES = 64 * 2**20
"""Frames that wait for the disk beyond this are lost to the capture (and counted)."""
_FILE_NS = 3_600_000_000_000


class Entry(Struct, omit_defaults=True):
    """One line of a capture."""

    ts: int
    venue: str = ""
    route: str = ""
    conn: int = 0
    event: str = ""
    topic: str = ""
    plan: ConnectionPlan | None = None
    text: str = ""
    frame: Raw = Raw()


class Capture:
    """Collects lines on the event loop; ``write`` stores them and may run in a thread.

    Attributes:
        lost: Lines given up because the disk was too slow or full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._file: Path | None = None
        self._file_started_ns = 0
        self.lost = 0

    def frame(self, session: Session, raw: bytes, received_ns: int, *, readable: bool) -> None:
        """A frame was handled."""
        if readable and b"\n" not in raw:
            plan = session.plan
            head = '{"ts":%d,"venue":"%s","route":"%s","conn":%d,"frame":'
            self._add((head % (received_ns, plan.exchange, plan.route, session.id)).encode() + raw + b"}\n")
        else:
            self._entry(session, received_ns, text=raw.decode(errors="backslashreplace"))

    def opened(self, session: Session, at_ns: int) -> None:
        """A connection is up."""
        self._entry(session, at_ns, event="open", plan=session.plan)

    def closed(self, session: Session, at_ns: int) -> None:
        """A connection is gone."""
        self._entry(session, at_ns, event="close")

    def shed(self, session: Session, topic: str, at_ns: int) -> None:
        """A book was given up under overload."""
        self._entry(session, at_ns, event="shed", topic=topic)

    def snapshot(self, session: Session, topic: str, body: bytes, at_ns: int) -> None:
        """A REST snapshot arrived."""
        entry = Entry(at_ns, session.plan.exchange, "rest", session.id, topic=topic, frame=Raw(_one_line(body)))
        self._add(msgspec.json.encode(entry) + b"\n")

    def mark(self, event: str, at_ns: int) -> None:
        """The process starts or stops."""
        self._add(msgspec.json.encode(Entry(at_ns, event=event)) + b"\n")

    def _entry(self, session: Session, at_ns: int, **members: Any) -> None:  # noqa: ANN401 - typed by Entry
        entry = Entry(at_ns, session.plan.exchange, session.plan.route, session.id, **members)
        self._add(msgspec.json.encode(entry) + b"\n")

    def _add(self, line: bytes) -> None:
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self.lost += 1
            return
        self._lines.append(line)
        self._waiting_bytes += len(line)

    def take(self) -> bytes:
        """Lines collected so far, to be written."""
        content = b"".join(self._lines)
        self._lines.clear()
        self._waiting_bytes = 0
        return content

    def write(self, content: bytes, at_ns: int) -> None:
        """Append lines; a new file begins every hour.

        Raises:
            OSError: When the folder cannot be written to.
        """
        if not content:
            return
        if self._file is None or at_ns - self._file_started_ns >= _FILE_NS:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._folder / f"capture-{at_ns // 1_000_000}.jsonl.gz"
            self._file_started_ns = at_ns
        try:
            with self._file.open("ab") as file:
                file.write(gzip.compress(content, compresslevel=1))
        except OSError:
            self._file = None  # what follows a torn piece could not be read: it goes into a new file
            raise


def _one_line(body: bytes) -> bytes:
    """JSON without line breaks; a body that is no JSON becomes a text."""
    try:
        return msgspec.json.format(body, indent=-1)
    except msgspec.DecodeError:
        return msgspec.json.encode(body.decode(errors="backslashreplace"))


def read_capture(folder: Path) -> Iterator[Entry]:
    """Entries of a capture in order. The end that a killed writer left behind is skipped.

    Raises:
        LandingError: When the folder holds no capture, or a line is not an entry.
    """
    files = sorted(folder.glob("capture-*.jsonl.gz"))
    if not files:
        raise LandingError(f"{folder} holds no capture (capture-*.jsonl.gz)")
    decode = msgspec.json.Decoder(Entry).decode
    for path in files:
        with gzip.open(path) as lines:
            number = 0
            try:
                for line in lines:
                    number += 1
                    if line.endswith(b"\n"):
                        yield decode(line)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                continue  # the last member is incomplete: its writer was killed
            except msgspec.DecodeError as error:
                raise LandingError(f"{path} line {number} is not an entry of a capture: {error}") from error


class Replay:
    """Drives a pipeline with the entries of a capture, as fast as possible."""

    def __init__(self, settings: RealtimeSettings, kind: str) -> None:
        self._settings = settings
        self._kind = kind
        self._writer = SegmentWriter(settings.landing_dir, settings.landing_buffer_rows)
        self._pipeline: Pipeline | None = None
        self._sessions: dict[int, Session] = {}
        self.frames = 0

    def run(self, entries: Iterator[Entry]) -> int:
        """Replay all entries; returns the number of segments written.

        Raises:
            LandingError: When a segment cannot be written.
            SettingsError: When the landing folder holds segments of the other kind.
        """
        last_ns = 0
        for entry in entries:
            if self._pipeline is None:
                guard_landing(self._settings, self._kind)
            if entry.event == "start" or self._pipeline is None:
                self._finish(last_ns)
                self._start(entry.ts)
            self._take(entry)
            last_ns = max(last_ns, entry.ts)
        self._finish(last_ns)
        return self._writer.segments_written

    def _start(self, at_ns: int) -> None:
        self._sessions = {}
        self._pipeline = Pipeline(self._settings, build_exchanges(self._settings), at_ns)
        self._pipeline.on_batch = self._write

    def _finish(self, at_ns: int) -> None:
        if self._pipeline is not None:
            self._pipeline.finish(at_ns)

    def _write(self, batch: Batch) -> None:
        if not self._writer.write(batch):
            raise LandingError(self._writer.problem)

    def _take(self, entry: Entry) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        if entry.event == "stop":
            pipeline.finish(entry.ts)
            return
        if entry.event == "open" and entry.plan is not None:
            self._sessions[entry.conn] = pipeline.open_session(entry.conn, entry.plan, entry.ts)
            return
        session = self._sessions.get(entry.conn)
        if session is None or session.closed:
            return
        if entry.event == "close":
            session.closed = True
            pipeline.close_session(session, entry.ts)
        elif entry.event == "shed":
            pipeline.shed(session, entry.topic, entry.ts)
        elif entry.topic:
            pipeline.snapshot(session, entry.topic, bytes(entry.frame), entry.ts)
        else:
            self.frames += 1
            pipeline.handle(session, bytes(entry.frame) or entry.text.encode(), entry.ts)


def replay(settings: RealtimeSettings, folder: Path) -> int:
    """Turn a capture into segments in the landing folder of ``settings``; returns their number.

    A capture without a mark is taken for the kind that the addresses in ``settings`` are of.

    Raises:
        LandingError: When the capture cannot be read or a segment not be written.
        SettingsError: When the landing folder holds segments of the other kind.
    """
    return Replay(settings, read_mark(folder) or kind_of_settings(settings)).run(read_capture(folder))
