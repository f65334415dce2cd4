"""DuckDB extensions out of their wheels: DuckDB verifies the signature, nothing is downloaded at run time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb

from mts_dagster.errors import LakeError
from mts_dagster.lake.text import quoted


def load_extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension, e.g. ``ducklake``, from the wheel of DuckDB's own version.

    Raises:
        LakeError: the wheel is missing; names the package to install.
    """
    con.execute(f"load {quoted(str(_extension_file(name)))}")


def _extension_file(name: str) -> Path:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () for file in Path(place).rglob(f"v{duckdb.__version__}/*.duckdb_extension")]
    if not files:
        package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
        raise LakeError(f"DuckDB {duckdb.__version__} finds no extension {name}: pip install {package}")
    return files[0]
