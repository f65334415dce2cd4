"""Find strategies in files and give each its config.

What belongs here: discovery in the package folder and in the folders of the setting ``strategy_folders``. A
strategy of your own is one Python file in such a folder and one JSON file, in the config folder or beside the
Python file. Files whose name begins with an underscore are not looked at.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.settings import Settings
from mts_dagster.strategies.aggregate import NAME as AGGREGATE
from mts_dagster.strategies.aggregate import AggregationConfig
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.config import load_config, suggestion
from mts_dagster.strategies.errors import StrategyError

PACKAGE_FOLDER = Path(__file__).resolve().parent
MACHINERY = frozenset(
    {"aggregate", "base", "config", "decisions", "errors", "market", "publish", "registry", "sizing", "testing"}
)
"""Modules of the package folder that hold no strategy."""

StrategyType = type[Strategy[Any]]


def load_strategies(settings: Settings) -> dict[str, Strategy[Any]]:
    """All strategies with their configs, by name, sorted.

    Raises:
        StrategyError: a file cannot be used, or two strategies have one name.
        ConfigError: a config is missing or wrong, or there is a config without its strategy.
    """
    found = discover(settings)
    configs = settings.strategy_config_folder
    if AGGREGATE in found:
        raise StrategyError(f"{found[AGGREGATE][1]}: the name {AGGREGATE!r} belongs to the portfolio of all; rename it")
    for path in sorted(configs.glob("*.json")):
        if path.stem not in found and path.stem != AGGREGATE:
            raise ConfigError(f"config {path}: there is no strategy {path.stem!r}: {suggestion(path.stem, found)}")
    return {
        name: strategy(load_config(_config_path(name, source, configs), strategy.config_type))
        for name, (strategy, source) in sorted(found.items())
    }


def load_strategy(name: str, settings: Settings) -> Strategy[Any]:
    """One strategy by name.

    Raises:
        UsageError: there is no strategy of that name.
    """
    strategies = load_strategies(settings)
    if name not in strategies:
        raise UsageError(f"there is no strategy {name!r}: {suggestion(name, strategies)}")
    return strategies[name]


def load_aggregation(settings: Settings) -> AggregationConfig:
    """How the strategies' votes become one portfolio: ``aggregate.json`` of the config folder, or the defaults.

    Raises:
        ConfigError: the file is wrong, or weighs a strategy that there is not.
    """
    path = settings.strategy_config_folder / f"{AGGREGATE}.json"
    if not path.exists():
        return AggregationConfig()
    config = load_config(path, AggregationConfig)
    known = discover(settings)
    for name in config.weights:
        if name not in known:  # it would be ignored, and the strategy that was meant keep the default weight
            raise ConfigError(f"config {path}: weights names {name!r}: {suggestion(name, known)}")
    return config


def discover(settings: Settings) -> dict[str, tuple[StrategyType, Path]]:
    """Strategy classes by name, each with the file it stands in."""
    found: dict[str, tuple[StrategyType, Path]] = {}
    for source in _sources(settings):
        for strategy in _strategies_in(source):
            if strategy.name in found:
                raise StrategyError(
                    f"two strategies have the name {strategy.name!r}: {found[strategy.name][1]} and {source}; "
                    "rename one"
                )
            found[strategy.name] = (strategy, source)
    return found


def _sources(settings: Settings) -> list[Path]:
    """Strategy files: those of the package, then those of each further folder."""
    own = [path for path in sorted(PACKAGE_FOLDER.glob("[!_]*.py")) if path.stem not in MACHINERY]
    for text in settings.strategy_folders:
        folder = Path(text).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError(f"setting MTS_STRATEGY_FOLDERS: {folder} is not a folder")
        own += sorted(folder.glob("[!_]*.py"))
    return own


def _strategies_in(source: Path) -> list[StrategyType]:
    """Usable strategy classes that a file defines itself."""
    try:
        module = _module(source)
    except Exception as error:
        raise StrategyError(f"strategy file {source} cannot be loaded: {_located(error, source)}") from error
    classes = [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, Strategy)
        and member.__module__ == module.__name__
        and not inspect.isabstract(member)
    ]
    if not classes:
        raise StrategyError(
            f"strategy file {source} defines no usable subclass of mts_dagster.strategies.Strategy: "
            "it needs one with the methods analyse and signals"
        )
    return classes


def _module(source: Path) -> ModuleType:
    """Import a file: as part of the package, or under a name of its own that cannot hide another module."""
    if source.parent == PACKAGE_FOLDER:
        return importlib.import_module(f"mts_dagster.strategies.{source.stem}")
    name = f"mts_own_strategies_{hashlib.sha256(str(source).encode()).hexdigest()[:8]}_{source.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up in the module while it is being executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _located(error: Exception, source: Path) -> str:
    """The error with the line of ``source`` that it came from, if that is known."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(source):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"line {line}: " if line else ""
    return f"{place}{type(error).__name__}: {error}"


def _config_path(name: str, source: Path, configs: Path) -> Path:
    """The config of a strategy: in the config folder, else beside a strategy file outside the package."""
    path, beside = configs / f"{name}.json", source.parent / f"{name}.json"
    return beside if not path.exists() and beside.exists() else path
