"""Keys that travel only where they must: request authentication that keeps a key out of every text.

What belongs here: putting a key on a request at the last moment, and taking it out of URLs and log records. The
key is never part of our own parameters, so no message, ``repr`` or traceback of ours can hold it.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from requests import PreparedRequest
from requests.auth import AuthBase

KEY_IN_TEXT = re.compile(r"(?i)((?:api_?key|x_cg_(?:pro|demo)_api_key|token|secret|signature)=)[^&\s\"')]+")
HIDDEN = r"\1***"
LOGIN_IN_URL = re.compile(r"//[^/@\s]+@")


def redact(text: str) -> str:
    """Replace key parameters and logins in any text that may hold a URL."""
    return LOGIN_IN_URL.sub("//***@", KEY_IN_TEXT.sub(HIDDEN, text))


def host_of(url: str) -> str:
    """Host and port, without user, password, path and query."""
    return urlsplit(url).netloc.rpartition("@")[2]


def place_of(url: str) -> str:
    """Host, port and path: what tells two services apart, also when both live on one host."""
    return host_of(url) + urlsplit(url).path.rstrip("/")


class NoKey(AuthBase):
    """Sends no key, and keeps requests from looking for one in a ``.netrc`` file."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Leave the request as it is."""
        return request


class HeaderKey(AuthBase):
    """Sends a key in a header."""

    def __init__(self, header: str, key: SecretStr) -> None:
        self._header = header
        self._key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the header."""
        request.headers[self._header] = self._key.get_secret_value()
        return request


class QueryKey(AuthBase):
    """Sends a key as a query parameter, for services that know no other way."""

    def __init__(self, parameter: str, key: SecretStr) -> None:
        self._parameter = parameter
        self._key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Append the parameter to the prepared URL."""
        request.prepare_url(request.url, {self._parameter: self._key.get_secret_value()})
        return request


class KeyFilter(logging.Filter):
    """Takes keys out of log records; urllib3 logs every path with its query at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's message and arguments; never drop it."""
        record.msg = _clean(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_clean(part) for part in record.args)
        return True


def _clean(part: Any) -> Any:  # noqa: ANN401 - a log record's arguments may be anything
    return redact(part) if isinstance(part, str) else part


def redact_transport_logs() -> None:
    """Put the filter on urllib3's logger, once for each process."""
    logger = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(present, KeyFilter) for present in logger.filters):
        logger.addFilter(KeyFilter())
