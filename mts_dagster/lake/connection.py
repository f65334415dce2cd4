"""Connections to the lake: extensions from their wheels, catalog attached, names usable without their schema.

What belongs here: where a lake is, how a new one comes into being, and how a DuckDB connection to it is opened. Locking
is in ``lock``, transactions in ``transaction``.

Files on S3: ``MTS_DATA_PATH=s3://bucket/prefix/``. Keys, region and endpoint come from the environment variables that
DuckDB's ``httpfs`` reads itself: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, and
``DUCKDB_S3_ENDPOINT``, ``DUCKDB_S3_USE_SSL`` for a server that is not Amazon's. With a SQLite catalog the writer lock
holds on one machine only, so several hosts need a Postgres catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mts_dagster.errors import ConfigError, LakeError, LakeNotFoundError
from mts_dagster.lake.extensions import load_extension
from mts_dagster.lake.lock import writer_lock
from mts_dagster.lake.ownership import claim_files
from mts_dagster.lake.text import one_line, quoted, redacted
from mts_dagster.settings import Settings, get_settings

ALIAS = "lake"
METADATA = f"__ducklake_metadata_{ALIAS}"  # DuckLake's own tables in the catalog, for questions it has no function for
SCHEMAS = ("raw", "staging", "marts", "signals", "live", "backtests", "quality")
LOCK_VARIABLE = "mts_lock_place"
LOCK_WAIT_VARIABLE = "mts_lock_wait_s"
SQLITE_BUSY_TIMEOUT_MS = 5_000
AMAZON = "s3.amazonaws.com"
NO_LAKE_HERE = "creating a new DuckLake is explicitly disabled"  # how DuckLake says so on a read-only attach


@dataclass(frozen=True)
class Address:
    """Where a lake lives.

    Attributes:
        catalog: what DuckLake attaches, e.g. ``sqlite:/x/lake.sqlite``.
        data_path: folder or object-store prefix of the Parquet files.
        lock_place: the writer lock, see ``lock``.
        catalog_file: the SQLite file, or None for a Postgres catalog.
    """

    catalog: str
    data_path: str
    lock_place: str
    catalog_file: Path | None

    @property
    def extensions(self) -> tuple[str, ...]:
        """DuckDB extensions that this lake needs, in load order."""
        scanner = "sqlite_scanner" if self.catalog_file else "postgres_scanner"
        remote = ("httpfs",) if self.is_remote else ()
        return (*remote, scanner, "ducklake")

    @property
    def is_remote(self) -> bool:
        """Whether the Parquet files live in an object store."""
        return "://" in self.data_path

    def __str__(self) -> str:
        return redacted(self.catalog)


def address_of(settings: Settings) -> Address:
    """Read the lake's place out of the settings.

    Raises:
        ConfigError: ``MTS_CATALOG`` names no known kind of catalog.
    """
    data_path = settings.data_path
    if "://" not in data_path:  # absolute, because the lake keeps it and is read from other folders
        data_path = f"{Path(data_path).expanduser().resolve()}/"
    kind, _, rest = settings.catalog.partition(":")
    if kind == "sqlite" and rest:
        file = Path(rest).expanduser().resolve()
        return Address(f"sqlite:{file}", data_path, f"file:{file}.lock", file)
    if kind == "postgres" and rest:
        return Address(f"postgres:{rest}", data_path, f"postgres:{rest}", None)
    raise ConfigError(
        f"setting MTS_CATALOG: expected sqlite:FILE or postgres:CONNINFO, got {redacted(settings.catalog)!r}"
    )


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
    if not read_only:
        _make_places(address)
    elif address.catalog_file and not address.catalog_file.exists():
        raise _not_found(address)
    con = _open(settings, address)
    try:
        if read_only:
            _attach_to_read(con, address)
        else:
            _attach_to_write(con, settings, address)
        prepare_session(con, settings)
    except duckdb.Error as error:
        con.close()
        raise LakeError(f"cannot attach the lake {address}: {one_line(error)}; check MTS_CATALOG") from error
    except BaseException:
        con.close()
        raise
    return con


def prepare_session(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Give a connection to an attached lake what belongs to the session: time zone, names without schema, its lock."""
    con.execute("set TimeZone = 'UTC'")
    con.execute("begin")  # one look at the catalog instead of one a statement
    present = _schemas(con)
    path = [f"{ALIAS}.{schema}" for schema in ("main", *SCHEMAS) if schema in present]
    con.execute(f"set search_path = {quoted(','.join(path))}")
    con.execute("commit")
    # A connection carries its own lock, so that `write(con)` needs nothing else.
    con.execute(f"set variable {LOCK_VARIABLE} = $1", [address_of(settings).lock_place])
    con.execute(f"set variable {LOCK_WAIT_VARIABLE} = $1", [settings.lock_wait_s])


def _identity_of(con: duckdb.DuckDBPyConnection) -> str:
    """What tells this lake from any other: the identifier that its first schema was born with."""
    rows = con.execute(f"select schema_uuid from {METADATA}.ducklake_schema where schema_name = 'main'").fetchall()
    return str(rows[0][0])


def _not_found(address: Address) -> LakeNotFoundError:
    return LakeNotFoundError(
        f"no lake at {address} yet: run `mts collect` to fill one, or set MTS_HOME to where yours is"
    )


def _open(settings: Settings, address: Address) -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": settings.duckdb_memory_limit,
        "threads": str(settings.duckdb_threads),
        # The operating system caches local files; a copy of DuckDB's own would only fill its memory.
        "enable_external_file_cache": str(address.is_remote).lower(),
    }
    con = duckdb.connect(config=config)
    for name in address.extensions:
        load_extension(con, name)
    if address.is_remote and con.execute("select current_setting('s3_endpoint')").fetchall() != [(AMAZON,)]:
        con.execute("set global s3_url_style = 'path'")  # bucket names as host names are Amazon's own way
    return con


def _make_places(address: Address) -> None:
    """Create the folders of the catalog, the lock and the files; say so when that is not allowed."""
    folders = [address.catalog_file.parent] if address.catalog_file else []
    if not address.is_remote:
        folders.append(Path(address.data_path))
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(f"cannot create {folder}: {error.strerror}; set MTS_HOME to a folder you own") from error


def _attach_to_read(con: duckdb.DuckDBPyConnection, address: Address) -> None:
    try:
        _attach(con, address, read_only=True)
    except duckdb.Error as error:
        if NO_LAKE_HERE in str(error):
            raise _not_found(address) from None
        raise
    if not _schemas(con) & set(SCHEMAS):  # a Postgres catalog that is being made right now
        raise _not_found(address)


def _attach_to_write(con: duckdb.DuckDBPyConnection, settings: Settings, address: Address) -> None:
    with writer_lock(address.lock_place, con, wait_s=settings.lock_wait_s):
        if address.catalog_file and not address.catalog_file.exists():
            _create_beside(con, address, address.catalog_file)
        _attach(con, address, read_only=False)
        _furnish(con, address)


def _create_beside(con: duckdb.DuckDBPyConnection, address: Address, catalog_file: Path) -> None:
    """Build a new SQLite catalog under another name and rename it when it is whole.

    Whoever attaches meanwhile sees no lake or a furnished one, never a file without tables.
    """
    draft = catalog_file.with_name(catalog_file.name + ".new")
    for leftover in draft.parent.glob(draft.name + "*"):  # of a process that was killed right here
        leftover.unlink()
    _attach(con, Address(f"sqlite:{draft}", address.data_path, address.lock_place, draft), read_only=False)
    _furnish(con, address)
    con.execute("use memory")
    con.execute(f"detach {ALIAS}")  # SQLite moves its log into the file and removes it
    draft.rename(catalog_file)


def _attach(con: duckdb.DuckDBPyConnection, address: Address, *, read_only: bool) -> None:
    # Files are stored relative to the data path, so the settings decide where they are: a moved or copied home must not
    # read, or write, the files of the place it came from.
    options = [f"DATA_PATH {quoted(address.data_path)}", "OVERRIDE_DATA_PATH true"]
    options += ["READ_ONLY"] if read_only else []
    if address.catalog_file:
        options.append(f"META_BUSY_TIMEOUT {SQLITE_BUSY_TIMEOUT_MS}")
        if not read_only:  # the file remembers it, and a copy of a lake that was packed without it can be read too
            options.append("META_JOURNAL_MODE 'WAL'")
    con.execute(f"attach {quoted('ducklake:' + address.catalog)} as {ALIAS} ({', '.join(options)})")
    con.execute(f"use {ALIAS}")


def _furnish(con: duckdb.DuckDBPyConnection, address: Address) -> None:
    """Make sure of the place of the files, and give the lake the schemas and options that it lacks."""
    claim_files(con, address.data_path, _identity_of(con))
    present = _schemas(con)
    missing = [schema for schema in SCHEMAS if schema not in present]
    if not missing:
        return
    con.execute("begin")
    for schema in missing:
        con.execute(f"create schema {schema}")
    # DuckLake writes small inserts into the catalog unless told otherwise; inlined rows have had time-travel and
    # lost-delete bugs, and our tables' history must be exact. Stored in the lake, it binds every program that writes.
    con.execute(f"call {ALIAS}.set_option('data_inlining_row_limit', 0)")
    con.execute("commit")


def _schemas(con: duckdb.DuckDBPyConnection) -> set[str]:
    rows = con.execute("select schema_name from duckdb_schemas() where database_name = ?", [ALIAS]).fetchall()
    return {name for (name,) in rows}
