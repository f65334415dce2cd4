"""Arguments as people type them: days, lists, and their mistakes in one line.

What belongs here: parsing that several commands of ``mts`` share.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from mts_dagster.errors import UsageError

DAY_FORMAT = "%Y-%m-%d"
LIST_OPTIONS = ("--coins", "--indicators", "--symbols", "--strategies", "--parameters")


def parse_day(option: str, text: str) -> date:
    """Read a day; the error names the option and the form."""
    try:
        return datetime.strptime(text, DAY_FORMAT).replace(tzinfo=UTC).date()
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a day; write it as YYYY-MM-DD, e.g. 2024-01-31") from None


def repeat_lists(arguments: Sequence[str]) -> list[str]:
    """Turn ``--coins a b`` into ``--coins a --coins b``, the form that Typer takes."""
    given: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in LIST_OPTIONS else ""
        elif option and given[-1] != option:
            given.append(option)
        given.append(argument)
    return given


def split_list(values: list[str] | None) -> list[str] | None:
    """Accept commas between the values of an option too."""
    if values is None:
        return None
    parts = [part.strip().lower() if part.islower() else part.strip() for value in values for part in value.split(",")]
    return [part for part in parts if part]
