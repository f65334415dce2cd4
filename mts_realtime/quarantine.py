"""Frames that could not be read: kept aside, bounded, for whoever adapts the wire types.

What belongs here: the quarantine file and the rate limit of its log lines.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from mts_realtime.errors import FrameError
    from mts_realtime.sessions import Session

log = logging.getLogger(__name__)

_LONGEST_FRAME = 4096
_MOST_WAITING = 200
_LOG_PAUSE_NS = 60_000_000_000


class Quarantine:
    """Collects frames on the event loop; ``write`` stores them and may run in a thread.

    The file is turned over at half of ``max_bytes``, so that the newest frames are always there.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._waiting: list[bytes] = []
        self._logged_ns: dict[tuple[str, str], int] = {}

    def add(self, session: Session, raw: bytes, error: FrameError, received_ns: int) -> None:
        """Put a frame aside; a flood of them is only counted (by the pipeline)."""
        plan = session.plan
        if len(self._waiting) < _MOST_WAITING:
            entry = {
                "ts": received_ns,
                "venue": plan.exchange,
                "route": plan.route,
                "problem": error.problem,
                "text": raw[:_LONGEST_FRAME].decode(errors="backslashreplace"),
            }
            self._waiting.append(msgspec.json.encode(entry) + b"\n")
        key = (plan.exchange, plan.route)
        if received_ns - self._logged_ns.get(key, 0) > _LOG_PAUSE_NS:
            self._logged_ns[key] = received_ns
            log.warning("%s (%s): %s; see %s", plan.exchange, plan.route, error.problem, self._path)

    def take(self) -> bytes:
        """Lines collected so far, to be written."""
        content = b"".join(self._waiting)
        self._waiting.clear()
        return content

    def write(self, content: bytes) -> None:
        """Append lines.

        Raises:
            OSError: When the file cannot be written.
        """
        if not content:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size + len(content) > self._max_bytes // 2:
            self._path.replace(self._path.with_suffix(".old.jsonl"))
        with self._path.open("ab") as file:
            file.write(content[-self._max_bytes // 2 :])
