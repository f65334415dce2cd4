"""The environment of libraries that MTS is compared with; made when first needed, removed with ``make clean``."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".venv-peers"
STOCK_IO_MANAGER = ("dagster==1.13.27", "dagster-duckdb-pandas==0.29.27", "duckdb==1.5.5", "pyarrow")


def python_with(*requirements: str) -> Path:
    """Python of the peers' environment with ``requirements`` installed."""
    python = FOLDER / "bin" / "python"
    if not python.exists():
        venv.create(FOLDER, with_pip=True)
    done = FOLDER / ("installed-" + "-".join(requirement.partition("==")[0] for requirement in requirements))
    if not done.exists():
        sys.stdout.write(f"installing {', '.join(requirements)} into {FOLDER.name} (once)\n")
        sys.stdout.flush()
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        done.touch()
    return python
