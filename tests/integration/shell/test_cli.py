"""The command line: exit codes, one line for a mistake, output for programs, and readers beside a writer."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from mts_dagster.lake import write
from mts_dagster.lake.shared import session
from mts_simulator.faults import Fault
from mts_simulator.simulator import Simulator

from .conftest import Mts, Said, World, is_one_line, variables

pytestmark = pytest.mark.xdist_group("shell")


@pytest.fixture
def mts(market: Simulator, tmp_path: Path, run_mts: Mts) -> Mts:
    """Run a command in this process, in a home of its own unless told otherwise."""

    def run(*arguments: str, home: Path | None = None, **more: str) -> Said:
        return run_mts(*arguments, env=variables(market, home or tmp_path / "home", **more))

    return run


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["collect", "--start", "yesterday"], "--start 'yesterday' is not a day; write it as YYYY-MM-DD"),
        (["signals", "--end", "2024-02-30"], "--end '2024-02-30' is not a day"),
        (["collect", "--start", "2024-02-02", "--end", "2024-02-01"], "the start 2024-02-02 lies after the end"),
        (["collect-macro", "--end", "2124-01-01"], "2124-01-01 lies in the future"),
        (["collect", "--start", "2019-01-01"], "2019-01-01 lies before the first partition 2021-01-01"),
        (["collect", "--days", "3", "--start", "2024-01-01"], "give either --days or --start and --end"),
        (["collect", "--days", "0"], "'--days': Input should be greater than or equal to 1"),
        (["collect", "--days", "many"], "'--days': Input should be a valid integer"),
        (["collect-macro", "--days", "1", "--indicators", "GDPX"], "unknown indicator GDPX; configured are VIXCLS"),
        (["collect", "--days", "1", "--coins", "no-such-coin"], "coingecko: there is no coin 'no-such-coin'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["status", "--colour"], "No such option: --colour"),
        (["simulate", "--port", "99999"], "'--port': Input should be less than or equal to 65535"),
        (["demo", "--days", "3"], "'--days': Input should be greater than or equal to 120"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_code_2(mts: Mts, arguments: list[str], told: str) -> None:
    """It says what was given and what is allowed."""
    said = mts(*arguments)
    assert said.code == 2
    assert is_one_line(said)
    assert told in said.err


def test_no_key_is_said_before_anything_begins(mts: Mts, tmp_path: Path) -> None:
    """Where to get one, and which setting takes it."""
    said = mts("collect-macro", "--days", "1", MTS_FRED_API_KEY="")
    assert said.code == 2
    assert is_one_line(said)
    assert "fred: no key" in said.err
    assert "MTS_FRED_API_KEY" in said.err
    assert not (tmp_path / "home" / "lake.sqlite").exists()


@pytest.mark.parametrize("command", [["status"], ["sql", "select 1"], ["status", "--json"]], ids=" ".join)
def test_no_lake_yet_is_said(mts: Mts, tmp_path: Path, command: list[str]) -> None:
    """Looking makes none."""
    said = mts(*command)
    assert said.code == 1
    assert is_one_line(said)
    assert "no lake at" in said.err
    assert "mts collect" in said.err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", [["collect", "--days", "1"], ["signals", "--days", "1"], ["status"]], ids=" ".join)
def test_a_home_that_is_a_file_is_said(mts: Mts, tmp_path: Path, command: list[str]) -> None:
    """One line that names it."""
    tmp_path.joinpath("taken").write_text("")
    said = mts(*command, home=tmp_path / "taken")
    assert said.code in (1, 2)
    assert is_one_line(said)
    assert str(tmp_path / "taken") in said.err


def test_a_port_in_use_is_said(mts: Mts) -> None:
    """Before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = mts("up", "--port", port)
    assert (said.code, is_one_line(said)) == (2, True)
    assert f"port {port} is in use; choose another with --port or MTS_DAGSTER_PORT" in said.err


def test_a_wrong_setting_is_said(mts: Mts) -> None:
    """Named as it is written in the environment."""
    said = mts("status", MTS_LOCK_WAIT_S="soon")
    assert (said.code, is_one_line(said)) == (2, True)
    assert "setting MTS_LOCK_WAIT_S: " in said.err


def test_simulated_data_stay_apart_from_real_ones(mts: Mts, filled: World) -> None:
    """A simulated home is not filled from a real service; nothing is asked."""
    real = {name: "http://192.0.2.1/" for name in filled.simulator.env() if name.endswith("_URL")}
    said = mts("collect", "--days", "1", home=filled.settings.home, **real)
    assert (said.code, is_one_line(said)) == (2, True)
    assert "holds simulated data, but the settings point at real services" in said.err


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("selec 1", 'Parser Error: syntax error at or near "selec"'),
        ("select * from no_such_table", "Catalog Error: Table with name no_such_table does not exist"),
        ("drop table raw.klines", "read-only"),
        ("delete from raw.klines", "read-only"),
    ],
)
def test_bad_sql_is_one_line(mts: Mts, filled: World, query: str, told: str) -> None:
    """DuckDB's own words; and nobody writes through this door."""
    said = mts("sql", query, home=filled.settings.home)
    assert said.code == 2
    assert is_one_line(said)
    assert told in said.err


# Answers


def test_status_for_programs(mts: Mts, filled: World) -> None:
    """Every table with its rows, period and gaps."""
    said = mts("status", "--json", home=filled.settings.home)
    tables = {entry["table"]: entry for entry in json.loads(said.out)}
    assert said.code == 0
    assert tables["raw.klines"]["rows"] == 51 * 3 * 25
    assert tables["raw.klines"]["first"] == "2024-01-01T00:00:00+00:00"
    assert tables["marts.ohlcv_daily"]["missing_days"] == []
    assert tables["raw.klines"]["last_write"]["origin"]["asset"] == "raw/klines"


def test_status_for_people(mts: Mts, filled: World) -> None:
    """A table with thousands separated."""
    said = mts("status", home=filled.settings.home)
    assert said.code == 0
    assert "raw.klines" in said.out
    assert "3,825" in said.out


def test_sql_for_programs(mts: Mts, filled: World) -> None:
    """Objects by column name; times in ISO 8601 with their offset, nulls as null."""
    query = "select coin, max(open_time) as newest, null as nothing, 1.5::decimal(3,1) as d from klines group by coin"
    said = mts("sql", f"{query} order by coin limit 1", "--json", home=filled.settings.home)
    assert json.loads(said.out) == [
        {"coin": "binancecoin", "newest": "2024-02-20T23:00:00+00:00", "nothing": None, "d": 1.5}
    ]


def test_numbers_that_json_lacks_are_null(mts: Mts, filled: World) -> None:
    """NaN and infinity are no JSON; a strict parser would refuse the whole answer."""
    said = mts("sql", "select 'nan'::double as a, 'inf'::double as b, [1.0, 'nan'::double] as c", "--json",
               home=filled.settings.home)  # fmt: skip
    assert json.loads(said.out, parse_constant=pytest.fail) == [{"a": None, "b": None, "c": [1.0, None]}]


def test_columns_of_one_name_are_all_shown(mts: Mts, filled: World) -> None:
    """``select 1, 1`` has two columns."""
    said = mts("sql", "select 1 as a, 2 as a", "--json", home=filled.settings.home)
    assert json.loads(said.out) == [{"a": 1, "a_1": 2}]


def test_a_long_answer_is_cut_and_says_so(mts: Mts, filled: World) -> None:
    """200 rows are enough for a screen."""
    said = mts("sql", "select * from range(250)", home=filled.settings.home)
    assert "250 rows, the first 200 shown; --json prints all" in said.out


def test_doctor_finds_everything_in_order(mts: Mts, filled: World) -> None:
    """All four services answer, nobody holds the lock, and no key is printed."""
    said = mts("doctor", "--json", home=filled.settings.home)
    found = json.loads(said.out)
    assert said.code == 0
    assert {source["source"]: source["is_ok"] for source in found["sources"]} == dict.fromkeys(
        ("coingecko", "fred", "binance", "bybit"), True
    )
    assert found["lock"]["locked"] is False
    assert filled.simulator.env()["MTS_FRED_API_KEY"] not in said.out


def test_doctor_names_what_is_wrong(mts: Mts, market: Simulator) -> None:
    """A service that refuses the country: code 1, and the others are still looked at."""
    market.faults.add(Fault("status", "binance", times=None, status=451))
    said = mts("doctor")
    assert said.code == 1
    assert "FAILED" in said.out
    assert said.out.count(" ok ") == 3
    assert "writer lock: " in said.out


def test_help_comes_without_a_command(mts: Mts) -> None:
    """And says what there is."""
    said = mts()
    assert "collect-macro" in said.out
    assert "Traceback" not in said.err


def test_queries_run_beside_a_writer(mts: Mts, copied: World) -> None:
    """A transaction is open, its lock is held; the reader neither waits nor sees it."""
    with session(copied.settings, read_only=False) as con, write(con):
        con.execute("delete from raw.klines")
        said = mts("sql", "select count(*) as n from raw.klines", "--json", home=copied.settings.home)
        locked = mts("doctor", "--json", home=copied.settings.home)
    assert json.loads(said.out) == [{"n": 51 * 3 * 25}]
    assert json.loads(locked.out)["lock"]["locked"] is True
