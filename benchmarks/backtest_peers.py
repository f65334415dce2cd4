"""The environment of the public backtest engines that ours is measured and checked against.

What belongs here: making it when it is first needed, and where it is. It is apart from the other peers' environment
(``peers.py``), since these engines need a newer pandas than the stock IO manager runs with.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".venv-peer-engines"
ENGINES = ("vectorbt==1.2.0", "backtesting==0.6.6", "backtrader==1.9.78.123")


def engines_python() -> Path:
    """Return the interpreter that has the engines, whether it exists yet or not."""
    return FOLDER / "bin" / "python"


def installed_engines() -> Path:
    """Return the interpreter that has the engines; make its environment first where there is none.

    Raises:
        subprocess.CalledProcessError: an engine cannot be installed here; pip says why.
    """
    python = engines_python()
    if not python.exists():
        sys.stderr.write(f"installing {', '.join(ENGINES)} into {FOLDER.name} (about a minute, once)\n")
        venv.create(FOLDER, with_pip=True)
    done = subprocess.run([python, "-c", "import backtesting, backtrader, vectorbt"], capture_output=True, check=False)
    if done.returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ENGINES], check=True)
    return python
