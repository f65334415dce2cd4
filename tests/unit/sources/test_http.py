"""The session: what is repeated, what is not, how long it waits, and what its errors say."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyrate_limiter import Rate
from requests.auth import AuthBase

from mts_dagster.errors import MtsError
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
from mts_dagster.sources.hosts import Cost
from mts_dagster.sources.http import HttpSession
from mts_dagster.sources.redaction import HeaderKey, NoKey, QueryKey
from mts_dagster.sources.replies import Service

from .loopback import START, FakeTime, MakeSettings, ScriptedServer

COST = (Cost("requests"),)
KEY = "abcdef0123456789abcdef0123456789"
OpenSession = Callable[..., HttpSession]
WINDOW = Subject("bitcoin", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


def service(url: str, auth: AuthBase | None = None) -> Service:
    return Service("shop", url, "MTS_SHOP_URL", {"requests": Rate(1000, 1000)}, auth or NoKey())


def read_value(document: dict[str, int]) -> int:
    return document["value"]


def get(session: HttpSession) -> int:
    return session.get("/thing", {"coin": "bitcoin"}, read=read_value, costs=COST, subject=WINDOW)


@pytest.fixture
def open_session(make_settings: MakeSettings, time_: FakeTime) -> Iterator[OpenSession]:
    opened: list[HttpSession] = []

    def open_(url: str, settings: Settings | None = None, auth: AuthBase | None = None) -> HttpSession:
        opened.append(HttpSession(service(url, auth), settings or make_settings(), time_.clock))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@contextmanager
def whole_text(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect all that a failure could show: its texts, its chain with local variables, its logs."""
    texts: list[str] = []
    caplog.set_level(logging.DEBUG)
    try:
        yield texts
    except SourceError as error:
        texts.extend((str(error), repr(error), str(vars(error))))
        link: BaseException | None = error
        while link is not None:
            report = traceback.TracebackException.from_exception(link, capture_locals=True)
            texts.extend(report.format())
            texts.extend((str(link), repr(link)))
            link = link.__cause__ or link.__context__
    texts.append(caplog.text)


def test_success_returns_what_was_read(server: ScriptedServer, open_session: OpenSession) -> None:
    """A good answer is asked for once and read."""
    server.answer({"value": 7})
    assert get(open_session(server.url)) == 7
    assert [seen.query for seen in server.seen] == [{"coin": "bitcoin"}]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_server_errors_are_repeated(
    server: ScriptedServer, open_session: OpenSession, time_: FakeTime, status: int
) -> None:
    """A 5xx is asked again after a pause."""
    server.answer("down", status).answer({"value": 1})
    assert get(open_session(server.url)) == 1
    assert len(time_.slept) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, UnauthorisedError),
        (403, BlockedByLocationError),
        (404, UnknownSymbolError),
        (418, BadRequestError),
        (451, BlockedByLocationError),
    ],
)
def test_refusals_are_not_repeated(
    server: ScriptedServer, open_session: OpenSession, time_: FakeTime, status: int, kind: type[SourceError]
) -> None:
    """A 4xx is final: one request, no pause, a typed error that knows its status."""
    server.answer("no", status)
    with pytest.raises(kind) as caught:
        get(open_session(server.url))
    assert (len(server.seen), time_.slept, caught.value.status) == (1, [], status)
    assert not caught.value.is_retryable


def test_gives_up_after_the_configured_retries(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """Three retries make four requests."""
    server.answer("down", 503)
    with pytest.raises(SourceUnavailableError):
        get(open_session(server.url, make_settings(http_retries=3, http_circuit_failures=100)))
    assert len(server.seen) == 4


def test_backoff_doubles_with_jitter(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """Pauses of 2, 4 and 8 s, each with up to one first pause of jitter."""
    server.answer("down", 503)
    with pytest.raises(SourceUnavailableError):
        get(open_session(server.url, make_settings(http_retries=3, http_backoff_s=2.0, http_circuit_failures=100)))
    assert [low <= slept <= low + 2 for low, slept in zip([2, 4, 8], time_.slept, strict=True)] == [True] * 3


@pytest.mark.parametrize("text", ["45", "Fri, 20 Nov 2026 12:01:15 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(
    server: ScriptedServer, open_session: OpenSession, time_: FakeTime, text: str, status: int
) -> None:
    """Seconds and HTTP dates: 12:00:30 plus 45 s, and nothing else is waited."""
    server.answer("wait", status, Retry_After=text).answer({"value": 1})
    assert get(open_session(server.url)) == 1
    assert time_.slept == [45.0]


def test_retry_after_in_the_past_means_now(server: ScriptedServer, open_session: OpenSession, time_: FakeTime) -> None:
    """A date that has passed costs no waiting."""
    server.answer("wait", 429, Retry_After="Fri, 20 Nov 2026 11:00:00 GMT").answer({"value": 1})
    assert get(open_session(server.url)) == 1
    assert sum(time_.slept) == 0


def test_unreadable_retry_after_is_ignored(server: ScriptedServer, open_session: OpenSession, time_: FakeTime) -> None:
    """Nonsense in the header falls back to the usual pause after a 429, 30 s."""
    server.answer("wait", 429, Retry_After="soon").answer({"value": 1})
    assert get(open_session(server.url)) == 1
    assert time_.slept == [30.0]


def test_a_wait_beyond_the_bound_becomes_an_error_with_the_time(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """Ten minutes are not waited when two are the bound: the error names the moment."""
    server.answer("wait", 429, Retry_After="600")
    with pytest.raises(RateLimitedError) as caught:
        get(open_session(server.url, make_settings(http_max_wait_s=120)))
    assert caught.value.retry_at == START + timedelta(minutes=10)
    assert "2026-11-20 12:10:30 UTC" in str(caught.value)
    assert (len(server.seen), time_.slept) == (1, [])


def test_a_long_ban_holds_for_other_sessions(
    server: ScriptedServer, open_session: OpenSession, time_: FakeTime
) -> None:
    """After a ban nobody asks until it is over, in whatever process; then it works again."""
    server.answer("wait", 429, Retry_After="600").answer({"value": 1})
    with pytest.raises(RateLimitedError):
        get(open_session(server.url))
    other = open_session(server.url)
    with pytest.raises(RateLimitedError, match="2026-11-20 12:10:30 UTC"):
        get(other)
    assert len(server.seen) == 1
    time_.now += 600
    assert get(other) == 1


def test_a_short_pause_holds_for_other_sessions(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """A pause that one session was told is waited by the next one too."""
    server.answer("wait", 503, Retry_After="20").answer({"value": 1})
    with pytest.raises(SourceUnavailableError):
        get(open_session(server.url, make_settings(http_retries=0)))
    assert get(open_session(server.url)) == 1
    assert time_.slept == [20.0]


def test_a_reset_connection_is_repeated(server: ScriptedServer, open_session: OpenSession) -> None:
    """A connection that is reset before the answer is no reason to give up."""
    server.reset().answer({"value": 1})
    assert get(open_session(server.url)) == 1


def test_a_truncated_body_is_repeated_and_named(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """Half a body is never read as an answer: asked again, and in the end an error that says so."""
    whole = b'{"value": [1, 2, 3, 4, 5, 6, 7, 8]}'
    server.truncate(whole).answer({"value": 1})
    assert get(open_session(server.url)) == 1
    server.forget()
    server.truncate(whole)
    with pytest.raises(BadContentError, match="broke off"):
        get(open_session(server.url, make_settings(http_retries=1)))


def test_a_web_page_with_200_is_bad_content(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """HTML instead of JSON is named with its type, and asked again."""
    server.answer("<html><body>Please log in</body></html>", Content_Type="text/html; charset=utf-8")
    with pytest.raises(BadContentError, match=r"text/html, \d+ bytes") as caught:
        get(open_session(server.url, make_settings(http_retries=1)))
    assert (len(server.seen), caught.value.is_retryable) == (2, True)


@pytest.mark.parametrize("body", [{}, [], {"other": 1}, None, 3])
def test_another_shape_is_bad_content(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, body: object
) -> None:
    """JSON that lacks what is needed is an error of the family, not a KeyError."""
    server.answer(body)
    with pytest.raises(BadContentError, match="another shape"):
        get(open_session(server.url, make_settings(http_retries=0)))


def test_silence_is_a_timeout(server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings) -> None:
    """A server that says nothing ends in an error that names the time waited."""
    released = threading.Event()
    server.stay_silent(released)
    try:
        with pytest.raises(SourceUnavailableError, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.2 s"):
            get(open_session(server.url, make_settings(http_timeout_s=0.2, http_retries=0)))
    finally:
        released.set()


def test_a_refused_connection_is_named(dead_url: str, open_session: OpenSession, make_settings: MakeSettings) -> None:
    """Nobody listens: the message says so and names the setting."""
    with pytest.raises(SourceUnavailableError, match=r"refuses the connection.*MTS_SHOP_URL"):
        get(open_session(dead_url, make_settings(http_retries=0)))


def test_an_unknown_host_is_named(open_session: OpenSession, make_settings: MakeSettings) -> None:
    """A name that does not resolve is told apart from a refusal."""
    with pytest.raises(SourceUnavailableError, match=r"host name shop\.invalid not found"):
        get(open_session("http://shop.invalid", make_settings(http_retries=0)))


@pytest.mark.parametrize("url", ["shop", "ftp://shop/x", "http://"])
def test_a_setting_that_is_no_url_is_named(url: str, open_session: OpenSession) -> None:
    """A wrong base URL is a wrong setting, not a network problem."""
    with pytest.raises(BadRequestError, match="MTS_SHOP_URL"):
        get(open_session(url))


def test_redirects_are_not_followed(
    server: ScriptedServer, second_server: ScriptedServer, open_session: OpenSession
) -> None:
    """A redirect would carry the key to another host; it is an error that names the target."""
    second_server.answer({"value": 1})
    server.answer("", 302, Location=second_server.url + "/x")
    with pytest.raises(BadRequestError, match=r"redirected to 127\.0\.0\.1:"):
        get(open_session(server.url, auth=HeaderKey("x-key", SecretStr(KEY))))
    assert second_server.seen == []


def test_the_message_says_what_it_was_about(server: ScriptedServer, open_session: OpenSession) -> None:
    """Service, coin, window and status are in the line, and in the attributes."""
    server.answer("no", 404)
    with pytest.raises(UnknownSymbolError) as caught:
        get(open_session(server.url))
    assert str(caught.value) == (
        "shop bitcoin [2026-01-01 00:00, 2026-02-01 00:00) UTC: not found (HTTP 404); check the name"
    )
    assert caught.value.subject == WINDOW
    assert caught.value.url == f"{server.url}/thing?coin=bitcoin"


def test_circuit_opens_after_failures_in_a_row(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """Five failures in a row open it: the sixth request fails without a connection."""
    server.answer("down", 503)
    session = open_session(server.url, make_settings(http_retries=0, http_circuit_failures=5))
    for _ in range(5):
        with pytest.raises(SourceUnavailableError, match="the service failed"):
            get(session)
    with pytest.raises(CircuitOpenError, match="left alone"):
        get(session)
    assert len(server.seen) == 5


def test_refusals_do_not_open_the_circuit(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """A host that answers no is alive."""
    server.answer("no", 404)
    session = open_session(server.url, make_settings(http_circuit_failures=2))
    for _ in range(4):
        with pytest.raises(UnknownSymbolError):
            get(session)


def test_success_resets_the_failures(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """Only failures in a row count."""
    session = open_session(server.url, make_settings(http_retries=0, http_circuit_failures=2))
    for body, status in [("down", 503), ({"value": 1}, 200), ("down", 503), ({"value": 1}, 200)]:
        server.answer(body, status)
    for failing in (True, False, True, False):
        if failing:
            with pytest.raises(SourceUnavailableError):
                get(session)
        else:
            assert get(session) == 1


def test_circuit_recovers_through_one_probe(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """After its rest one request goes out; its success closes the circuit, its failure opens it again."""
    settings = make_settings(http_retries=0, http_circuit_failures=1, http_circuit_reset_s=30)
    session = open_session(server.url, settings)
    server.answer("down", 503).answer("down", 503).answer({"value": 1})
    with pytest.raises(SourceUnavailableError):
        get(session)
    time_.now += 31
    with pytest.raises(SourceUnavailableError, match="the service failed"):
        get(session)
    with pytest.raises(CircuitOpenError):
        get(session)
    time_.now += 31
    assert [get(session), get(session)] == [1, 1]
    assert len(server.seen) == 4


def test_only_one_process_probes(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings, time_: FakeTime
) -> None:
    """While a probe is under way, others are still refused."""
    settings = make_settings(http_retries=0, http_circuit_failures=1, http_circuit_reset_s=30)
    first, second = open_session(server.url, settings), open_session(server.url, settings)
    server.answer("down", 503)
    with pytest.raises(SourceUnavailableError):
        get(first)
    time_.now += 31
    assert first._host.admit(COST).circuit_until is None
    with pytest.raises(CircuitOpenError):
        get(second)
    time_.now += 31  # the probing process died: another one may try
    assert second._host.admit(COST).circuit_until is None


def test_circuit_is_shared(server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings) -> None:
    """What one session learned about a host, another one knows."""
    settings = make_settings(http_retries=0, http_circuit_failures=1)
    server.answer("down", 503)
    with pytest.raises(SourceUnavailableError):
        get(open_session(server.url, settings))
    with pytest.raises(CircuitOpenError):
        get(open_session(server.url, settings))
    assert len(server.seen) == 1


def test_a_circuit_that_opens_after_admission_still_stops_the_request(
    server: ScriptedServer, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may open it between the two; pybreaker's own refusal becomes ours."""
    with HttpSession(service(server.url), make_settings()) as session:
        session._host.state = "open"
        session._host.opened_at = datetime.now(UTC)
        monkeypatch.setattr(session, "_admit", lambda _request: None)
        with pytest.raises(CircuitOpenError, match="left alone"):
            get(session)
    assert server.seen == []


def test_retries_stop_when_the_circuit_opens(
    server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings
) -> None:
    """Retries do not hammer a host that is left alone."""
    server.answer("down", 503)
    with pytest.raises(CircuitOpenError):
        get(open_session(server.url, make_settings(http_retries=10, http_circuit_failures=3)))
    assert len(server.seen) == 3


def test_requests_keep_to_the_budget(server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime) -> None:
    """Two a second, evenly: the third request leaves one second after the first."""
    server.answer({"value": 1})
    paced = Service("shop", server.url, "MTS_SHOP_URL", {"requests": Rate(1, 500, burst=1)})
    with HttpSession(paced, make_settings(), time_.clock) as session:
        assert [get(session) for _ in range(3)] == [1, 1, 1]
    assert time_.slept == [0.5, 0.5]


def test_key_in_the_query_is_sent_but_never_shown(
    server: ScriptedServer,
    open_session: OpenSession,
    make_settings: MakeSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The key reaches the service, and no text, attribute, traceback, local variable or log record of ours."""
    server.answer("down", 500)
    with whole_text(caplog) as texts:
        get(open_session(server.url, make_settings(http_retries=1), auth=QueryKey("api_key", SecretStr(KEY))))
    assert server.seen[0].query["api_key"] == KEY
    assert any("api_key=***" in text for text in texts)
    assert not [text for text in texts if KEY in text]


def test_key_in_a_header_is_sent_but_never_shown(
    server: ScriptedServer, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    """The same for a key that travels in a header."""
    server.answer("no", 403)
    with whole_text(caplog) as texts:
        get(open_session(server.url, auth=HeaderKey("x-key", SecretStr(KEY))))
    assert server.seen[0].headers["x-key"] == KEY
    assert not [text for text in texts if KEY in text]


@pytest.mark.parametrize("fault", ["refused", "reset", "truncated", "silent"])
def test_transport_failures_do_not_show_the_key(
    *,
    server: ScriptedServer,
    open_session: OpenSession,
    make_settings: MakeSettings,
    dead_url: str,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """The library puts the whole URL into its exceptions; they are not part of our chain."""
    released = threading.Event()
    match fault:
        case "reset":
            server.reset()
        case "truncated":
            server.truncate(b"x" * 100)
        case "silent":
            server.stay_silent(released)
    url = dead_url if fault == "refused" else server.url
    session = open_session(url, make_settings(http_retries=1, http_timeout_s=0.2), QueryKey("api_key", SecretStr(KEY)))
    with whole_text(caplog) as texts:
        get(session)
    released.set()
    assert len(texts) > 3
    assert not [text for text in texts if KEY in text]


def test_errors_carry_no_chain(server: ScriptedServer, open_session: OpenSession, make_settings: MakeSettings) -> None:
    """Nothing hangs on the error that a tool could print although it was suppressed."""
    server.reset()
    with pytest.raises(SourceUnavailableError) as caught:
        get(open_session(server.url, make_settings(http_retries=1)))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_cookies_are_not_kept(server: ScriptedServer, open_session: OpenSession) -> None:
    """A service cannot tag us across requests."""
    server.answer({"value": 1}, Set_Cookie="tag=1")
    session = open_session(server.url)
    get(session)
    get(session)
    assert "Cookie" not in server.seen[1].headers


def test_a_home_that_cannot_be_written_is_named(
    server: ScriptedServer, make_settings: MakeSettings, time_: FakeTime, tmp_path: Path
) -> None:
    """The shared state has no place: one line that names MTS_HOME."""
    (tmp_path / "home").write_text("a file where a folder should be")
    with pytest.raises(MtsError, match="MTS_HOME"):
        HttpSession(service(server.url), make_settings(), time_.clock)
