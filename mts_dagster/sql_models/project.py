"""Loading the SQL folder: files and YAML in, a checked ``Project`` of typed models out.

What belongs here: finding files, bringing template and contract together, and refusing what does not fit, each
refusal with file and line. Nothing is executed and no lake is needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from mts_dagster.schemas import KNOWN_SQL_TYPES, Column
from mts_dagster.sql_models.errors import SqlModelError
from mts_dagster.sql_models.lineage import ColumnLineage, column_lineage
from mts_dagster.sql_models.model import DataTest, Dependency, Model, Source
from mts_dagster.sql_models.properties import (
    ColumnProperties,
    ModelConfig,
    ModelProperties,
    ProjectFile,
    PropertiesFile,
    TestEntry,
    TestProperties,
    parse_config,
    read_project,
    read_properties,
)
from mts_dagster.sql_models.render import Renderer
from mts_dagster.sql_models.templates import Reference, Templates
from mts_dagster.sql_models.window import Window

GRAIN_TEST = "unique_grain"
PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
SAMPLE_WINDOW = Window(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))


@dataclass(frozen=True)
class Project:
    """The SQL folder.

    Attributes:
        root: the folder.
        models: by name, in an order in which each comes after what it reads.
        sources: by group and table name.
        tests: all data tests.
    """

    root: Path
    models: Mapping[str, Model]
    sources: Mapping[tuple[str, str], Source]
    tests: tuple[DataTest, ...]
    _renderer: Renderer

    def render(self, model: Model, window: Window | None = None) -> str:
        """Select statement of ``model`` for the days of ``window``; views and tables need none."""
        return self._renderer.model(model, window)

    def render_test(self, test: DataTest, window: Window | None = None) -> str:
        """Query for the failing rows of ``test``, within ``window`` where its tables have an event time."""
        return self._renderer.test(test, window)

    def tests_of(self, model: Model) -> tuple[DataTest, ...]:
        """Data tests that judge ``model``."""
        return tuple(test for test in self.tests if test.model == model.name)

    def column_lineage(self, model: Model) -> ColumnLineage:
        """For each column of ``model`` the ``(schema.table, column)`` pairs that it is computed from."""
        tables = {(entry.schema, entry.name): dict(entry.columns) for entry in self.sources.values()}
        for entry in self.models.values():
            tables[entry.schema, entry.name] = {column.name: column.sql_type for column in entry.columns}
        return column_lineage(self.render(model, SAMPLE_WINDOW), tables)

    def stored_inputs(self, model: Model) -> tuple[Dependency, ...]:
        """What ``model`` reads once its views are looked through: the tables whose partitions it depends on."""
        views = {(entry.schema, entry.name): entry for entry in self.models.values() if entry.kind == "view"}
        found: dict[tuple[str, str], int] = {}
        for dependency in model.depends_on:
            view = views.get(dependency.key)
            inputs = self.stored_inputs(view) if view else (dependency,)
            for entry in inputs:
                days = max(entry.lookback_days, dependency.lookback_days, found.get(entry.key, 0))
                found[entry.key] = days
        return tuple(Dependency(*key, lookback_days=days) for key, days in found.items())


def load_project(root: Path, variables: Mapping[str, Any] | None = None) -> Project:
    """Read and check the SQL folder ``root``.

    Args:
        root: folder that holds ``dbt_project.yml``.
        variables: values that take the place of the ones in the project file, by name.

    Raises:
        SqlModelError: names file and line of what is wrong.
    """
    return _Loader(root, variables or {}).load()


class _Loader:
    """Holds what the steps of loading share."""

    def __init__(self, root: Path, variables: Mapping[str, Any]) -> None:
        self.root = root
        self.project: ProjectFile = read_project(root)
        unknown = sorted(set(variables) - set(self.project.variables))
        if unknown:
            known = ", ".join(sorted(self.project.variables)) or "none"
            raise SqlModelError("dbt_project.yml", f"has no variable {unknown[0]!r}; there are {known}")
        generic = [f"{folder}/generic" for folder in self.project.test_paths]
        self.generic_files = list(self._files([*self.project.macro_paths, *generic], "*.sql"))
        self.templates = Templates(root, self.generic_files)
        self.properties = {
            path: read_properties(root, Path(path))
            for path in self._files([*self.project.model_paths, *self.project.test_paths], "*.yml")
        }
        self.model_paths = self._model_paths()
        self.models: dict[str, Model] = {}
        self.sources: dict[tuple[str, str], Source] = {}
        self.renderer = Renderer(self.templates, {**self.project.variables, **variables}, self.models, self.sources)

    def load(self) -> Project:
        """Run the steps in the order in which they need one another."""
        for path, properties in self.properties.items():
            self._add_sources(path, properties)
        contracts = self._contracts()
        for name in contracts.keys() - self.model_paths.keys():
            raise SqlModelError(contracts[name][0], f"describes model {name}, but there is no {name}.sql")
        for name, path in self.model_paths.items():
            self.models[name] = self._model(name, path, contracts)
        self._sort()
        for name, model in self.models.items():
            self.models[name] = replace(model, code_version=self._code_version(model))
        tests = (*self._column_and_model_tests(contracts), *self._singular_tests())
        self._check_tests(tests)
        return Project(self.root, self.models, self.sources, tests, self.renderer)

    def _files(self, folders: list[str], pattern: str) -> Iterator[str]:
        for folder in folders:
            for path in sorted((self.root / folder).rglob(pattern)):
                yield path.relative_to(self.root).as_posix()

    def _add_sources(self, path: str, properties: PropertiesFile) -> None:
        for group in properties.sources:
            for entry in group.tables:
                if (group.name, entry.name) in self.sources:
                    raise SqlModelError(path, f"source {group.name}.{entry.name} is declared twice")
                columns = tuple((column.name, _sql_type(path, column.data_type)) for column in entry.columns)
                event_time = entry.config.event_time
                if event_time is not None and event_time not in dict(columns):
                    raise SqlModelError(path, f"source {entry.name} has no column {event_time}, its event_time")
                self.sources[group.name, entry.name] = Source(
                    group.name, group.schema_ or group.name, entry.name, event_time, columns
                )

    def _contracts(self) -> dict[str, tuple[str, ModelProperties]]:
        found: dict[str, tuple[str, ModelProperties]] = {}
        for path, properties in self.properties.items():
            for entry in properties.models:
                if entry.name in found:
                    raise SqlModelError(path, f"model {entry.name} is described twice, see {found[entry.name][0]}")
                found[entry.name] = (path, entry)
        return found

    def _model_paths(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self._files(self.project.model_paths, "*.sql"):
            name = Path(path).stem
            if name in found:
                raise SqlModelError(path, f"a model called {name} is already in {found[name]}")
            if not PLAIN_NAME.fullmatch(name):
                raise SqlModelError(path, "a model's name has lower-case letters, digits and _ only")
            found[name] = path
        return found

    def _model(self, name: str, path: str, contracts: Mapping[str, tuple[str, ModelProperties]]) -> Model:
        if name not in contracts:
            raise SqlModelError(path, f"model {name} has no contract; describe it in a YAML file beside it")
        yaml_path, contract = contracts[name]
        self.templates.check(path)
        config = self._config(path, contract)
        columns = _columns(yaml_path, contract)
        if config.event_time is not None and config.event_time not in {column.name for column in columns}:
            raise SqlModelError(yaml_path, f"model {name} has no column {config.event_time}, its event_time")
        lookback_days = config.meta.get("input_lookback_days", 0)
        if not isinstance(lookback_days, int) or lookback_days < 0:
            raise SqlModelError(path, f"meta.input_lookback_days is a number of days, not {lookback_days!r}")
        return Model(
            name=name,
            schema=_schema(path, config),
            kind=config.materialized,
            path=path,
            depends_on=self._dependencies(path, lookback_days),
            event_time=config.event_time,
            input_lookback_days=lookback_days,
            description=contract.description.strip(),
            columns=columns,
            key=_grain(yaml_path, contract, {column.name for column in columns}),
            tags=tuple(config.tags),
            meta=config.meta,
            code_version="",
        )

    def _config(self, path: str, contract: ModelProperties) -> ModelConfig:
        """Merge the configuration: project file, then YAML, then ``config()``; the last one wins."""
        folders = next(
            Path(path).relative_to(folder).parent.parts
            for folder in self.project.model_paths
            if Path(path).is_relative_to(folder)
        )
        outer = {**self.project.folder_config(folders), **contract.config}
        inner = self.renderer.read_config(path, outer.get("meta", {}))
        meta = {**outer.get("meta", {}), **inner.get("meta", {})}
        config = parse_config({**outer, **inner, "meta": meta}, Path(path))
        if config.materialized == "incremental":
            needed = ("incremental_strategy", "event_time", "batch_size", "begin")
            missing = [key for key in needed if getattr(config, key) is None]
            if missing:
                raise SqlModelError(path, f"an incremental model is a microbatch one and needs {', '.join(missing)}")
        return config

    def _dependencies(self, path: str, lookback_days: int) -> tuple[Dependency, ...]:
        found: dict[tuple[str, str], int] = {}
        for reference in self.templates.references(path):
            key = self._resolve(reference)
            found[key] = max(found.get(key, 0), lookback_days if reference.is_whole else 0)
        return tuple(Dependency(*key, lookback_days=days) for key, days in found.items())

    def _resolve(self, reference: Reference) -> tuple[str, str]:
        """Schema and name that a ``ref`` or ``source`` means."""
        if reference.kind == "source":
            group, name = reference.names
            if (group, name) not in self.sources:
                known = ", ".join(".".join(key) for key in sorted(self.sources)) or "none"
                message = f"there is no source {group}.{name}; there are {known}"
                raise SqlModelError(reference.path, message, reference.line)
            return self.sources[group, name].schema, name
        name = reference.names[0]
        if name not in self.model_paths:
            known = ", ".join(sorted(self.model_paths))
            raise SqlModelError(reference.path, f"there is no model {name}; there are {known}", reference.line)
        return "", name

    def _sort(self) -> None:
        """Put the models into build order and give every ``ref`` its schema."""
        graph = {
            name: [entry.name for entry in model.depends_on if not entry.schema] for name, model in self.models.items()
        }
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = error.args[1]
            message = f"models read one another in a circle: {' <- '.join(cycle)}"
            raise SqlModelError(self.models[cycle[0]].path, message) from None
        for name in order:
            model = self.models.pop(name)
            depends_on = tuple(
                replace(entry, schema=entry.schema or self.models[entry.name].schema) for entry in model.depends_on
            )
            self.models[name] = replace(model, depends_on=depends_on)

    def _code_version(self, model: Model) -> str:
        text = f"{self.renderer.model(model, SAMPLE_WINDOW)}\n{model.columns}\n{model.key}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _column_and_model_tests(self, contracts: Mapping[str, tuple[str, ModelProperties]]) -> Iterator[DataTest]:
        for name in self.models:
            path, contract = contracts[name]
            for entry in contract.data_tests:
                yield self._generic_test(path, name, None, entry)
            for column in contract.columns:
                for entry in column.data_tests:
                    yield self._generic_test(path, name, column.name, entry)

    def _generic_test(self, path: str, model: str, column: str | None, entry: TestEntry) -> DataTest:
        kind, properties = _split_test(path, entry)
        if f"test_{kind}" not in self.templates.macro_names:
            known = ", ".join(
                sorted(name.removeprefix("test_") for name in self.templates.macro_names if name[:5] == "test_")
            )
            raise SqlModelError(path, f"model {model}: there is no data test {kind}; there are {known}")
        return DataTest(
            name=properties.name or "_".join(part for part in (kind, model, column) if part),
            model=model,
            column=column,
            description=properties.description,
            severity=properties.config.severity,
            macro=f"test_{kind}",
            arguments=properties.arguments,
            where=properties.config.where,
            path=path,
        )

    def _singular_tests(self) -> Iterator[DataTest]:
        described = {entry.name: entry.description for file in self.properties.values() for entry in file.data_tests}
        for path in self._files(self.project.test_paths, "*.sql"):
            if path in self.generic_files:
                continue
            self.templates.check(path)
            references = self.templates.references(path)
            for reference in references:
                self._resolve(reference)
            judged = [reference.names[0] for reference in references if reference.kind == "ref"]
            if not judged:
                raise SqlModelError(path, "a data test reads at least one model with ref()")
            config = self.renderer.read_config(path, {})
            name = Path(path).stem
            yield DataTest(
                name=name,
                # The one that is built last: before that, what the test compares does not exist yet.
                model=max(judged, key=list(self.models).index),
                column=None,
                description=described.get(name, ""),
                severity=TestProperties.model_validate({"config": config}).config.severity,
                macro=None,
                arguments={},
                where=None,
                path=path,
            )

    def _check_tests(self, tests: tuple[DataTest, ...]) -> None:
        """Render every test once, so that a wrong argument shows here and not in a run."""
        seen: set[str] = set()
        for test in tests:
            if test.name in seen:
                raise SqlModelError(test.path, f"two data tests are called {test.name}; give one a name")
            seen.add(test.name)
            self.renderer.test(test, SAMPLE_WINDOW)


def _schema(path: str, config: ModelConfig) -> str:
    if config.schema_ is None:
        raise SqlModelError(path, "no schema; set +schema for its folder in dbt_project.yml")
    return config.schema_


def _sql_type(path: str, data_type: str) -> str:
    sql_type = data_type.upper()
    if sql_type not in KNOWN_SQL_TYPES:
        known = ", ".join(sorted(known.lower() for known in KNOWN_SQL_TYPES))
        raise SqlModelError(path, f"data_type {data_type} is not used in the lake; there are {known}")
    return sql_type


def _columns(path: str, contract: ModelProperties) -> tuple[Column, ...]:
    if not contract.columns:
        raise SqlModelError(path, f"model {contract.name} has no columns in its contract")
    names = [column.name for column in contract.columns]
    for name in names:
        if names.count(name) > 1:
            raise SqlModelError(path, f"model {contract.name} describes column {name} twice")
    return tuple(_column(path, column) for column in contract.columns)


def _column(path: str, column: ColumnProperties) -> Column:
    return Column(
        name=column.name,
        sql_type=_sql_type(path, column.data_type),
        description=column.description.strip(),
        nullable="not_null" not in {_split_test(path, entry)[0] for entry in column.data_tests},
        unit=column.config.meta.get("unit"),
    )


def _grain(path: str, contract: ModelProperties, columns: set[str]) -> tuple[str, ...]:
    """Key of a model: the columns of its ``unique_grain`` test, so that a stated grain is a tested one."""
    for entry in contract.data_tests:
        name, properties = _split_test(path, entry)
        if name == GRAIN_TEST:
            key = tuple(properties.arguments.get("columns", ()))
            if key and set(key) <= columns:
                return key
            raise SqlModelError(path, f"model {contract.name}: {GRAIN_TEST} needs columns of the model")
    raise SqlModelError(path, f"model {contract.name} does not state its grain; add the data test {GRAIN_TEST}")


def _split_test(path: str, entry: TestEntry) -> tuple[str, TestProperties]:
    """Name and properties of a data test, written as a name or as a mapping with one entry."""
    if isinstance(entry, str):
        return entry, TestProperties()
    if len(entry) != 1:
        raise SqlModelError(path, f"a data test is one name with its properties, not {sorted(entry)}")
    ((name, properties),) = entry.items()
    return name, properties or TestProperties()
