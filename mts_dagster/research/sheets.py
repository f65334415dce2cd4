"""Tear sheets and pictures of runs: how they are written, and in what form the UI takes them.

What belongs here: writing and wrapping. What is drawn is ``backtest.report`` and ``backtest.pictures``.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from uuid import uuid4

from mts_dagster.backtest.pictures import drawdown_picture, equity_picture
from mts_dagster.backtest.report import Extras, render_report
from mts_dagster.errors import LakeError
from mts_dagster.research.runs import Run
from mts_dagster.research.stored import sheet_path
from mts_dagster.settings import Settings


def write_sheet(settings: Settings, run: Run, *, path: Path | None = None, extras: Extras | None = None) -> Path:
    """Write the tear sheet of a run in one step; a reader sees the old or the new one.

    Raises:
        LakeError: the place cannot be written.
    """
    path = path or sheet_path(settings, run.run_id)
    if path.exists() and not path.is_file():  # a folder, or a device, which would be replaced by a file
        raise LakeError(f"cannot write the tear sheet {path}: it is there and is no file")
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


def picture_markdown(run: Run) -> str:
    """Equity and drawdown as images inside markdown."""
    drawn = (("equity", equity_picture(run.result)), ("drawdown", drawdown_picture(run.result)))
    return "\n\n".join(f"![{name}](data:image/png;base64,{b64encode(picture).decode()})" for name, picture in drawn)
