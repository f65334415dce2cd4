"""Our clock: UTC that never runs backwards.

What belongs here: the one place of the sidecar that asks the system for the time. It is anchored to the monotonic
clock, so that a step of the wall clock neither reorders events nor stops sampling.
"""

from __future__ import annotations

import time

STEP_NS = 1_000_000_000
"""A wall clock ahead by more than this (after a suspend) is followed; one that is behind is waited for."""


class Clock:
    """Nanoseconds since 1970, UTC."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """The time now; never earlier than an answer before."""
        return time.monotonic_ns() + self._offset_ns

    def drift_ns(self) -> int:
        """How far the wall clock is ahead of ours."""
        return time.time_ns() - self.now_ns()

    def follow(self) -> None:
        """Jump to the wall clock when it is far ahead; called once in a while."""
        drift = self.drift_ns()
        if drift > STEP_NS:
            self._offset_ns += drift
