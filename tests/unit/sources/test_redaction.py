"""Keys do not get into texts."""

from __future__ import annotations

import logging

import pytest

from mts_dagster.sources.redaction import KeyFilter, host_of, place_of, redact, redact_transport_logs

KEY = "abcdef0123456789abcdef0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f"https://api.stlouisfed.org/fred/series?series_id=DFF&api_key={KEY}",
        f"/fred/series?api_key={KEY}&series_id=DFF HTTP/1.1",
        f"Max retries exceeded with url: /x?API_KEY={KEY} (Caused by ...)",
        f"https://pro/x?x_cg_pro_api_key={KEY}",
        f"https://x/y?apikey={KEY}'",
        f"https://x/y?a=1&token={KEY}#part",
    ],
)
def test_key_parameters_are_hidden(text: str) -> None:
    """Wherever the parameter stands and however it is written."""
    assert KEY not in redact(text)
    assert "=***" in redact(text)


def test_logins_are_hidden() -> None:
    """A user and password in a base URL, as some proxies want them."""
    assert redact("https://user:secret@shop.example/x?a=b@c") == "https://***@shop.example/x?a=b@c"


def test_other_parameters_stay() -> None:
    """What helps to find a mistake is kept."""
    text = "https://x/y?series_id=DFF&monkey=1"
    assert redact(text) == text


def test_log_records_are_rewritten_not_dropped() -> None:
    """Text and arguments are cleaned; other arguments keep their type."""
    record = logging.LogRecord("x", logging.DEBUG, "f", 1, f"GET ?api_key={KEY} %s %d", (f"?api_key={KEY}", 7), None)
    assert KeyFilter().filter(record)
    assert record.getMessage() == "GET ?api_key=*** ?api_key=*** 7"


def test_the_filter_is_installed_once() -> None:
    """Many sessions, one filter."""
    redact_transport_logs()
    redact_transport_logs()
    filters = logging.getLogger("urllib3.connectionpool").filters
    assert sum(isinstance(entry, KeyFilter) for entry in filters) == 1


def test_host_and_place() -> None:
    """A password in a URL is not part of the host; the path tells two services on one host apart."""
    url = "https://user:secret@shop.example:8443/api/v3/?x=1"
    assert (host_of(url), place_of(url)) == ("shop.example:8443", "shop.example:8443/api/v3")
