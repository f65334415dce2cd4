"""The error family of MTS: every failure that a user can meet, and what to do about it.

What belongs here: the base class and the errors shared by several modules. An error states its facts as
attributes and says in one line what happened, to what, and what to do. The command line prints that line and
exits with ``exit_code``; nothing else may turn into a traceback for a user's mistake.

Tree::

    MtsError
    ├── UsageError              a wrong argument, date, coin, name
    ├── ConfigError             a wrong setting or config file
    ├── LakeError               storage
    │   ├── LakeNotFoundError   no lake at this place yet
    │   ├── LakeLockedError     another writer holds the lock for longer than the bounded wait
    │   ├── SchemaChangedError  a stored table does not fit its contract; names the migration
    │   └── BadDataError        rows that break the contract; names table, column, count and first rows
    └── SourceError             an outside service, see ``mts_dagster.sources.errors``
"""

from __future__ import annotations


class MtsError(Exception):
    """Base of the family. ``str(error)`` is one line that a stranger understands."""

    exit_code = 1


class UsageError(MtsError):
    """The user asked for something that does not exist or does not make sense."""

    exit_code = 2


class ConfigError(MtsError):
    """A setting or a config file is wrong; the message names it and the values allowed."""

    exit_code = 2


class LakeError(MtsError):
    """Storage failed."""


class LakeNotFoundError(LakeError):
    """There is no lake at the configured place."""


class LakeLockedError(LakeError):
    """The writer lock stayed taken for the whole bounded wait."""


class SchemaChangedError(LakeError):
    """A stored table and its contract differ in a way that needs a migration."""


class BadDataError(LakeError):
    """Rows break the contract of their table; nothing was stored."""
