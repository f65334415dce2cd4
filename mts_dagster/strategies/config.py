"""Configuration of strategies: one JSON file each, typed, frozen, and refused with an exact message.

What belongs here: the base of all configs, loading, hashing, and the wording of what is wrong. What a value means
belongs to the strategy that declares it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mts_dagster.errors import ConfigError

DEFAULT_ASSETS = ("bitcoin", "ethereum", "binancecoin")
HASH_DIGITS = 12
_BOUNDS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}

CoinId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


@dataclass(frozen=True)
class Tunable:
    """Marks a config field as a parameter that an optimiser may vary.

    Attributes:
        low: smallest value worth trying, inclusive.
        high: largest value worth trying, inclusive.
        step: distance of two neighbours in a grid.
    """

    low: float
    high: float
    step: float


class StrategyConfig(BaseModel):
    """Base of all configs. Unknown fields, text for numbers, NaN and changes after loading are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    assets: tuple[CoinId, ...] = Field(
        DEFAULT_ASSETS, min_length=1, description="CoinGecko ids to decide on, one signal each."
    )

    @model_validator(mode="after")
    def _assets_are_unique(self) -> Self:
        twice = sorted({asset for asset in self.assets if self.assets.count(asset) > 1})
        if twice:
            raise ValueError(f"assets names {', '.join(twice)} twice")
        return self


ConfigT = TypeVar("ConfigT", bound=StrategyConfig)


def config_hash(config: StrategyConfig) -> str:
    """First 12 digits of the SHA-256 over canonical JSON: sorted keys, no blanks, defaults included."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def load_config(path: Path, model: type[ConfigT]) -> ConfigT:
    """Read and validate a config file.

    Raises:
        ConfigError: one line naming the file and, for each wrong field, what was given and what is allowed.
    """
    text = _read(path)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"config {path}: {problems(error, model)}") from None


def build_config(model: type[ConfigT], values: Mapping[str, object]) -> ConfigT:
    """Validate values that do not come from a file.

    Raises:
        ConfigError: one line naming each wrong field, what was given and what is allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{model.__name__}: {problems(error, model)}") from None


def configured_coins(*folders: Path) -> tuple[str, ...]:
    """Coins that the JSON configs in ``folders`` name, sorted; a config without ``assets`` counts as the default.

    Raises:
        ConfigError: a file is no JSON object, or its ``assets`` is not a list of coin ids.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    return tuple(sorted({coin for path in paths for coin in load_config(path, _AssetsOnly).assets}))


class _AssetsOnly(StrategyConfig):
    """The part that all configs share."""

    model_config = ConfigDict(extra="ignore")


def _read(path: Path) -> str:
    """Text of a file that holds one JSON object without repeated keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist: create it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"config {path}: no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"config {path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"config {path}: got {_short(content)}, allowed: one JSON object of fields and values")
    return text


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice: JSON would silently take the last."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"field {twice[0]!r} is given twice")
    return dict(pairs)


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with a config, all of it in one line."""
    return "; ".join(_problem(details, model) for details in error.errors(include_url=False))


def _problem(details: ErrorDetails, model: type[BaseModel]) -> str:
    location = [str(part) for part in details["loc"]]
    if not location:
        return details["msg"].removeprefix("Value error, ")
    name, given = ".".join(location), _short(details["input"])
    if details["type"] == "extra_forbidden":
        return f"unknown field {name!r} (value {given}): {suggestion(name, model.model_fields)}"
    allowed = allowed_values(model.model_fields[location[0]])
    if details["type"] == "missing":
        return f"field {name!r} is missing, allowed: {allowed}"
    return f"field {name!r}: got {given}, allowed: {allowed}"


def suggestion(name: str, known: Mapping[str, object]) -> str:
    """Say which known name was probably meant, and which there are."""
    close = get_close_matches(name, list(known), n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}allowed: {', '.join(known) or 'none'}"


def allowed_values(field: FieldInfo) -> str:
    """The values that a config field takes, in words."""
    annotation, metadata = field.annotation, list(field.metadata)
    if get_origin(annotation) is Literal:
        return ", ".join(repr(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        least = next((mark.min_length for mark in metadata if isinstance(mark, MinLen)), 0)
        item = get_args(annotation)[0]
        kind = "CoinGecko ids such as 'bitcoin'" if item is CoinId else f"{getattr(item, '__name__', item)} values"
        return f"a list of {kind}" + (f", at least {least}" if least else "")
    if get_origin(annotation) is dict:
        return f"{allowed_values(FieldInfo.from_annotation(get_args(annotation)[1]))} for each name"
    kind = next((words for kind, words in _KINDS.items() if annotation is kind), str(annotation))
    return " ".join([kind, " and ".join(filter(None, map(_bound, metadata)))]).strip()


def _bound(mark: object) -> str:
    """One bound of a field in words; empty for a mark that is no bound."""
    for attribute, sign in _BOUNDS:
        if hasattr(mark, attribute):
            return f"{sign} {getattr(mark, attribute)}"
    return ""


def _short(value: object, limit: int = 60) -> str:
    """A value as JSON, cut to a readable length."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else text[: limit - 3] + "..."
