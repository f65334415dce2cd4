"""Connections to the lake: extensions from their wheels, catalog attached, names usable without their schema.

What belongs here: how a DuckDB connection is opened. Locking is in ``lock``, transactions in ``transaction``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mts_dagster.errors import ConfigError, LakeError, LakeNotFoundError
from mts_dagster.lake.lock import writer_lock
from mts_dagster.settings import Settings, get_settings

ALIAS = "lake"
SCHEMAS = ("raw", "staging", "marts", "signals", "realtime", "backtests", "quality")
LOCK_VARIABLE = "mts_lock_path"
LOCK_WAIT_VARIABLE = "mts_lock_wait_s"
SQLITE_BUSY_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class Address:
    """Where a lake lives.

    Attributes:
        attach_uri: what DuckLake attaches, e.g. ``ducklake:sqlite:/x/lake.sqlite``.
        data_path: folder or object-store prefix of the Parquet files.
        lock_path: file whose OS lock a writer holds.
        catalog_file: the SQLite file, or None for a Postgres catalog.
    """

    attach_uri: str
    data_path: str
    lock_path: Path
    catalog_file: Path | None

    @property
    def extensions(self) -> tuple[str, ...]:
        """DuckDB extensions that this lake needs, in load order."""
        scanner = "sqlite_scanner" if self.catalog_file else "postgres_scanner"
        remote = ("httpfs",) if "://" in self.data_path else ()
        return (*remote, scanner, "ducklake")


def address_of(settings: Settings) -> Address:
    """Read the lake's place out of the settings."""
    kind, _, rest = settings.catalog.partition(":")
    if kind == "sqlite" and rest:
        catalog_file = Path(rest).expanduser().resolve()
        return Address(
            f"ducklake:sqlite:{catalog_file}",
            settings.data_path,
            catalog_file.with_name(catalog_file.name + ".lock"),
            catalog_file,
        )
    if kind == "postgres" and rest:
        return Address(f"ducklake:postgres:{rest}", settings.data_path, settings.home / "lake.postgres.lock", None)
    raise ConfigError(
        f"setting MTS_CATALOG: expected sqlite:FILE or postgres:CONNINFO, got {settings.catalog!r}"
    ) from None


def connect(*, read_only: bool = True, settings: Settings | None = None) -> duckdb.DuckDBPyConnection:
    """Open a connection with the lake attached and in use.

    Tables can be named with or without their schema (``marts.crypto_ohlcv`` or ``crypto_ohlcv``). The session's time
    zone is UTC.

    Args:
        read_only: attach read-only. Such a connection never blocks anybody and may stay open; each query sees
            the newest committed state. A read-write connection is for ``write`` and ``transact``.
        settings: which lake; by default the one that the environment names.

    Raises:
        LakeNotFoundError: reading where no lake was made yet.
        LakeLockedError: attaching read-write while another writer keeps the lock.
    """
    settings = settings or get_settings()
    address = address_of(settings)
    if read_only and address.catalog_file and not address.catalog_file.exists():
        raise LakeNotFoundError(
            f"no lake at {address.catalog_file} yet: run `mts collect` to fill one, or set MTS_HOME to where yours is"
        )
    con = _open(settings, address)
    try:
        if read_only:
            _attach(con, address, read_only=True)
        else:
            _make_places(address)
            with writer_lock(address.lock_path, wait_s=settings.lock_wait_s):
                _attach(con, address, read_only=False)
                _create_schemas(con)
    except duckdb.Error as error:
        con.close()
        raise LakeError(f"cannot attach the lake {settings.catalog}: {_first_line(error)}") from error
    except BaseException:
        con.close()
        raise
    _finish(con, settings, address)
    return con


def load_extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension from its wheel; DuckDB verifies the signature, nothing is downloaded."""
    con.execute(f"load '{_extension_file(name)}'")


def _extension_file(name: str) -> Path:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () for file in Path(place).rglob(f"v{duckdb.__version__}/*.duckdb_extension")]
    if not files:
        package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
        raise LakeError(f"DuckDB {duckdb.__version__} finds no extension {name}: pip install {package}")
    return files[0]


def _open(settings: Settings, address: Address) -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": settings.duckdb_memory_limit,
        "threads": str(settings.duckdb_threads),
    }
    con = duckdb.connect(config=config)
    con.execute("set TimeZone = 'UTC'")
    for name in address.extensions:
        load_extension(con, name)
    return con


def _make_places(address: Address) -> None:
    """Create the folders of the catalog, the lock and the files; say so when that is not allowed."""
    folders = [address.lock_path.parent]
    if "://" not in address.data_path:
        folders.append(Path(address.data_path))
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(f"cannot create {folder}: {error.strerror}; set MTS_HOME to a folder you own") from error


def _attach(con: duckdb.DuckDBPyConnection, address: Address, *, read_only: bool) -> None:
    # DuckLake writes small inserts into the catalog unless told otherwise; inlined rows have had time-travel and
    # lost-delete bugs, and our tables' history must be exact.
    options = ["READ_ONLY"] if read_only else [f"DATA_PATH '{address.data_path}'", "DATA_INLINING_ROW_LIMIT 0"]
    if address.catalog_file:
        options += ["META_JOURNAL_MODE 'WAL'", f"META_BUSY_TIMEOUT {SQLITE_BUSY_TIMEOUT_MS}"]
    con.execute(f"attach '{address.attach_uri}' as {ALIAS} ({', '.join(options)})")
    con.execute(f"use {ALIAS}")


def _create_schemas(con: duckdb.DuckDBPyConnection) -> None:
    present = {
        name
        for (name,) in con.execute(
            "select schema_name from duckdb_schemas() where database_name = ?", [ALIAS]
        ).fetchall()
    }
    for schema in SCHEMAS:
        if schema not in present:
            con.execute(f"create schema {schema}")


def _finish(con: duckdb.DuckDBPyConnection, settings: Settings, address: Address) -> None:
    present = {
        name
        for (name,) in con.execute(
            "select schema_name from duckdb_schemas() where database_name = ?", [ALIAS]
        ).fetchall()
    }
    path = [f"{ALIAS}.{schema}" for schema in ("main", *SCHEMAS) if schema in present]
    con.execute(f"set search_path = '{','.join(path)}'")
    # A connection carries its own lock, so that `write(con)` needs nothing else.
    con.execute(f"set variable {LOCK_VARIABLE} = $1", [str(address.lock_path)])
    con.execute(f"set variable {LOCK_WAIT_VARIABLE} = $1", [settings.lock_wait_s])


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
