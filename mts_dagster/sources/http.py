"""One HTTP session for all services: timeouts, retries, budgets, circuit breaker, typed errors.

What belongs here: everything about asking that is the same for every service. What a service's own codes mean is
decided by its ``judge``; what its rows mean, by its client.

One request goes through: admission (ban, circuit, pause, budget; shared by all processes, see ``hosts``), breaker,
exchange, parse, judge, read. Only connection errors, timeouts, 5xx, 429 and bad content are repeated, with
exponential backoff and jitter or after the service's own ``Retry-After``. A wait longer than
``settings.http_max_wait_s`` is not waited: the error says until when.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self, TypeVar

import requests
import tenacity
from pybreaker import CircuitBreaker, CircuitBreakerError
from requests.adapters import HTTPAdapter

from mts_dagster.settings import Settings
from mts_dagster.sources.errors import (
    BadContentError,
    CircuitOpenError,
    RateLimitedError,
    SourceError,
    SourceUnavailableError,
    Subject,
)
from mts_dagster.sources.hosts import Cost, Host, HostFile
from mts_dagster.sources.redaction import host_of, place_of, redact, redact_transport_logs
from mts_dagster.sources.replies import Reply, Service, status_error, transport_error

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Value = str | int | float
POOL_SIZE = 8
STATE_FILE = "sources.sqlite"
UNEXPECTED_SHAPE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Clock:
    """Time as the session sees it; tests give another one."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def utc(self) -> datetime:
        """Now, aware."""
        return datetime.fromtimestamp(self.now(), UTC)


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
            f"{service.name} {place_of(service.root)}",
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
            return transport_error(self.service, failure, timeout_s)
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
        error = self.service.judge(reply, document, now) or status_error(self.service, reply, now)
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
        backoff = tenacity.wait_exponential_jitter(
            multiplier=first_s, max=self._settings.http_max_wait_s, jitter=first_s
        )
        return backoff(attempt)

    def _log_retry(self, attempt: tenacity.RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        logger.warning("attempt %d failed, trying again: %s", attempt.attempt_number, error)

    def _address(self, path: str) -> str:
        return self.service.root.rstrip("/") + path


def _says_nothing_about_the_host(error: BaseException) -> bool:
    """Whether an error is no reason to leave the host alone: it answered, or the error is ours."""
    return not isinstance(error, SourceUnavailableError)
