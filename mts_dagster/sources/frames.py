"""From a service's rows to frames that fit their contract, or to an error that names the rows.

What belongs here: the last step of every client. The contract itself is in ``mts_dagster.schemas``.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
from pandera.errors import SchemaErrors

from mts_dagster.schemas import TableSchema
from mts_dagster.sources.errors import BadContentError, Subject

SHOWN_ROWS = 3
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970, exactly."""
    delta = moment - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def from_epoch_ms(moment_ms: int) -> datetime:
    """Aware time of milliseconds since 1970."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC)


def utc_times(values_ms: list[int]) -> pd.Series:
    """Column of aware times, microseconds as the contracts want them."""
    return pd.to_datetime(pd.Series(values_ms, dtype="int64"), unit="ms", utc=True).dt.as_unit("us")


def conform(frame: pd.DataFrame, model: type[TableSchema], service: str, subject: Subject) -> pd.DataFrame:
    """Bring a frame into the types of its contract and check it.

    Raises:
        BadContentError: rows break the contract; the message names column, count and first rows.
    """
    columns = list(model.to_schema().columns)
    try:
        return model.validate(frame.reindex(columns=columns), lazy=True)
    except SchemaErrors as failure:
        cases = failure.failure_cases
        first = cases.iloc[0]
        same = cases[(cases["column"] == first["column"]) & (cases["check"] == first["check"])]
        shown = ", ".join(str(case) for case in same["failure_case"].head(SHOWN_ROWS))
        column = f"{model.__name__}.{first['column']}"
        problem = f"{len(same)} rows break the contract of {column} ({first['check']}): {shown}"
    raise BadContentError(service, problem, advice="nothing was stored; ask again later", subject=subject)
