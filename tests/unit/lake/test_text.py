"""Passwords stay out of messages, quotes stay inside literals."""

from __future__ import annotations

import pytest

from mts_dagster.lake.text import listed, one_line, quoted, redacted


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("host=db password=secret dbname=lake", "host=db password=*** dbname=lake"),
        ("password='two \\' words' host=db", "password=*** host=db"),
        ("PASSWORD = secret", "PASSWORD = ***"),
        ("postgresql://mts:secret@db:5432/lake", "postgresql://mts:***@db:5432/lake"),
        ("host=db user=mts dbname=lake", "host=db user=mts dbname=lake"),
        ("sqlite:/data/lake.sqlite", "sqlite:/data/lake.sqlite"),
    ],
)
def test_passwords_are_hidden(text: str, safe: str) -> None:
    """Both ways of writing a password are hidden, everything else stays."""
    assert redacted(text) == safe


def test_a_message_becomes_one_line_without_password() -> None:
    """The reason often stands in the second line."""
    error = RuntimeError("Failed to commit password=secret\n\tdatabase is locked\n")
    assert one_line(error) == "Failed to commit password=***; database is locked"


def test_duckdbs_picture_of_the_statement_is_left_out() -> None:
    """A caret below a statement means nothing in one line."""
    error = RuntimeError("Binder Error: no column x\n\nLINE 1: select x\n               ^")
    assert one_line(error) == "Binder Error: no column x"


def test_an_error_without_text_still_says_something() -> None:
    """The kind of the error stands in for its message."""
    assert one_line(TimeoutError()) == "TimeoutError"


def test_quotes_are_doubled() -> None:
    """A folder called ``it's`` does not end the literal."""
    assert quoted("/home/it's/lake") == "'/home/it''s/lake'"


def test_columns_are_listed_quoted() -> None:
    """Reserved words can be columns."""
    assert listed(["open", "order"]) == '"open", "order"'
