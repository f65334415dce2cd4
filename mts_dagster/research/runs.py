"""A request for a backtest, and the run that answers it.

What belongs here: from what is asked for to a result with its name, in memory. Storing it is ``store``. The name of a
single run is a digest of all that decides its numbers, so the same request on the same data is the same run; the name
of a fold is its strategy and year, and stands for the newest computation of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mts_dagster.backtest.config import Assumptions, parse_assumptions
from mts_dagster.backtest.metrics import Trials
from mts_dagster.backtest.result import BacktestResult, Provenance
from mts_dagster.backtest.run import Window, backtest_signals
from mts_dagster.errors import ConfigError, UsageError
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.snapshots import newest_snapshot
from mts_dagster.research.inputs import Inputs, read_inputs
from mts_dagster.research.subject import Subject
from mts_dagster.research.version import code_version
from mts_dagster.sql_models import Project

ID_DIGITS = 10


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        subject: Who decides.
        start: First open to trade, aware UTC.
        end: Exclusive, aware UTC.
        assumptions: Costs, fills, limits.
        fold_year: The year that a fold stands for; None for a single run.
        trials: Backtests that were run to find this one.
    """

    subject: Subject
    start: datetime
    end: datetime
    assumptions: Assumptions
    fold_year: int | None = None
    trials: Trials = field(default_factory=Trials)

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UsageError(f"the start {self.start:%Y-%m-%d} lies after the end {self.end:%Y-%m-%d}")

    @property
    def window(self) -> Slice:
        """The days to trade."""
        return Slice(self.start, self.end)


@dataclass(frozen=True)
class Run:
    """A request and what came of it.

    Attributes:
        request: What was asked for.
        result: What came of it.
        inputs: What it was made of.
        created_at: When, aware UTC.
    """

    request: Request
    result: BacktestResult
    inputs: Inputs
    created_at: datetime

    @property
    def run_id(self) -> str:
        """The name that it is stored under."""
        return self.result.provenance.run_id

    @property
    def kind(self) -> str:
        """``fold`` or ``single``."""
        return "single" if self.request.fold_year is None else "fold"


def load_assumptions(path: Path) -> Assumptions:
    """Read assumptions from a JSON file.

    Raises:
        ConfigError: the file cannot be read, is not JSON, or a field is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"assumptions {path} cannot be read: {error}") from None
    return parse_assumptions(text, str(path))


def execute(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    request: Request,
    *,
    now: datetime,
    snapshot: int | None = None,
) -> Run:
    """Read the inputs at one snapshot, the newest if none is given, and run the backtest; ``now`` is kept with it.

    Raises:
        UsageError: there is nothing to trade.
        BacktestError: the inputs contradict themselves, are uncovered in a strict run, or the books do not add up.
    """
    snapshot = newest_snapshot(con) if snapshot is None else snapshot
    inputs = read_inputs(con, project, request.subject, request.window, request.assumptions, snapshot)
    version = code_version(request.subject)
    provenance = Provenance(
        run_id=run_id_of(request, inputs.state, version),
        strategy=request.subject.name,
        lake_snapshot=snapshot,
        code_version=version,
    )
    result = backtest_signals(
        inputs.signals,
        inputs.bars,
        request.assumptions,
        funding=inputs.funding,
        window=Window(request.start, request.end),
        provenance=provenance,
        trials=request.trials,
    )
    return Run(request, result, inputs, now)


def run_id_of(request: Request, state: int, version: str) -> str:
    """Name of a run; ``state`` tells which rows it read."""
    if request.fold_year is not None:
        return f"{request.subject.name}-{request.fold_year}"
    facts = [
        request.subject.name,
        request.subject.stored_config,
        request.start.isoformat(),
        request.end.isoformat(),
        request.assumptions.config_hash(),
        request.trials.count,
        request.trials.sharpe_variance,
        state,
        version,
    ]
    return f"{request.subject.name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:ID_DIGITS]}"


def with_capital(assumptions: Assumptions, capital_usd: float | None, *, strict: bool) -> Assumptions:
    """The same assumptions with what a command line may change.

    Raises:
        UsageError: the capital is not above zero.
    """
    if capital_usd is not None and not 0 < capital_usd < float("inf"):
        raise UsageError(f"the capital must be above zero, got {capital_usd:g}")
    capital = assumptions.initial_capital_usd if capital_usd is None else capital_usd
    return replace_fields(assumptions, initial_capital_usd=capital, strict=strict or assumptions.strict)


def replace_fields(assumptions: Assumptions, **changes: object) -> Assumptions:
    """Validated copy with some fields changed."""
    return Assumptions.model_validate({**assumptions.model_dump(), **changes})


def at_midnight(moment: datetime) -> datetime:
    """Begin of the moment's UTC day: the end of the last closed one."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
