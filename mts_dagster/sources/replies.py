"""An answer of a service, what the session must know about the service, and the errors that need no more than HTTP.

What belongs here: reading an HTTP status, a ``Retry-After`` and a failed connection. A service's own codes are read
by the ``judge`` in its module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3.exceptions as transport
from pyrate_limiter import Rate
from requests.auth import AuthBase

from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    UnauthorisedError,
    UnknownSymbolError,
)
from mts_dagster.sources.redaction import NoKey, host_of, redact

RATE_LIMIT_PAUSE_S = 30.0


@dataclass(frozen=True)
class Reply:
    """An answer, read in full."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status says so."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the definition of success in HTTP

    def describe(self) -> str:
        """Kind and size of the body, for messages."""
        kind = self.headers.get("Content-Type", "unknown type").split(";")[0]
        return f"{kind}, {len(self.body)} bytes"


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - JSON may hold anything; ``read`` narrows it
    """Parse a JSON body.

    Raises:
        ValueError: the body is not JSON.
    """
    return json.loads(body)


def no_judgement(_reply: Reply, _document: Any, _now: datetime) -> SourceError | None:  # noqa: ANN401 - JSON
    """Judge of a service without codes of its own."""
    return None


def no_pacing(_reply: Reply, _now: datetime) -> datetime | None:
    """Pacing of a service that does not tell its load."""
    return None


@dataclass(frozen=True)
class Service:
    """What the session must know about a service.

    Attributes:
        name: as it appears in messages.
        root: base URL.
        url_setting: the setting that holds ``root``, for advice.
        budgets: rates by name; a request names which it spends.
        auth: puts the key on a request.
        judge: reads the service's own error codes out of an answer; None leaves it to the HTTP status. It gets the
            parsed document, or None if the body of an error did not parse.
        pace: reads how much budget the service says is used, and returns until when to pause, if at all.
        parse: body to document.
    """

    name: str
    root: str
    url_setting: str
    budgets: Mapping[str, Rate]
    auth: AuthBase = field(default_factory=NoKey)
    judge: Callable[[Reply, Any, datetime], SourceError | None] = no_judgement
    pace: Callable[[Reply, datetime], datetime | None] = no_pacing
    parse: Callable[[bytes], Any] = parse_json


def transport_error(service: Service, failure: requests.RequestException, timeout_s: float) -> SourceError:
    """Name a failure below HTTP. Its own text is not used: it holds the URL with the key."""
    host = host_of(service.root)
    advice = f"check the network, proxies and {service.url_setting}"
    if isinstance(failure, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return BadContentError(service.name, "the answer broke off before its end", advice="repeat later")
    if isinstance(failure, requests.exceptions.MissingSchema | requests.exceptions.InvalidURL):
        return BadRequestError(service.name, f"not a URL: {redact(service.root)}", advice=f"set {service.url_setting}")
    if isinstance(failure, requests.exceptions.InvalidSchema):
        return BadRequestError(
            service.name, f"not an http URL: {redact(service.root)}", advice=f"set {service.url_setting}"
        )
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    if isinstance(failure, requests.exceptions.ConnectTimeout):
        problem = f"no connection to {host} within {timeout_s:g} s"
    elif isinstance(failure, requests.exceptions.Timeout):
        problem = f"no answer from {host} within {timeout_s:g} s"
    elif isinstance(failure, requests.exceptions.ProxyError):
        problem = f"the proxy did not reach {host}"
    elif isinstance(failure, requests.exceptions.SSLError):
        problem = f"no secure connection to {host}"
    elif isinstance(reason, transport.NameResolutionError):
        problem = f"host name {host} not found"
    elif isinstance(reason, transport.NewConnectionError):
        problem = f"{host} refuses the connection"
    else:
        problem = f"the connection to {host} was lost"
    return SourceUnavailableError(service.name, problem, advice=advice)


def retry_after(reply: Reply, now: datetime) -> datetime | None:
    """When the ``Retry-After`` header says to come back (seconds or an HTTP date), or None."""
    text = reply.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        return now + timedelta(seconds=max(0.0, float(text)))
    except (ValueError, OverflowError):
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(now, moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def rate_limited(service: str, reply: Reply, now: datetime, *, otherwise: datetime | None = None) -> RateLimitedError:
    """The error of a 429; ``otherwise`` is used where the service names no time."""
    until = retry_after(reply, now) or otherwise or now + timedelta(seconds=RATE_LIMIT_PAUSE_S)
    return RateLimitedError(
        service,
        "too many requests",
        advice="lower its request budget in the settings if this repeats",
        retry_at=until,
    )


def status_error(service: Service, reply: Reply, now: datetime) -> SourceError | None:  # noqa: PLR0911 - a table
    """What an HTTP status means when the service has no more to say."""
    if reply.is_success:
        return None
    match reply.status:
        case 429:
            return rate_limited(service.name, reply, now)
        case 401:
            return UnauthorisedError(service.name, "the key is missing or wrong", advice="check the key's setting")
        case 403 | 451:
            return BlockedByLocationError(
                service.name,
                "refused for this network or country",
                advice=f"use a permitted network, or a host you may use in {service.url_setting}",
            )
        case 404:
            return UnknownSymbolError(service.name, "not found", advice="check the name")
        case status if status >= 500:  # noqa: PLR2004 - HTTP's server errors
            return SourceUnavailableError(
                service.name, "the service failed", advice="repeat later", retry_at=retry_after(reply, now)
            )
        case status if status < 400:  # noqa: PLR2004 - HTTP's redirects
            target = host_of(reply.headers.get("Location", ""))
            return BadRequestError(
                service.name, f"redirected to {target or 'another path'}", advice=f"check {service.url_setting}"
            )
    return BadRequestError(service.name, "the request was rejected", advice="check names and dates")
