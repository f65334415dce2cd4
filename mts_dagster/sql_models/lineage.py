"""Which stored columns each column of a model is computed from.

What belongs here: asking sqlglot, which is imported only when asked, because loading it costs time that most
processes need not spend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.lineage import Node

ColumnLineage = dict[str, tuple[tuple[str, str], ...]]


def column_lineage(sql: str, tables: Mapping[tuple[str, str], Mapping[str, str]]) -> ColumnLineage:
    """Trace the columns of a select statement to the tables it reads.

    Args:
        sql: a DuckDB select statement.
        tables: columns and their SQL types of every table that may be read, by schema and name.

    Returns:
        For each output column the ``(schema.table, column)`` pairs it depends on, sorted. Columns that only order
        or partition a window count too; columns that only filter or join rows do not.
    """
    from sqlglot.lineage import lineage  # noqa: PLC0415 - loading it costs time that few need to spend

    schema: dict[str, dict[str, Mapping[str, str]]] = {}
    for (schema_name, table), columns in tables.items():
        schema.setdefault(schema_name, {})[table] = columns
    roots = lineage(None, sql, schema=schema, dialect="duckdb")
    return {column: tuple(sorted(set(_leaves([root])))) for column, root in roots.items()}


def _leaves(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Stored columns at the end of each path."""
    from sqlglot import exp  # noqa: PLC0415 - as above

    for node in nodes:
        if isinstance(node.expression, exp.Table):
            yield f"{node.expression.db}.{node.expression.name}", node.name.rpartition(".")[2]
        yield from _leaves(node.downstream)
