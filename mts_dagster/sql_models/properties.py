"""The YAML files of the SQL folder as typed records: the project file, and what stands beside the models.

What belongs here: the shape of those files, in dbt's spelling, and reading them. What they mean for a model is
decided in ``project``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mts_dagster.sql_models.errors import SqlModelError

Severity = Literal["error", "warn"]
Shape = TypeVar("Shape", bound=BaseModel)


class _Properties(BaseModel):
    """Unknown keys are errors: a misspelt one must not be silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class TestConfig(_Properties):
    """How a data test counts."""

    __test__ = False  # pytest would take the name for a test class

    severity: Annotated[Severity, BeforeValidator(_lower)] = "error"
    where: str | None = None
    tags: list[str] = []


class TestProperties(_Properties):
    """One use of a generic data test."""

    __test__ = False

    name: str | None = None
    description: str = ""
    arguments: dict[str, Any] = {}
    config: TestConfig = TestConfig()


TestEntry = str | dict[str, TestProperties | None]


class ColumnConfig(_Properties):
    """Free facts of a column; ``meta["unit"]`` is its unit."""

    meta: dict[str, Any] = {}


class SourceColumnProperties(_Properties):
    """A column of a source table; its contract is the one of who writes it."""

    name: str
    data_type: str


class ColumnProperties(_Properties):
    """A column of a model."""

    name: str
    data_type: str
    description: str = ""
    config: ColumnConfig = ColumnConfig()
    data_tests: list[TestEntry] = []


class ModelConfig(_Properties):
    """A model's configuration, wherever it was written: project file, YAML or ``config()``."""

    schema_: str | None = Field(None, alias="schema")
    materialized: Literal["view", "table", "incremental"] = "view"
    incremental_strategy: Literal["microbatch"] | None = None
    event_time: str | None = None
    batch_size: Literal["day"] | None = None
    begin: str | None = None
    lookback: int = 1
    tags: list[str] = []
    meta: dict[str, Any] = {}


class ModelProperties(_Properties):
    """What YAML says of a model."""

    name: str
    description: str = ""
    config: dict[str, Any] = {}
    data_tests: list[TestEntry] = []
    columns: list[ColumnProperties] = []


class SourceTableConfig(_Properties):
    """Configuration of a source table."""

    event_time: str | None = None


class SourceTableProperties(_Properties):
    """A table that something else writes."""

    name: str
    description: str = ""
    config: SourceTableConfig = SourceTableConfig()
    columns: list[SourceColumnProperties] = []


class SourceProperties(_Properties):
    """A group of tables in one schema."""

    name: str
    schema_: str | None = Field(None, alias="schema")
    description: str = ""
    tables: list[SourceTableProperties]


class SingularTestProperties(_Properties):
    """Description of a test that is a file of its own."""

    name: str
    description: str = ""


class PropertiesFile(_Properties):
    """A YAML file beside the models. ``unit_tests`` are dbt's own and run there."""

    version: Literal[2] = 2
    models: list[ModelProperties] = []
    sources: list[SourceProperties] = []
    data_tests: list[SingularTestProperties] = []
    unit_tests: list[Any] = []


class ProjectFile(BaseModel):
    """``dbt_project.yml``, as far as it changes what a model is. The rest concerns dbt alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: str
    model_paths: list[str] = Field(["models"], alias="model-paths")
    macro_paths: list[str] = Field(["macros"], alias="macro-paths")
    test_paths: list[str] = Field(["tests"], alias="test-paths")
    variables: dict[str, Any] = Field({}, alias="vars")
    models: dict[str, Any] = {}

    def folder_config(self, folders: tuple[str, ...]) -> dict[str, Any]:
        """Configuration that the project file gives to models below ``folders``; the innermost folder wins."""
        merged: dict[str, Any] = {}
        node: Any = self.models.get(self.name, {})
        for folder in (*folders, None):
            if not isinstance(node, Mapping):
                break
            merged |= {key.removeprefix("+"): value for key, value in node.items() if key.startswith("+")}
            node = node.get(folder)
        return merged


def read_project(root: Path) -> ProjectFile:
    """Read ``dbt_project.yml`` of a folder."""
    return _read(ProjectFile, root, Path("dbt_project.yml"))


def read_properties(root: Path, path: Path) -> PropertiesFile:
    """Read one YAML file beside the models; ``path`` is relative to ``root``."""
    return _read(PropertiesFile, root, path)


def parse_config(values: Mapping[str, Any], path: Path) -> ModelConfig:
    """Check a merged configuration of the model in ``path``."""
    return _validate(ModelConfig, dict(values), path)


def _read(shape: type[Shape], root: Path, path: Path) -> Shape:
    try:
        content = yaml.safe_load((root / path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SqlModelError(path, f"the file does not exist in {root}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SqlModelError(path, f"not YAML: {error.problem}", line) from None
    return _validate(shape, content or {}, path)


def _validate(shape: type[Shape], content: object, path: Path) -> Shape:
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SqlModelError(path, f"{place}: {first['msg']} (got {first.get('input')!r})") from None
