"""What can be wrong with the folder of SQL models, told with file and line."""

from __future__ import annotations

from pathlib import Path

from mts_dagster.errors import ConfigError


class SqlModelError(ConfigError):
    """A file of the SQL folder is wrong.

    Attributes:
        path: the file, relative to the SQL folder.
        line: line in it, or None where the whole file is meant.
    """

    def __init__(self, path: Path | str, message: str, line: int | None = None) -> None:
        self.path = Path(path)
        self.line = line
        place = f"{self.path.as_posix()}" if line is None else f"{self.path.as_posix()}, line {line}"
        super().__init__(f"{place}: {message}")
