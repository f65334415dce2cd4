"""Whose files lie below a data path: one lake's, which a small file there names.

What belongs here: writing and checking that file, whenever a writer attaches. A lake whose data path is set to another
one's folder would write there, and its maintenance, which deletes files that its catalog does not know, would delete
the other lake.
"""

from __future__ import annotations

import duckdb

from mts_dagster.errors import LakeError
from mts_dagster.lake.text import quoted

MARKER = "lake_of_these_files.csv"


def claim_files(con: duckdb.DuckDBPyConnection, data_path: str, identity: str) -> None:
    """Note that the files below ``data_path`` are this lake's.

    Args:
        con: any connection that can reach the path.
        data_path: folder or object-store prefix, ending with a slash.
        identity: what tells one lake from another; the same for copies of a lake.

    Raises:
        LakeError: they are another lake's.
    """
    marker = quoted(data_path + MARKER)
    # A pattern, because object stores are only asked for those.
    if con.execute(f"select 1 from glob({quoted(f'{data_path}{MARKER}*')})").fetchone() is None:
        con.execute(f"copy (select {quoted(identity)} as lake) to {marker} (format csv)")
        return
    owner = con.execute(f"select lake from read_csv({marker}, header => true, all_varchar => true)").fetchone()
    if owner != (identity,):
        raise LakeError(
            f"the files below {data_path} are another lake's (see {MARKER} there): give this lake a path of its own "
            "with MTS_DATA_PATH, or delete the folder if its lake is gone"
        )
