"""Stored backtests listed and deleted, over a lake that holds nothing but hand-made runs."""

from __future__ import annotations

import io
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from rich.console import Console

from mts_dagster.lake.replace import replace_members
from mts_dagster.lake.shared import session
from mts_dagster.lake.snapshots import newest_snapshot
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.record_reports import arranged
from mts_dagster.research import forget as forgetting
from mts_dagster.research.pins import RUNS, WALKS, pinned_snapshots
from mts_dagster.research.stored import RESULT_TABLES, StoredRun, list_runs, sheet_path
from mts_dagster.research.subject import subject_named
from mts_dagster.research.version import code_version
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings, load_settings

from .conftest import Mts, Said, is_one_line

pytestmark = pytest.mark.xdist_group("shell")

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ANY = {"VARCHAR": "x", "BIGINT": 1, "DOUBLE": 1.0, "BOOLEAN": True, "TIMESTAMPTZ": NOON}
ORIGIN = Origin(asset="test", run_id="", code_version="", partitions="")
CURRENT = "momentum-1111111111"
OLDER = "momentum-2222222222"
BENCHMARK = "buy_hold-3333333333"
GONE = "my_strategy-4444444444"
FOLD = "momentum-2024"


class Store:
    """A lake with hand-made runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = code_version(subject_named("momentum", settings))

    def put(self, run_id: str, snapshot: int, hours: int = 0, **values: Any) -> None:  # noqa: ANN401 - columns
        """Store a run as of some hours after noon: a row a variant in every table."""
        strategy = run_id.rpartition("-")[0]
        own = {
            "run_id": run_id, "strategy": strategy, "kind": "single", "fold_year": None, "lake_snapshot": snapshot,
            "window_start": datetime(2024, 1, 10, tzinfo=UTC), "window_end": datetime(2024, 2, 21, tzinfo=UTC),
            "created_at": NOON + timedelta(hours=hours), "total_return_pct": 12.345, "max_drawdown_pct": -8.25,
            "code_version": self.version, **values,
        }  # fmt: skip
        parts = []
        for table in RESULT_TABLES:
            base, worse = row_of(table, variant="base", **own), row_of(table, variant="pessimistic", **own)
            if table is RUNS:
                worse["total_return_pct"] = -1.5
            parts.append((table, pd.DataFrame([base, worse])))
        with session(self.settings, read_only=False) as con:
            replace_members(con, parts, "run_id", [run_id], ORIGIN)

    def walked(self, strategy: str, snapshot: int) -> None:
        """Store a walk-forward that read a snapshot."""
        frame = pd.DataFrame([row_of(WALKS, strategy=strategy, lake_snapshot=snapshot)])
        with session(self.settings, read_only=False) as con:
            bootstrap(con, [WALKS])
            replace_members(con, [(WALKS, frame)], "strategy", [strategy], ORIGIN)

    def listed(self) -> list[StoredRun]:
        with session(self.settings) as con:
            return list_runs(con, self.settings)

    def rows(self) -> dict[str, list[str]]:
        """Names of the runs in each table."""
        with session(self.settings) as con:
            return {table.name: self._runs_in(con, table) for table in RESULT_TABLES}

    def _runs_in(self, con: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
        found = con.execute(f"select distinct run_id from {table.qualified} order by 1").fetchall()
        return [name for (name,) in found]

    def newest(self) -> int:
        with session(self.settings) as con:
            return newest_snapshot(con)


def row_of(table: Table, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - columns
    """A row that fits the contract, with some values of its own."""
    return {column.name: values.get(column.name, ANY[column.sql_type]) for column in table.columns}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one's own on two snapshots, one of a strategy that is gone, and a fold. To copy."""
    home = tmp_path_factory.mktemp("kept") / "home"
    found = Store(load_settings(home=home))
    with session(found.settings, read_only=False) as con:
        bootstrap(con, RESULT_TABLES)
    first = found.newest()
    found.put(OLDER, first, code_version="0.0.9-old", trials=200)
    second = found.newest()
    found.put(CURRENT, second, hours=1)
    found.put(BENCHMARK, second, hours=2, sharpe=None, code_version="0.0.9-old")
    found.put(GONE, 999, hours=3)
    found.put(FOLD, second, hours=4, kind="fold", fold_year=2024)
    return home


@pytest.fixture
def store(kept: Path, tmp_path: Path) -> Store:
    """A copy of the hand-made runs that a test may change."""
    shutil.copytree(kept, tmp_path / "home")
    return Store(load_settings(home=tmp_path / "home"))


@pytest.fixture
def mts(store: Store, run_mts: Mts) -> Mts:
    """Run a command on the hand-made lake."""

    def run(*arguments: str) -> Said:
        return run_mts(*arguments, env={"MTS_HOME": str(store.settings.home)})

    return run


# The list


def test_runs_of_ones_own_are_listed_the_newest_first(mts: Mts) -> None:
    """Folds, which are computed every night, would push them out; they are counted."""
    said = mts("backtests")
    assert said.code == 0, said.err
    assert re.findall(r"^(\w+-\w+)", said.out, re.MULTILINE) == [GONE, BENCHMARK, CURRENT, OLDER]
    assert said.out.endswith("not listed: folds of the asset backtests (1); with them: --folds\n")


def test_folds_are_marked(mts: Mts) -> None:
    """With --folds, in the order of time."""
    said = mts("backtests", "--folds", "--limit", "2")
    assert re.findall(r"^(\w+-\w+(?: \(fold\))?) ", said.out, re.MULTILINE) == [f"{FOLD} (fold)", GONE]
    assert said.out.endswith("2 of 5; all: --limit 5\n")


def test_what_keeps_a_run_from_coming_out_the_same(store: Store) -> None:
    """A snapshot that is gone, a strategy that is gone, other code; in this order."""
    store.put("my_strategy-5555555555", store.newest())
    found = {run.run_id: run.obstacle for run in store.listed()}
    assert found == {
        CURRENT: None,
        FOLD: None,
        OLDER: "other code",
        BENCHMARK: "other code",
        GONE: "snapshot expired",
        "my_strategy-5555555555": "strategy gone",
    }


def test_a_run_for_programs(mts: Mts, store: Store) -> None:
    """Numbers as stored, of both variants; the end is exclusive."""
    (run,) = mts("backtests", "--strategy", "momentum", "--limit", "1", "--json").document
    assert run == {
        "run_id": CURRENT,
        "kind": "single",
        "strategy": "momentum",
        "start": "2024-01-10T00:00:00+00:00",
        "end": "2024-02-21T00:00:00+00:00",
        "trials": 1,
        "total_return_pct": 12.345,
        "sharpe": 1.0,
        "max_drawdown_pct": -8.25,
        "pessimistic_return_pct": -1.5,
        "created_at": "2026-11-20T13:00:00+00:00",
        "lake_snapshot": run["lake_snapshot"],
        "code_version": store.version,
        "obstacle": None,
        "reproducible": True,
    }


def drawn(runs: list[StoredRun], width: int) -> list[str]:
    """Lines on a terminal of some width."""
    out = io.StringIO()
    Console(file=out, width=width).print(arranged(runs, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_narrow_terminal_takes_two_lines_a_run(store: Store) -> None:
    """80 letters: nothing is cut or broken, also of the longest name that MTS has."""
    store.put("vix_correlation-6666666666", 1, hours=9, trials=200)
    lines = drawn(store.listed()[:1], 80)
    assert lines == [
        "run                            return %      Sharpe    trials  stored (UTC)",
        "window                      pessimistic  drawdown %  snapshot  reproduce",
        "─" * len(lines[2]),
        "vix_correlation-6666666666       +12.35        1.00       200  2026-11-20 21:00",
        "  2024-01-10 to 2024-02-20        -1.50       -8.25         1  other code",
    ]


def test_a_wide_terminal_takes_one_line_a_run(store: Store) -> None:
    """What has no meaning is a dash."""
    line = drawn([run for run in store.listed() if run.run_id == BENCHMARK], 200)[-1]
    assert line.split() == [
        BENCHMARK, "2024-01-10", "to", "2024-02-20", "+12.35", "-1.50", "-", "-8.25", "1",
        line.split()[9], "2026-11-20", "14:00", "other", "code",
    ]  # fmt: skip


def test_a_lake_without_backtests_says_so(tmp_path: Path, run_mts: Mts) -> None:
    """Neither a table nor a run is needed to ask; without a lake none is made."""
    home = tmp_path / "bare"
    none = run_mts("backtests", env={"MTS_HOME": str(home)})
    assert (none.code, is_one_line(none), home.exists()) == (1, True, False)
    with session(load_settings(home=home), read_only=False) as con:
        con.execute("select 1")
    said = run_mts("backtests", "--strategy", "momentum", env={"MTS_HOME": str(home)})
    assert said.out == "no backtest of momentum stored yet; mts backtest stores one\n"
    assert run_mts("backtests", "--json", env={"MTS_HOME": str(home)}).document == []
    assert "there is no run 'x-1': none is stored yet" in run_mts("forget", "x-1", env={"MTS_HOME": str(home)}).err


# Deleting


def test_a_forgotten_run_is_gone_from_every_table(mts: Mts, store: Store) -> None:
    """Its sheet too; the others stay as they were. What it alone had read is free."""
    sheet, other = sheet_path(store.settings, OLDER), sheet_path(store.settings, CURRENT)
    sheet.parent.mkdir(parents=True)
    sheet.write_text("")
    other.write_text("")
    (snapshot,) = (run.lake_snapshot for run in store.listed() if run.run_id == OLDER)
    said = mts("forget", OLDER)
    assert said.code == 0, said.err
    assert said.out == (
        f"deleted {OLDER}: 10 rows\ndeleted {sheet}\n"
        f"snapshot {snapshot} of the lake is free: maintenance forgets it when it is older than 30 days\n"
    )
    assert set(map(tuple, store.rows().values())) == {(BENCHMARK, CURRENT, FOLD, GONE)}
    assert snapshot not in pinned_snapshots(store.settings)
    assert (sheet.exists(), other.exists()) == (False, True)


def test_a_snapshot_that_others_read_is_kept(mts: Mts, store: Store) -> None:
    """Which run or walk-forward keeps it is told; one that has expired long ago is not freed."""
    older = next(run.lake_snapshot for run in store.listed() if run.run_id == OLDER)
    shared = next(run.lake_snapshot for run in store.listed() if run.run_id == CURRENT)
    store.walked("momentum", older)
    said = mts("forget", CURRENT, OLDER, GONE, CURRENT)
    assert said.out == (
        f"deleted {CURRENT}, {OLDER}, {GONE}: 30 rows\n"
        f"snapshot {older} of the lake is kept: walk_forward of momentum refers to it too\n"
        f"snapshot {shared} of the lake is kept: {BENCHMARK} refers to it too\n"
    )
    assert pinned_snapshots(store.settings) == {older, shared}


def test_one_wrong_name_deletes_nothing(mts: Mts, store: Store) -> None:
    """One line says which are wrong, and what to do about each; the right one beside them stays."""
    before = store.rows()
    said = mts("forget", CURRENT, "momentum-222222222", "nobody", FOLD)
    assert (said.code, is_one_line(said), said.out) == (2, True, "")
    assert said.err == (
        f"mts: there is no run 'momentum-222222222': did you mean '{OLDER}'? mts backtests lists them; "
        "there is no run 'nobody': mts backtests lists them; "
        f"{FOLD} is a fold of the asset backtests: materialise its partition momentum|2024 again to replace it; "
        "nothing deleted\n"
    )
    assert store.rows() == before


def test_an_interruption_deletes_nothing(mts: Mts, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the rows of some tables are deleted: all tables have them still, and the lake can be written."""

    class Interrupted:
        """The last table; when it is its turn, Ctrl-C comes."""

        @property
        def qualified(self) -> str:
            raise KeyboardInterrupt

    before, sheet = store.rows(), sheet_path(store.settings, CURRENT)
    sheet.parent.mkdir(parents=True)
    sheet.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "RESULT_TABLES", (*RESULT_TABLES[:-1], Interrupted()))
        said = mts("forget", CURRENT, OLDER)
    assert (said.code, "nothing is half-written" in said.err) == (130, True)
    assert store.rows() == before
    assert sheet.exists()
    assert mts("forget", CURRENT, OLDER).code == 0
