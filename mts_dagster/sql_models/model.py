"""What the SQL folder holds, as typed records: models, the tables they read, and their data tests.

What belongs here: plain facts without behaviour beyond looking them up. They are made in ``project``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mts_dagster.schemas import Column, Table
from mts_dagster.sql_models.properties import Severity

Kind = Literal["view", "table", "incremental"]


@dataclass(frozen=True)
class Dependency:
    """A table or view that a model reads.

    Attributes:
        schema: DuckDB schema, and the first part of the asset key.
        name: table or view.
        lookback_days: days before the window that are read too; 0 where only the window is read.
    """

    schema: str
    name: str
    lookback_days: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Asset key."""
        return self.schema, self.name


@dataclass(frozen=True)
class Source:
    """A table that something else writes and models read.

    Attributes:
        group: first argument of ``source``.
        schema: DuckDB schema.
        name: table, and second argument of ``source``.
        event_time: column that batches are cut by, or None where the table is always read whole.
        columns: name and SQL type of each column.
    """

    group: str
    schema: str
    name: str
    event_time: str | None
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Model:
    """One SQL file and its contract.

    Attributes:
        name: file name without ending; unique.
        schema: DuckDB schema, and the first part of the asset key.
        kind: view and table are rendered whole, incremental for a window.
        path: the file, relative to the SQL folder.
        depends_on: what it reads, in the order of first mention.
        event_time: column that decides which day a row belongs to; None where rows belong to no day.
        input_lookback_days: days before the window that inputs written as ``ref(...).render()`` are read for.
        description: what one row is.
        columns: in stored order.
        key: columns that are unique together.
        tags: free words.
        meta: free facts from the configuration.
        code_version: changes when the SQL, what it calls, a variable it uses, or its contract changes.
    """

    name: str
    schema: str
    kind: Kind
    path: str
    depends_on: tuple[Dependency, ...]
    event_time: str | None
    input_lookback_days: int
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    tags: tuple[str, ...]
    meta: dict[str, Any]
    code_version: str

    def table(self) -> Table:
        """Contract of the stored table or view."""
        return Table(
            schema=self.schema,
            name=self.name,
            columns=self.columns,
            key=self.key,
            time_column=self.event_time,
            description=self.description,
        )


@dataclass(frozen=True)
class DataTest:
    """A query whose rows are failures.

    Attributes:
        name: unique, usable as the name of an asset check.
        model: model that it judges; a test of several models belongs to the one that is built last.
        column: the column it judges, or None.
        description: what must hold.
        severity: error fails, warn reports.
        macro: generic test, or None for a file of its own.
        arguments: of the generic test.
        where: condition that narrows the rows judged, or None.
        path: file that states it.
    """

    name: str
    model: str
    column: str | None
    description: str
    severity: Severity
    macro: str | None
    arguments: dict[str, Any]
    where: str | None
    path: str
