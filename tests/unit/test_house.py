"""The rules of the house: which way imports run, what loading costs, who reads the environment."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = [
    name for name in ("mts_dagster", "mts_realtime", "mts_api", "mts_simulator") if (REPOSITORY / name).is_dir()
]
FILES = [path for name in PACKAGES for path in sorted((REPOSITORY / name).rglob("*.py"))]
SHELL = [
    f"mts_dagster.{name}"
    for name in (
        "definitions",
        "workbench",
        "cli",
        "backtest_cli",
        "desk",
        "reports",
        "backtest_reports",
        "record_reports",
        "demo",
        "processes",
        "origin_guard",
    )
]
# What the modules below a prefix must never import.
FORBIDDEN = {
    "mts_simulator": ["mts_dagster", "mts_realtime", "mts_api", "dagster"],
    "mts_realtime": ["mts_dagster", "mts_api", "mts_simulator", "dagster"],
    "mts_dagster": ["mts_api", "mts_simulator"],
    "mts_api": ["mts_simulator", "dagster"],
    "mts_dagster.errors": ["mts_dagster"],
    "mts_dagster.settings": ["dagster", "mts_dagster.defs", "mts_dagster.lake", "mts_dagster.sources", *SHELL],
    "mts_dagster.schemas": ["dagster", "mts_dagster"],
    "mts_dagster.strategies": ["dagster", "duckdb", "requests", "mts_dagster.lake", "mts_dagster.sources"],
    "mts_dagster.backtest": ["dagster", "requests", "mts_dagster.lake", "mts_dagster.research", "mts_dagster.sources"],
    "mts_dagster.research": ["dagster", "requests", "mts_dagster.sources", "mts_dagster.partitions"],
    "mts_dagster.sql_models": ["dagster", "duckdb", "mts_dagster.lake", "mts_dagster.sources"],
    "mts_dagster.sources": ["dagster", "duckdb", "mts_dagster.strategies", "mts_dagster.sql_models"],
    "mts_dagster.live": ["dagster", "mts_dagster.partitions", "mts_dagster.strategies", "mts_dagster.sql_models"],
    "mts_dagster.instance": ["mts_dagster.lake", "mts_dagster.sources", "mts_dagster.strategies"],
    "mts_dagster.defs": SHELL,
    "mts_dagster.partitions": ["mts_dagster.defs", *SHELL],
    "mts_dagster.runs": ["mts_dagster.defs", *SHELL],
}
DOMAIN = ["strategies", "backtest", "research", "sql_models", "sources", "lake", "live"]
ABOVE_THE_DOMAIN = ["mts_dagster.defs", "mts_dagster.runs", "mts_dagster.instance", *SHELL]
# The lake meets Dagster in its IO manager alone.
LAKE_MEETS_DAGSTER = ["mts_dagster.lake.io_manager"]
HEAVY = ["numba", "scipy", "sqlglot", "matplotlib", "plotly", "aiohttp", "websockets", "dbt", "playwright", "rich"]
HEAVY_PARTS = ["pyarrow.dataset", "pyarrow.parquet", "pyarrow.flight", "dagster_webserver", "mts_dagster.cli"]
# Settings read it; the instance and the started processes hand it on; the demo and `up` point it at the simulator.
READS_ENVIRONMENT = [
    "mts_dagster.settings",
    "mts_dagster.instance.home",
    "mts_dagster.processes",
    "mts_dagster.demo",
    "mts_dagster.backtest.compiled",  # where compiled kernels are cached: numba's own variables
]


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module and name that a file imports, wherever in the file it does."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(below: str, forbidden: list[str]) -> list[str]:
    return [
        f"{name_of(path)} imports {target}"
        for path in FILES
        if is_below(name_of(path), below)
        for target in imported(path)
        for prefix in forbidden
        if is_below(target, prefix) and not is_below(target, below)
    ]


@pytest.mark.parametrize("below", FORBIDDEN)
def test_imports_run_one_way(below: str) -> None:
    """No module imports what stands above it in the house."""
    assert offences(below, FORBIDDEN[below]) == []


def test_no_modules_import_each_other() -> None:
    """Also not for their types alone: of two modules in a circle neither can be understood without the other."""
    names = {name_of(path): path for path in FILES}
    needed = {name: {target for target in imported(path) if target in names} for name, path in names.items()}
    packages = {name for name, path in names.items() if path.name == "__init__.py"}
    for name, targets in needed.items():  # what a package offers comes from its modules, which do not need it
        needed[name] = {target for target in targets if not (target in packages and is_below(name, target))}
    graphlib.TopologicalSorter(needed).prepare()  # names the circle, if there is one


@pytest.mark.parametrize("domain", DOMAIN)
def test_the_domain_knows_nothing_of_what_runs_it(domain: str) -> None:
    """Strategies, backtests, models, sources and the lake import no asset, job, command or instance."""
    assert offences(f"mts_dagster.{domain}", ABOVE_THE_DOMAIN) == []


def test_the_lake_meets_dagster_in_one_module() -> None:
    """Only the IO manager imports Dagster, or the partitions that are made of it."""
    found = {offence.split()[0] for offence in offences("mts_dagster.lake", ["dagster", "mts_dagster.partitions"])}
    assert found == set(LAKE_MEETS_DAGSTER)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_says_what_belongs_in_it(path: Path) -> None:
    """A newcomer never has to guess where code goes."""
    assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"


def test_the_environment_is_read_in_few_places() -> None:
    """A value from the environment is a setting; everybody else gets it from there."""
    readers = {
        name_of(path)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.Name) and node.id in ("environ", "getenv"))
    }
    assert readers <= set(READS_ENVIRONMENT)


@pytest.mark.xdist_group("house")
def test_groups_of_tests_stay_on_one_worker(request: pytest.FixtureRequest) -> None:
    """What shares a costly fixture is marked as a group; versions of pytest and xdist exist that ignore the mark."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("runs without workers")
    assert request.node.nodeid.endswith("@house")


def test_no_module_is_called_after_nothing() -> None:
    """Modules are named after subjects."""
    assert [str(path) for path in FILES if path.stem in ("utils", "helpers", "misc", "common_utils")] == []


def test_loading_the_definitions_imports_no_heavy_library() -> None:
    """Every run, tick and page load imports them: compilers, plots and servers wait until they are used."""
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); import mts_dagster.definitions as d; d.defs(); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    loaded = set(json.loads(done.stdout))
    assert "mts_dagster.defs.history.assets" in loaded
    assert loaded & {*HEAVY, *HEAVY_PARTS} == set()
