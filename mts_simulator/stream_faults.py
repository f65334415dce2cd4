"""WebSocket faults on demand: which frames are spoiled, how, and how often.

What belongs here: the description of a fault, the book of pending ones, and what a fault does to the text
of a frame. ``stream_server`` carries out those that concern the connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from mts_simulator.faults import PendingFaults, check_kind

StreamFaultKind = Literal[
    "refuse",
    "reset",
    "close",
    "slow_close",
    "half_open",
    "silence",
    "drop",
    "duplicate",
    "swap",
    "restart",
    "burst",
    "crossed",
    "malformed",
    "extra_field",
    "missing_field",
    "wrong_type",
]
_FAR_ABOVE = 1.05
_REQUIRED = ("u", "b", "r", "fundingRate", "p", "markPrice", "c")


@dataclass(frozen=True)
class StreamFault:
    """What to do to matching frames or connections.

    Attributes:
        kind: ``refuse`` answers the handshake with ``status``; ``reset`` sends half a frame and resets the
            connection; ``close`` closes it in order with ``code``; ``slow_close`` begins to close it and goes
            on to hold it open for ``hold_s``; ``half_open`` falls silent and deaf without closing for
            ``hold_s``; ``silence`` sends no more of the topic on this connection; ``skip`` leaves the frame
            out, ``duplicate`` sends it twice, ``swap`` sends the topic's next frame first; ``restart``
            sends a snapshot with ``u`` 1 and counts on from it (Bybit); ``burst`` holds the connection's
            matching frames for ``hold_s`` and sends them at once; ``crossed`` puts a bid far above the
            asks; ``malformed`` cuts the JSON; ``extra_field``, ``missing_field`` and ``wrong_type`` change
            the shape of ``data``.
        venue: ``binance``, ``bybit`` or ``*``.
        topic: Shell pattern of the topic; of ``refuse``, of the path below the exchange's root.
        skip: How many matching frames (or handshakes) pass first.
        times: How many are spoiled; None for all.
        status: HTTP status of ``refuse``, such as 403, 418 or 429.
        retry_after: ``Retry-After`` header of ``refuse``.
        code: Close code of ``close`` and ``slow_close``.
        hold_s: Seconds of ``burst``, ``half_open`` and ``slow_close``.
        field: Member changed by the three changes of shape; one that clients need when empty.
    """

    kind: StreamFaultKind
    venue: str = "*"
    topic: str = "*"
    skip: int = 0
    times: int | None = 1
    status: int = 429
    retry_after: str | None = None
    code: int = 1001
    hold_s: float = 3600.0
    field: str = ""

    def __post_init__(self) -> None:
        check_kind(self.kind, get_args(StreamFaultKind))


class StreamFaultBook(PendingFaults[StreamFault]):
    """The pending faults of frames and handshakes."""

    def take(self, venue: str, topic: str, *, handshake: bool = False) -> StreamFault | None:
        """The fault for this frame or handshake, if any; counts it."""
        return self.first(
            lambda fault: (
                (fault.kind == "refuse") == handshake
                and fault.venue in ("*", venue)
                and fnmatchcase(topic, fault.topic)
            )
        )


def spoiled(fault: StreamFault, text: str) -> str:
    """The frame's text after a fault of kind ``malformed``, ``crossed`` or of shape."""
    if fault.kind == "malformed":
        return text[: len(text) // 2]
    frame = json.loads(text)
    data = frame.get("data", frame) if isinstance(frame, dict) else frame
    for row in data if isinstance(data, list) else [data]:
        _change(fault, row)
    return json.dumps(frame, separators=(",", ":"))


def _cross(row: dict[str, Any]) -> None:
    """Raise the bid of a ladder or of a top of book; frames without a bid stay as they are."""
    bids = row.get("b")
    if isinstance(bids, list):
        prices = [float(price) for price, _ in [*bids, *row["a"]]]
        if prices:
            bids.insert(0, [f"{max(prices) * _FAR_ABOVE:.8f}", "1.000"])
        return
    for name in ("b", "bid1Price"):
        if name in row:
            row[name] = f"{float(row[name]) * _FAR_ABOVE:.8f}"


def _change(fault: StreamFault, row: dict[str, Any]) -> None:
    if fault.kind == "crossed":
        _cross(row)
        return
    name = fault.field or next((name for name in _REQUIRED if name in row), "")
    if fault.kind == "extra_field":
        row[fault.field or "simulatedField"] = {"new": True}
    elif fault.kind == "missing_field":
        row.pop(name, None)
    elif fault.kind == "wrong_type" and name in row:
        row[name] = "text" if isinstance(row[name], int) else {"unexpected": True}
