"""Which code computed a backtest: the package's version and a digest of the source that decides its numbers.

What belongs here: that one text. Two runs with the same version, inputs and assumptions have the same numbers.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mts_dagster.research.subject import Subject

PACKAGE = Path(__file__).resolve().parent.parent
SOURCES = ("backtest", "strategies")
# They show results and make none.
PRESENTATION = frozenset({"report.py", "pictures.py", "series.py", "words.py", "publish.py"})
DIGITS = 12


def code_version(subject: Subject) -> str:
    """``0.1.0-3f0c...``; the digest covers the engine, the machinery of strategies and the strategy's own file."""
    own = inspect.getsourcefile(type(subject.strategy)) if subject.strategy is not None else None
    digest = hashlib.sha256(_shared_digest().encode())
    if own is not None:
        digest.update(Path(own).read_bytes())
    return f"{version('mts')}-{digest.hexdigest()[:DIGITS]}"


@cache
def _shared_digest() -> str:
    """Digest of the engine and the strategies' machinery, read once a process."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if path.name not in PRESENTATION:
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
