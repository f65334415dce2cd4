"""What can go wrong with an outside service, one class for each thing that a user or a retry would do differently.

An error states its facts as attributes and builds its line in ``__str__``. URLs and texts arrive here redacted
(``mts_dagster.sources.redaction``); a key must never reach an error.

Tree::

    SourceError
    ├── UnauthorisedError         no key, a wrong key, or a key of another plan: fix the setting
    ├── PlanLimitError            the plan does not include this endpoint or range: ask for less, or pay
    ├── RateLimitedError          the service told us to stop until a time: wait           (retryable)
    ├── BlockedByLocationError    the service refuses this network or country: use another host
    ├── SourceUnavailableError    DNS, connection, timeout, 5xx: wait                      (retryable)
    │   └── CircuitOpenError      so many of these that nobody asks for a while            (retryable)
    ├── BadContentError           an answer that is not what was asked for                 (retryable)
    └── BadRequestError           the request is wrong: do not repeat it
        └── UnknownSymbolError    the service does not know this coin, symbol or series
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mts_dagster.errors import MtsError


@dataclass(frozen=True)
class Subject:
    """What a request is about, for messages: a coin, symbol or series, and the window ``[start, end)`` if any."""

    name: str = ""
    start: datetime | None = None
    end: datetime | None = None

    def __str__(self) -> str:
        if self.start is None or self.end is None:
            return self.name
        start, end = (f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" for moment in (self.start, self.end))
        return f"{self.name} [{start}, {end}) UTC".strip()


class SourceError(MtsError):
    """An outside service did not give what was asked for.

    Attributes:
        service: ``coingecko``, ``fred``, ``binance`` or ``bybit``.
        problem: what happened, in a few words.
        advice: what to do about it.
        subject: what was asked for.
        url: the address asked, without keys.
        status: HTTP status, or None when no answer came.
        retry_at: when asking again makes sense, as far as the service says so (aware UTC).
        is_retryable: whether the same request may succeed later without any change.
    """

    is_retryable = False

    def __init__(
        self,
        service: str,
        problem: str,
        *,
        advice: str = "",
        subject: Subject | None = None,
        url: str = "",
        status: int | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        super().__init__(service, problem)
        self.service = service
        self.problem = problem
        self.advice = advice
        self.subject = subject or Subject()
        self.url = url
        self.status = status
        self.retry_at = retry_at

    def __str__(self) -> str:
        about = f"{self.service} {self.subject}".strip()
        status = f" (HTTP {self.status})" if self.status is not None else ""
        return " ".join(f"{about}: {self.problem}{status}{'; ' if self.advice else ''}{self.advice}".split())


class UnauthorisedError(SourceError):
    """The service wants a key, another key, or the host that belongs to the key."""

    exit_code = 2


class PlanLimitError(SourceError):
    """The plan does not include this endpoint or this range."""


class RateLimitedError(SourceError):
    """The service told us to stop; ``retry_at`` says until when, if it is known."""

    is_retryable = True

    def __str__(self) -> str:
        until = f" until {self.retry_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.retry_at else ""
        return f"{super().__str__()}; nothing is sent to it{until}" if until else super().__str__()


class BlockedByLocationError(SourceError):
    """The service refuses this network or country; repeating does not help."""

    exit_code = 2


class SourceUnavailableError(SourceError):
    """No usable answer: DNS, connection, timeout or a 5xx."""

    is_retryable = True


class CircuitOpenError(SourceUnavailableError):
    """The service failed several times in a row and is left alone until ``retry_at``."""


class BadContentError(SourceError):
    """An answer came, but it is not what was asked for: an HTML page, a torn body, rows against the contract."""

    is_retryable = True


class BadRequestError(SourceError):
    """The service rejects the request itself."""


class UnknownSymbolError(BadRequestError):
    """The service does not know this coin, symbol or series."""

    exit_code = 2
