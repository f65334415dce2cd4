"""The error family of the sidecar: what failed, where, and whether trying again can help.

What belongs here: errors that cross a module. An error states its facts as attributes and builds one line from
them; ``is_terminal`` tells the supervisor that repeating the same step cannot succeed.

Tree::

    RealtimeError
    ├── SettingsError          a wrong setting; the message names the variable
    ├── UnknownSymbolError     a symbol that the exchange does not list (terminal for this symbol)
    ├── FrameError             a frame that does not fit its wire type; goes to quarantine
    ├── BookError              a book that may not be used any more; it is dropped and built again
    │   ├── SequenceGapError   updates are missing or out of order
    │   ├── CrossedBookError   best bid at or above best ask
    │   └── SnapshotStaleError the REST snapshot does not reach the buffered updates
    ├── ExchangeError          the exchange refused something; carries the pause it asked for
    └── LandingError           a segment is damaged or its folder cannot be used
"""

from __future__ import annotations


class RealtimeError(Exception):
    """Base of the family. ``str(error)`` is one line that a stranger understands."""

    is_terminal = False


class SettingsError(RealtimeError):
    """A setting is wrong; nothing starts until it is corrected."""

    is_terminal = True


class UnknownSymbolError(RealtimeError):
    """The exchange lists no trading instrument of this name."""

    is_terminal = True

    def __init__(self, exchange: str, symbol: str, hint: str) -> None:
        self.exchange = exchange
        self.symbol = symbol
        super().__init__(f"{exchange} lists no trading instrument {symbol}: {hint}")


class FrameError(RealtimeError):
    """A frame does not fit its wire type: not JSON, or a required member is missing or mistyped."""

    def __init__(self, exchange: str, problem: str) -> None:
        self.exchange = exchange
        self.problem = problem
        super().__init__(f"{exchange} sent a frame that cannot be read: {problem}")


class BookError(RealtimeError):
    """A book may not be used any more. Terminal for its state: drop it, resync, count it.

    Attributes:
        topic: The exchange's name of the stream.
        reason: Short fixed word for gap rows and metrics.
    """

    is_terminal = True
    reason = "book_error"

    def __init__(self, topic: str, detail: str) -> None:
        self.topic = topic
        self.detail = detail
        super().__init__(f"{topic}: {self.reason.replace('_', ' ')}: {detail}")


class SequenceGapError(BookError):
    """Updates are missing, or arrived in an order that cannot be applied."""

    reason = "sequence_gap"


class CrossedBookError(BookError):
    """The best bid is at or above the best ask, or a level is out of order."""

    reason = "crossed_book"


class SnapshotStaleError(BookError):
    """The snapshot is older than the first buffered update: a newer one is needed."""

    reason = "snapshot_stale"


class ExchangeError(RealtimeError):
    """The exchange answered with a refusal.

    Attributes:
        exchange: Name of the exchange.
        wait_s: Pause that the exchange asked for, seconds; ``None`` when it named none.
        is_terminal: True where no retry can help (blocked location, wrong parameter).
    """

    def __init__(self, exchange: str, problem: str, *, wait_s: float | None = None, terminal: bool = False) -> None:
        self.exchange = exchange
        self.problem = problem
        self.wait_s = wait_s
        self.is_terminal = terminal
        super().__init__(f"{exchange}: {problem}")


class LandingError(RealtimeError):
    """A segment cannot be read, or the landing folder cannot be used."""
