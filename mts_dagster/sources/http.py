"""One HTTP session for all services: timeouts, retries, budgets, circuit breaker, typed errors.

What belongs here: everything about asking that is the same for every service. What a service's own codes mean is
decided by its ``judge``; what its rows mean, by its client.

One request goes through: admission (ban, circuit, pause, budget; shared by all processes, see ``hosts``), breaker,
exchange, parse, judge, read. Only connection errors, timeouts, 5xx, 429 and bad content are repeated, with
exponential backoff and jitter or after the service's own ``Retry-After``. A wait longer than
``settings.http_max_wait_s`` is not waited: the error says until when.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self, TypeVar

import requests
import tenacity
import urllib3.exceptions as transport
from pybreaker import CircuitBreaker, CircuitBreakerError
from pyrate_limiter import Rate
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from mts_dagster.settings import Settings
from mts_dagster.sources.errors import (
    BadContentError,
    BadRequestError,
    BlockedByLocationError,
    CircuitOpenError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    Subject,
    UnauthorisedError,
    UnknownSymbolError,
)
from mts_dagster.sources.hosts import Cost, Host, HostFile
from mts_dagster.sources.redaction import NoKey, host_of, redact, redact_transport_logs

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Value = str | int | float
POOL_SIZE = 8
STATE_FILE = "sources.sqlite"
UNEXPECTED_SHAPE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
RATE_LIMIT_PAUSE_S = 30.0


@dataclass(frozen=True)
class Clock:
    """Time as the session sees it; tests give another one."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def utc(self) -> datetime:
        """Now, aware."""
        return datetime.fromtimestamp(self.now(), UTC)


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


@dataclass(frozen=True)
class _Request:
    path: str
    params: Mapping[str, Value]
    read: Callable[[Any], Any]
    costs: tuple[Cost, ...]
    subject: Subject


class HttpSession:
    """Session with one service. Safe for a small thread pool; close it, or use it in a ``with`` block.

    Args:
        service: who is asked.
        settings: timeouts, retries, and the home of the shared state.
        clock: replaced in tests.
    """

    def __init__(self, service: Service, settings: Settings, clock: Clock | None = None) -> None:
        redact_transport_logs()
        self.service = service
        self._clock = clock or Clock()
        self._settings = settings
        self._file = HostFile(settings.home / STATE_FILE)
        self._host = Host(
            self._file,
            host_of(service.root) or service.name,
            budgets=service.budgets,
            circuit_reset_s=settings.http_circuit_reset_s,
            now=self._clock.now,
        )
        self._requests = requests.Session()
        self._requests.headers["User-Agent"] = "mts"
        self._requests.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._requests.mount(scheme, HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and the shared state."""
        self._requests.close()
        self._file.close()

    def get(
        self,
        path: str,
        params: Mapping[str, Value] | None = None,
        *,
        read: Callable[[Any], Answer],
        costs: tuple[Cost, ...],
        subject: Subject | None = None,
    ) -> Answer:
        """Ask, and return what ``read`` makes of the answer.

        Args:
            path: below the service's root.
            params: query without keys.
            read: takes what is needed out of the parsed document; a document of another shape, on which it fails
                with a lookup, type or value error, is bad content.
            costs: what the request spends of the service's budgets.
            subject: what it is about, for messages.

        Raises:
            SourceError: one of its family; see ``mts_dagster.sources.errors``.
        """
        request = _Request(path, params or {}, read, costs, subject or Subject())
        retrying = tenacity.Retrying(
            sleep=self._clock.sleep,
            stop=tenacity.stop_after_attempt(1 + self._settings.http_retries),
            wait=self._pause_before_retry,
            retry=tenacity.retry_if_exception(self._is_worth_repeating),
            before_sleep=self._log_retry,
            reraise=True,
        )
        answer: Answer = retrying(self._attempt, request)
        return answer

    def _attempt(self, request: _Request) -> Any:  # noqa: ANN401 - narrowed by ``read``
        self._admit(request)
        breaker = CircuitBreaker(  # a light object: the state is in the storage, and its lock would make threads queue
            fail_max=self._settings.http_circuit_failures,
            reset_timeout=self._settings.http_circuit_reset_s,
            exclude=[_says_nothing_about_the_host],
            state_storage=self._host,
            throw_new_error_on_trip=False,
        )
        try:
            return breaker.call(self._exchange, request)
        except CircuitBreakerError:  # opened by another process since the admission
            raise self._circuit_open(request, self._clock.now() + self._settings.http_circuit_reset_s) from None

    def _admit(self, request: _Request) -> None:
        """Wait for budget and pauses; raise where waiting is not the answer."""
        while True:
            verdict = self._host.admit(request.costs)
            if verdict.blocked_until is not None:
                raise RateLimitedError(
                    self.service.name,
                    verdict.blocked_because,
                    subject=request.subject,
                    url=self._address(request.path),
                    retry_at=datetime.fromtimestamp(verdict.blocked_until, UTC),
                )
            if verdict.circuit_until is not None:
                raise self._circuit_open(request, verdict.circuit_until)
            if verdict.wait_s == 0.0:
                return
            self._clock.sleep(verdict.wait_s)

    def _circuit_open(self, request: _Request, until: float) -> CircuitOpenError:
        retry_at = datetime.fromtimestamp(until, UTC)
        return CircuitOpenError(
            self.service.name,
            f"{host_of(self.service.root)} failed several times in a row and is left alone",
            advice=f"the next try is at {retry_at:%H:%M:%S} UTC; check the network with 'mts doctor'",
            subject=request.subject,
            url=self._address(request.path),
            retry_at=retry_at,
        )

    def _exchange(self, request: _Request) -> Any:  # noqa: ANN401 - narrowed by ``read``
        """Send once; return what was read or raise. Errors are raised outside of any ``except``: no inner text."""
        answer = self._send(request)
        if isinstance(answer, Reply):
            content, error = self._understand(answer, request)
            if error is None:
                return content
        else:
            error = answer
        error.subject = request.subject
        error.url = error.url or self._address(request.path)
        self._remember(error)
        raise error

    def _send(self, request: _Request) -> Reply | SourceError:
        """Send once. A failure is returned, not raised, so that it carries no chain: inner texts hold the URL."""
        timeout_s = self._settings.http_timeout_s
        try:
            response = self._requests.get(
                self._address(request.path),
                params=dict(request.params),
                auth=self.service.auth,
                timeout=timeout_s,
                allow_redirects=False,  # a redirect would carry the key to another host
            )
        except requests.RequestException as failure:
            return _transport_error(self.service, failure, timeout_s)
        return Reply(redact(response.url), response.status_code, response.headers, response.content)

    def _understand(self, reply: Reply, request: _Request) -> tuple[Any, SourceError | None]:
        """Parse, judge and read an answer."""
        now = self._clock.utc()
        pause_until = self.service.pace(reply, now)
        if pause_until is not None:
            self._host.pause(pause_until.timestamp())
        content: Any = None
        problem = ""
        try:
            document = self.service.parse(reply.body)
        except ValueError:
            document, problem = None, f"the answer cannot be read ({reply.describe()})"
        error = self.service.judge(reply, document, now) or _status_error(self.service, reply, now)
        if error is None and not problem:
            try:
                content = request.read(document)
            except UNEXPECTED_SHAPE as failure:
                problem = f"the answer has another shape than expected ({type(failure).__name__})"
        if error is None and problem:
            error = BadContentError(
                self.service.name, problem, advice=f"if it stays, check {self.service.url_setting} and proxies"
            )
        if error is not None:
            error.url, error.status = reply.url, reply.status
        return content, error

    def _remember(self, error: SourceError) -> None:
        """Tell all processes what the service asked of us."""
        if error.retry_at is None:
            return
        if self._is_short(error.retry_at):
            self._host.pause(error.retry_at.timestamp())
        elif isinstance(error, RateLimitedError):
            self._host.block(error.retry_at.timestamp(), error.problem)

    def _is_worth_repeating(self, error: BaseException) -> bool:
        if not isinstance(error, SourceError) or isinstance(error, CircuitOpenError):
            return False
        return error.is_retryable and (error.retry_at is None or self._is_short(error.retry_at))

    def _is_short(self, moment: datetime) -> bool:
        """Whether we are willing to wait until then."""
        return moment.timestamp() - self._clock.now() <= self._settings.http_max_wait_s

    def _pause_before_retry(self, attempt: tenacity.RetryCallState) -> float:
        """Backoff with jitter; nothing where the service named a time, because the admission waits for that."""
        error = attempt.outcome.exception() if attempt.outcome else None
        if isinstance(error, SourceError) and error.retry_at is not None:
            return 0.0
        first_s = self._settings.http_backoff_s
        backoff = tenacity.wait_exponential_jitter(initial=first_s, max=self._settings.http_max_wait_s, jitter=first_s)
        return backoff(attempt)

    def _log_retry(self, attempt: tenacity.RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        logger.warning("attempt %d failed, trying again: %s", attempt.attempt_number, error)

    def _address(self, path: str) -> str:
        return self.service.root.rstrip("/") + path


def _says_nothing_about_the_host(error: BaseException) -> bool:
    """Whether an error is no reason to leave the host alone: it answered, or the error is ours."""
    return not isinstance(error, SourceUnavailableError)


def _transport_error(service: Service, failure: requests.RequestException, timeout_s: float) -> SourceError:
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


def _status_error(service: Service, reply: Reply, now: datetime) -> SourceError | None:  # noqa: PLR0911 - a table
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
