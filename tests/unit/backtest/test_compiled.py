"""What is compiled, where it is kept, and who has to load it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mts_dagster.backtest
from mts_dagster.backtest.compiled import _SOURCES

FOLDER = Path(mts_dagster.backtest.__file__).parent


def test_the_cache_is_named_after_every_compiled_source() -> None:
    """A file with compiled functions that is not in the digest would leave stale machine code behind."""
    decorated = {
        path.name
        for path in FOLDER.glob("*.py")
        if re.search(r"^@(rule|seldom|inlined|kernel|summing)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert decorated <= set(_SOURCES)
    assert {"compiled.py", "layout.py"} <= set(_SOURCES)


@pytest.mark.parametrize("module", ["config", "errors", "coverage", "market", "signals", "metrics", "result"])
def test_reading_a_config_or_a_result_loads_no_compiler(module: str) -> None:
    """Numba, Optuna and the plotting libraries are imported where they are used, not before."""
    code = (
        f"import sys, mts_dagster.backtest.{module}; "
        "print([name for name in ('numba', 'optuna', 'plotly', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_definitions_load_no_compiler() -> None:
    """The code location that Dagster loads at every start stays quick."""
    code = (
        "import sys, mts_dagster.definitions; "
        "print([name for name in ('numba', 'optuna', 'plotly', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
