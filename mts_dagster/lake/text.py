"""Text that goes into SQL or out to a person: quoted names and literals, messages of one line, hidden passwords.

What belongs here: the few places where a value cannot be a parameter (``attach``, ``load``, ``comment``), and what
must never reach a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# The two ways in which libpq takes a password: keyword=value (quoted or not) and the user part of a URI.
_PASSWORD_KEYWORD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)
_PASSWORD_IN_URI = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")


def quoted(text: str) -> str:
    """SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def listed(columns: Iterable[str]) -> str:
    """Column names, quoted and comma separated."""
    return ", ".join(f'"{column}"' for column in columns)


def one_line(error: BaseException) -> str:
    """What the error says, in one line, without passwords and without DuckDB's picture of the statement."""
    said = str(error).partition("\nLINE ")[0]  # DuckLake gives its reason in a second line, Postgres a hint in a third
    lines = [redacted(line.strip()) for line in said.splitlines()]
    return "; ".join(line for line in lines if line) or type(error).__name__


def redacted(text: str) -> str:
    """``text`` with the passwords of connection strings hidden."""
    return _PASSWORD_IN_URI.sub(r"\1***@", _PASSWORD_KEYWORD.sub(r"\1***", text))
