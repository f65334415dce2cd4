"""SQL text of models and data tests for a window: what ``ref``, ``source``, ``var`` and the others return.

What belongs here: the meaning of the names that templates use, dbt's microbatch filter above all. While a window
is rendered, a ``ref`` or ``source`` whose table declares an ``event_time`` yields only the rows in the window, as
a subquery, unless it is written ``ref(...).render()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mts_dagster.errors import UsageError
from mts_dagster.sql_models.errors import SqlModelError
from mts_dagster.sql_models.model import DataTest, Model, Source
from mts_dagster.sql_models.templates import Templates
from mts_dagster.sql_models.window import Window


@dataclass(frozen=True)
class Relation:
    """A table in SQL text: ``schema.name``, or a subquery where a condition narrows it."""

    schema: str
    identifier: str
    condition: str | None = None

    def render(self) -> str:
        """The whole table."""
        return f"{self.schema}.{self.identifier}"

    def __str__(self) -> str:
        if self.condition is None:
            return self.render()
        return f"(select * from {self.render()} where {self.condition})"  # noqa: S608 - made of checked names and times


@dataclass(frozen=True)
class _Batch:
    """``model.batch``."""

    event_time_start: datetime
    event_time_end: datetime


@dataclass(frozen=True)
class _ConfigValue:
    """``model.config``."""

    meta: Mapping[str, Any]


@dataclass(frozen=True)
class _ModelValue:
    """``model``."""

    name: str
    config: _ConfigValue
    batch: _Batch | None


@dataclass(frozen=True)
class _Target:
    """``target``: where models are built, the same names as in ``profiles.yml``."""

    name: str = "lake"
    database: str = "lake"
    schema: str = "main"
    type: str = "duckdb"


class _ConfigFoundError(Exception):
    """Carries the arguments of a template's ``config(...)`` out of it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values


class Renderer:
    """Renders the models and tests of one folder.

    Args:
        templates: its templates.
        variables: values of ``var``.
        models: by name; may still grow after construction.
        sources: by group and table.
    """

    def __init__(
        self,
        templates: Templates,
        variables: Mapping[str, Any],
        models: Mapping[str, Model],
        sources: Mapping[tuple[str, str], Source],
    ) -> None:
        self._templates = templates
        self._variables = variables
        self._models = models
        self._sources = sources

    def read_config(self, path: str, outer_meta: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the template's ``config(...)``; empty if it has none."""
        lines = self._templates.config_calls(path)
        if not lines:
            return {}
        if len(lines) > 1:
            raise SqlModelError(path, "config() stands once in a file", lines[1])

        def config(**values: Any) -> str:  # noqa: ANN401 - checked by ModelConfig
            raise _ConfigFoundError(values)

        values = {
            "var": self._variable,
            "config": config,
            "target": _Target(),
            "model": _ModelValue(path, _ConfigValue(outer_meta), None),
            "is_incremental": lambda: False,
        }
        try:
            self._templates.render(path, values)
        except SqlModelError as error:
            if isinstance(error.__cause__, _ConfigFoundError):
                return error.__cause__.values
            raise
        raise SqlModelError(path, "config() stands at the top, outside of any condition", lines[0])

    def model(self, model: Model, window: Window | None) -> str:
        """Select statement of a model; views and tables are whole, whatever the window."""
        batch = window if model.kind == "incremental" else None
        if model.kind == "incremental" and batch is None:
            raise UsageError(f"model {model.name} is incremental: it is rendered for a window of days")
        return self._templates.render(model.path, self._values(model, batch)).strip()

    def test(self, test: DataTest, window: Window | None) -> str:
        """Query that returns the failing rows of a test."""
        if test.macro is None:
            return self._templates.render(test.path, self._values(None, window)).strip()
        judged = self._relation(self._models[test.model], window)
        conditions = [part for part in (judged.condition, test.where and f"({test.where})") if part]
        arguments = {
            "model": Relation(judged.schema, judged.identifier, " and ".join(conditions) or None),
            **({"column_name": test.column} if test.column else {}),
            **{name: self._argument(name, value) for name, value in test.arguments.items()},
        }
        try:
            return self._templates.call(test.macro, arguments, self._values(None, window)).strip()
        except SqlModelError as error:
            raise SqlModelError(test.path, f"data test {test.name}: {error}") from error

    def _values(self, model: Model | None, window: Window | None) -> dict[str, Any]:
        """Meaning of every name a template may use."""
        values: dict[str, Any] = {
            "ref": lambda name: self._relation(self._models[name], window),
            "source": lambda group, name: self._relation(self._sources[group, name], window),
            "config": lambda **_: "",
            "var": self._variable,
            "target": _Target(),
            "is_incremental": lambda: model is not None and window is not None,
        }
        if model is not None:
            batch = _Batch(window.start, window.end) if window else None
            values["this"] = Relation(model.schema, model.name)
            values["model"] = _ModelValue(model.name, _ConfigValue(model.meta), batch)
        return values

    def _relation(self, table: Model | Source, window: Window | None) -> Relation:
        """A table, cut to the window if it declares an event time."""
        if window is None or table.event_time is None:
            return Relation(table.schema, table.name)
        if isinstance(table, Model):
            sql_type = table.table().column(table.event_time).sql_type
        else:
            sql_type = dict(table.columns)[table.event_time]
        return Relation(table.schema, table.name, window.condition(table.event_time, sql_type))

    def _variable(self, name: str, default: object = None) -> object:
        if name not in self._variables and default is None:
            known = ", ".join(sorted(self._variables)) or "none"
            raise LookupError(f"variable {name!r} is not set in dbt_project.yml; there are {known}")
        return self._variables.get(name, default)

    def _argument(self, name: str, value: object) -> object:
        """An argument of a generic test; ``to`` names a table with ``ref`` or ``source``."""
        if name != "to" or not isinstance(value, str):
            return value
        return self._templates.evaluate(value, self._values(None, None))
