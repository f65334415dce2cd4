"""The environment of the public engines that ours is measured and checked against.

What belongs here: making ``.venv-peers`` beside the repository's own environment, and running a script in it. The
peers never enter our own environment, and nothing of ours needs them.

Run ``python benchmarks/backtest_peers.py`` to make the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
PACKAGES = ("vectorbt>=1.2", "backtesting>=0.6.6", "backtrader>=1.9.78")


def peers_python() -> Path:
    """Return the interpreter of the peers' environment, whether it exists or not."""
    return Path(os.environ.get("MTS_PEERS_PYTHON", FOLDER / "bin" / "python"))


def install_peers() -> Path:
    """Make the environment if it is not there; return its interpreter.

    Raises:
        subprocess.CalledProcessError: the package index could not be reached or a package does not install here.
    """
    python = peers_python()
    if not python.exists():
        print("installing the peers into .venv-peers (about a minute, once)", file=sys.stderr)
        venv.create(FOLDER, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
    return python


if __name__ == "__main__":
    print(install_peers())
