"""All file writing of the sidecar, in order, on one thread of its own.

What belongs here: the thread and the way to await its work. It is a daemon: a disk that hangs must not keep the
process from ending in time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DiskThread:
    """Runs callables one after another.

    Attributes:
        waiting: Callables that were submitted and are not done.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mts-realtime-disk", daemon=True)
        self._thread.start()
        self.waiting = 0

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have ``function`` run after everything that was submitted before; await the future for its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.waiting += 1

        def job() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - carried to whoever awaits the future
                self._settle(loop, future, error=error)
            else:
                self._settle(loop, future, result=result)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread after the jobs that wait."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[T],
        *,
        result: T | None = None,
        error: Exception | None = None,
    ) -> None:
        def settle() -> None:
            self.waiting -= 1
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        if not loop.is_closed():
            loop.call_soon_threadsafe(settle)
