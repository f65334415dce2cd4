"""Tear sheets and pictures of runs: how they are written, and in what form the UI takes them.

What belongs here: writing and wrapping. What is drawn is ``backtest.report`` and ``backtest.pictures``.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from mts_dagster.backtest.pictures import drawdown_picture, equity_picture
from mts_dagster.backtest.report import Extras, render_report
from mts_dagster.errors import LakeError, UsageError
from mts_dagster.research.runs import Run
from mts_dagster.research.stored import sheet_path
from mts_dagster.settings import Settings


def write_sheet(settings: Settings, run: Run, *, path: Path | None = None, extras: Extras | None = None) -> Path:
    """Write the tear sheet of a run in one step; a reader sees the old or the new one.

    Raises:
        LakeError: the place cannot be written.
    """
    path = path or sheet_path(settings, run.run_id)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(render_report(run.result, extras), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise LakeError(f"cannot write the tear sheet {path}: {error.strerror or error}") from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path


def sheet_place(path: Path) -> Path:
    """Where a tear sheet that is asked for will be; its folder is made, since it cannot be known to be writable before.

    Raises:
        UsageError: nothing can be written there.
    """
    place = path.expanduser().resolve()
    if place.exists() and not place.is_file():  # a device would be replaced by a file
        raise UsageError(f"--report {path} is {'a folder' if place.is_dir() else 'no file'}; name an HTML file")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise UsageError(f"--report {path} cannot be written: {error.strerror or error}") from None
    return place


def picture_markdown(run: Run) -> str:
    """Equity and drawdown as images inside markdown."""
    drawn = (("equity", equity_picture(run.result)), ("drawdown", drawdown_picture(run.result)))
    return "\n\n".join(f"![{name}](data:image/png;base64,{b64encode(picture).decode()})" for name, picture in drawn)
