"""Which fields of a config are read.

What belongs here: a config that notes it. It is an instance of the config's own class as far as anyone can tell, so
that whatever a strategy does with its config it can do with this one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any

from mts_dagster.strategies.config import StrategyConfig


@contextmanager
def watching(config: StrategyConfig) -> Iterator[tuple[Any, set[str]]]:
    """A config with the same values, and the fields that are read of it until the end; for one thread at a time."""
    kind, read = _watched(type(config))
    read.clear()
    watched = copy.copy(config)
    object.__setattr__(watched, "__class__", kind)
    yield watched, read


@cache
def _watched(kind: type[StrategyConfig]) -> tuple[type[StrategyConfig], set[str]]:
    """A subclass whose instances note in the set which fields are read.

    Methods and properties of the config's own class run on the watched config, so what they read is noted. Everything
    else than them and the fields (a copy, a dump, a comparison, a cached property) may read any field.
    """
    fields, read = frozenset(kind.model_fields), set[str]()
    ours = {
        name
        for base in kind.__mro__
        if issubclass(base, StrategyConfig)
        for name, value in vars(base).items()
        if isinstance(value, FunctionType | property) and not name.startswith("__")
    }

    def noting(self: StrategyConfig, name: str) -> Any:  # noqa: ANN401 - whatever the config holds
        if name in fields:
            read.add(name)
        elif name not in ours:
            read.update(fields)
        return kind.__getattribute__(self, name)

    def equal(self: StrategyConfig, other: object) -> bool:
        read.update(fields)
        theirs = other.__dict__ if isinstance(other, kind) else other
        return bool(self.__dict__ == theirs)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    rules = {"__getattribute__": noting, "__eq__": equal, "__hash__": kind.__hash__}
    metaclass: Any = type(kind)
    return metaclass(kind.__name__, (kind,), {**names, **rules}), read
