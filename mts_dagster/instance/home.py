"""The home folder of the Dagster instance: its ``dagster.yaml``, its environment, and opening it.

What belongs here: making the folder below ``MTS_HOME``, the environment that every process of the instance needs, and
the one way to open the instance from Python. What the settings in ``dagster.yaml`` mean is said in that file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import textwrap
from importlib import resources
from pathlib import Path

import dagster as dg
import yaml
from dagster_shared.check import CheckError
from filelock import FileLock
from sqlalchemy.exc import OperationalError

from mts_dagster.errors import ConfigError
from mts_dagster.settings import Settings

EVENT_BATCH_SIZE = 2000
"""Events that Dagster collects before it stores them: a few MB, and a write of about 0.1 s."""

_MARK = (
    "# Written by MTS ({digest}). Edit it as you like: MTS then leaves it alone. Delete it to get MTS's text back.\n"
)

MOST_TEXT = 300
"""Letters of another library's error that a message of ours repeats."""

logger = logging.getLogger(__name__)


def prepare(settings: Settings) -> Path:
    """Create the home folder with its ``dagster.yaml`` and its databases, and return it.

    A file that MTS wrote, in this or an earlier version, is brought up to date. One that somebody has edited is left
    as it is, which a warning says.

    Raises:
        ConfigError: the folder cannot be written, or an edited ``dagster.yaml`` is wrong.
    """
    if not _bring_up_to_date(settings.dagster_home):
        logger.warning(
            "%s was edited by hand, so MTS leaves it as it is; delete it to get the text of MTS back",
            settings.dagster_home / "dagster.yaml",
        )
    with open_instance(settings):
        return settings.dagster_home


def environment(settings: Settings) -> dict[str, str]:
    """Variables for every process of this instance: webserver, daemon, code servers and runs.

    Telemetry needs none: ``dagster.yaml`` switches it off, and all of Dagster's commands look there.
    """
    return {
        "DAGSTER_HOME": str(settings.dagster_home),
        "DAGSTER_EVENT_BATCH_SIZE": str(EVENT_BATCH_SIZE),
        "MTS_HOME": str(settings.home),
    }


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open the instance that the UI of these settings shows; use it as a context manager.

    The environment of this process becomes that of the instance, since Dagster reads folder and batch size from there.

    Raises:
        ConfigError: the folder or its databases cannot be written, or an edited ``dagster.yaml`` is wrong.
    """
    home = settings.dagster_home
    _bring_up_to_date(home)
    os.environ.update(environment(settings))
    try:
        # Dagster creates its databases when it first opens them, without a lock: of two processes that come first,
        # both write the schema's version, and no process can open the database ever after.
        with FileLock(home / ".opening.lock"):
            return dg.DagsterInstance.get()
    except (dg.DagsterError, CheckError, yaml.YAMLError) as error:
        what = textwrap.shorten(str(error), MOST_TEXT)
        raise ConfigError(
            f"{home / 'dagster.yaml'} is wrong: {what}; correct it, or delete it to get the text of MTS back"
        ) from error
    except (OSError, OperationalError) as error:
        what = textwrap.shorten(str(error), MOST_TEXT)
        raise ConfigError(f"cannot open Dagster's databases below {home}: {what}; may you write there?") from error


def _bring_up_to_date(home: Path) -> bool:
    """Write ``dagster.yaml`` where it is absent or ours; whether it is ours now."""
    file = home / "dagster.yaml"
    ours = _marked(resources.files(__package__).joinpath("dagster.yaml").read_text(encoding="utf-8"))
    try:
        home.mkdir(parents=True, exist_ok=True)
        present = file.read_text(encoding="utf-8") if file.exists() else None
        if present is not None and not _is_unmodified(present):
            return False
        if present != ours:
            _replace(file, ours)
    except OSError as error:
        raise ConfigError(
            f"cannot write {error.filename or file}: {error.strerror}; set MTS_HOME to a folder you may write"
        ) from error
    return True


def _marked(text: str) -> str:
    """The text under a first line that carries its digest, so that an edit can be told from an older version."""
    return _MARK.format(digest=_digest(text)) + text


def _is_unmodified(present: str) -> bool:
    mark, _, text = present.partition("\n")
    return _digest(text) in mark


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(file: Path, text: str) -> None:
    """Replace a file at once: another process reads the old text or the new one."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
