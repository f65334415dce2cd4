"""Backtests over a filled lake: folds as partitions, the portfolio, commands, and runs that come out the same again.

The lake holds seven weeks of invented markets of 2024 and signals of the last eleven days.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from mts_dagster import desk
from mts_dagster.instance.home import open_instance
from mts_dagster.lake.maintenance import maintain
from mts_dagster.lake.shared import session
from mts_dagster.research.pins import pinned_snapshots
from mts_dagster.research.subject import subject_named
from mts_dagster.research.tuning import space_of
from mts_dagster.runs import RunFailedError, run_members, run_strategy_years
from mts_dagster.settings import get_settings
from mts_dagster.workbench import Workbench, run_backtests

from .conftest import LAST, Mts, Said, World, is_one_line, settings_of, variables

pytestmark = pytest.mark.xdist_group("shell")

FIRST_BAR = date(2024, 1, 1)
WINDOW = ["--start", "2024-01-10", "--end", "2024-02-20"]
COINS = ["bitcoin", "ethereum"]


@pytest.fixture(scope="module")
def tested(filled: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A copy of the filled lake with the folds of 2024. Commands may add runs, nothing may be taken away."""
    home = tmp_path_factory.mktemp("tested") / "home"
    shutil.copytree(filled.settings.home, home)
    world = World(filled.simulator, settings_of(filled.simulator, home))
    world.run(lambda bench: run_backtests(bench, 2024, 2024))
    return world


@pytest.fixture
def mts(tested: World, run_mts: Mts) -> Mts:
    """Run a command in this process, on the tested lake unless told otherwise."""

    def run(*arguments: str, world: World = tested) -> Said:
        return run_mts(*arguments, env=variables(world.simulator, world.settings.home))

    return run


def folds_of(strategy: str, first_year: int, last_year: int) -> Callable[[Workbench], None]:
    """Run the years of one strategy."""

    def run(bench: Workbench) -> None:
        years = (strategy, strategy), first_year, last_year
        run_strategy_years(bench.definitions, bench.instance, "backtests", *years)

    return run


def strategies_of_2024(first: str, last: str) -> Callable[[Workbench], None]:
    """Run one year of the strategies between two names."""

    def run(bench: Workbench) -> None:
        run_strategy_years(bench.definitions, bench.instance, "backtests", (first, last), 2024, 2024)

    return run


# Folds


def test_every_directional_strategy_has_its_fold(tested: World) -> None:
    """The portfolio too; hedged pairs not; each under both sets of assumptions."""
    rows = tested.rows(
        "select strategy, count(*) from backtests.backtest_runs where kind = 'fold' group by 1 order by 1"
    )
    names = [name for name, _ in rows]
    assert {"aggregate", "buy_hold", "mean_reversion", "momentum", "vix_correlation", "volume_spike"} <= set(names)
    assert not {"funding_arbitrage", "spread_arbitrage"} & set(names)
    assert {count for _, count in rows} == {2}


def test_a_fold_warms_up_on_the_time_before_it(tested: World) -> None:
    """Buy-and-hold of 2024 begins on 1 January: the lake holds no earlier bar; its first fill is on the second day."""
    fills = tested.rows(
        "select min(bar_open_time), count(*) from backtests.backtest_fills "
        "where run_id = 'buy_hold-2024' and variant = 'base'"
    )
    assert fills == [(datetime(2024, 1, 2, tzinfo=UTC), 3)]


def test_a_fold_says_what_was_not_collected(tested: World) -> None:
    """The year has 366 days and the lake 51 of them: the rest is missing, not overlooked."""
    rows = tested.rows(
        "select distinct missing_bars, coverage_complete from backtests.backtest_runs where kind = 'fold'"
    )
    assert rows == [(3 * (366 - 51), False)]


def test_the_books_of_every_run_add_up(tested: World) -> None:
    """Capital plus all that the events did to the cash is the last balance, from the stored tables alone."""
    differences = tested.rows(
        """
        select e.run_id, e.variant, abs(r.start_equity_usd + sum(e.cash_usd) - arg_max(e.balance_usd, e.seq))
        from backtests.backtest_events as e join backtests.backtest_runs as r using (run_id, variant)
        where e.kind in ('fill', 'funding') group by e.run_id, e.variant, r.start_equity_usd
        """
    )
    assert len(differences) >= 8
    assert max(difference for _, _, difference in differences) < 1e-6


def test_buy_and_hold_equals_its_own_arithmetic(tested: World) -> None:
    """A third each, bought a basis point above the open of the second day, 5 bps fee, funding on what is held.

    Only openings that cost more than there is are scaled, all by one factor.
    """
    (end,) = tested.rows(
        "select end_equity_usd from backtests.backtest_runs where run_id = 'buy_hold-2024' and variant = 'base'"
    )[0]
    bars = tested.rows(
        "select coin, first(open order by date), first(before order by date), last(close order by date) from ("
        "select *, lag(close) over (partition by coin order by date) as before from marts.ohlcv_daily "
        "where coin in ('bitcoin', 'ethereum', 'binancecoin')) where before is not null group by coin"
    )
    paid = tested.rows(
        "select f.coin, f.funding_rate, b.open from raw.funding_rates as f join marts.ohlcv_daily as b "
        "on b.coin = f.coin and b.date = f.settled_at::date "
        "where f.venue = 'binance' and f.kind = 'regular' and f.settled_at > '2024-01-02 00:00:00Z'"
    )
    wanted = {coin: 100_000.0 / 3 / before for coin, _, before, _ in bars}
    price = {coin: opened * 1.0001 for coin, opened, _, _ in bars}
    cost = sum(wanted[coin] * price[coin] * 1.0005 for coin in wanted)
    units = {coin: amount * min(1.0, 100_000.0 / cost) for coin, amount in wanted.items()}
    cash = 100_000.0 - sum(units[coin] * price[coin] * 1.0005 for coin in units)
    cash -= sum(units[coin] * opened * rate for coin, rate, opened in paid)
    assert end == pytest.approx(cash + sum(units[coin] * close for coin, _, _, close in bars), rel=1e-6)


def test_the_summary_of_one_fold_is_the_fold(tested: World) -> None:
    """With a single year nothing is joined."""
    columns = "total_return_pct, sharpe, max_drawdown_pct, trades, funding_usd"
    assert (
        tested.rows(
            f"select strategy, variant, {columns} from backtests.backtest_summary except "
            f"select strategy, variant, {columns} from backtests.backtest_runs where kind = 'fold'"
        )
        == []
    )


def test_the_materialization_shows_numbers_pictures_and_the_sheet(tested: World) -> None:
    """Metrics as numbers, equity and drawdown as images inside, a tear sheet that exists."""
    key = dg.AssetKey(["backtests", "backtests"])
    with open_instance(tested.settings) as instance:
        records = instance.fetch_materializations(key, limit=50).records
    found = {record.partition_key: record.asset_materialization for record in records}
    event = found["buy_hold|2024"]
    assert event is not None
    shown = {name: value.value for name, value in event.metadata.items()}
    assert isinstance(shown["total_return_pct"], float)
    assert shown["trades"] == 0
    assert str(shown["curves"]).count("data:image/png;base64,") == 2
    sheet = Path(str(shown["tear_sheet"]))
    assert sheet == tested.settings.report_folder / "backtests" / "buy_hold-2024.html"
    assert "buy_hold" in sheet.read_text(encoding="utf-8")[:20_000]


def test_years_without_data_are_told_and_the_others_run(copied: World) -> None:
    """Three years in one run, one of them with bars."""
    copied.run(folds_of("momentum", 2023, 2025))
    assert copied.rows("select distinct fold_year from backtests.backtest_runs") == [(2024,)]
    with open_instance(copied.settings) as instance:
        records = instance.fetch_materializations(dg.AssetKey(["backtests", "backtests"]), limit=100).records
    told = {record.partition_key: record.asset_materialization for record in records}
    event = told["momentum|2023"]
    assert event is not None
    assert "no daily bars of bitcoin, ethereum, binancecoin" in str(event.metadata["nothing_to_trade"].value)


def test_nothing_at_all_is_a_failure(copied: World) -> None:
    """A green run without any result would be a lie."""
    with pytest.raises(RunFailedError, match=r"nothing to trade in \d+ partitions; the first: no daily bars of"):
        copied.run(folds_of("buy_hold", 2022, 2022))


LOOKS_AHEAD = '''
"""Buys today what rises tomorrow."""

from typing import Annotated

import pandas as pd

from mts_dagster.strategies import FEATURES, Rule, Strategy, StrategyConfig, Tunable


class HindsightConfig(StrategyConfig):
    """One threshold."""

    above: Annotated[float, Tunable(1.0, 1.02, 0.01)] = 1.0


class Hindsight(Strategy[HindsightConfig]):
    """Buys today what rises tomorrow."""

    name = "hindsight"

    def analyse(self, market):
        frame = market.table(FEATURES, ("date", "coin", "available_at", "close_usd"))
        return frame.assign(rise=frame.groupby("coin")["close_usd"].shift(-1) / frame["close_usd"])

    def signals(self, analysis):
        half = pd.Series(0.5, index=analysis.index)
        low = pd.Series("low", index=analysis.index)
        rule = Rule(analysis["rise"] > self.config.above, "long", "rises")
        return self.first_match(
            analysis, [rule], otherwise="falls", confidence=half, position_size=half, risk_level=low
        )
'''


@pytest.fixture
def hindsight(copied: World, tmp_path: Path) -> World:
    """A lake beside a strategy that looks ahead, between buy_hold and market_structure in the alphabet."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "hindsight.py").write_text(LOOKS_AHEAD, encoding="utf-8")
    (folder / "hindsight.json").write_text("{}", encoding="utf-8")
    return World(copied.simulator, copied.settings.model_copy(update={"strategy_folders": (str(folder),)}))


def test_a_strategy_that_fails_leaves_the_folds_of_the_others(hindsight: World) -> None:
    """The run fails and names it; the others are stored, summed up and materialised; its own partition says why."""
    with pytest.raises(
        RunFailedError,
        match=r"backtests__backtests failed: 1 of 3 partitions failed, the others are stored; "
        r"hindsight\|2024: strategy hindsight looks ahead",
    ):
        hindsight.run(strategies_of_2024("buy_hold", "market_structure"))
    stored = "select distinct strategy from backtests.{} order by 1"
    kept = [("buy_hold",), ("market_structure",)]
    assert hindsight.rows(stored.format("backtest_runs")) == kept
    assert hindsight.rows(stored.format("backtest_summary")) == kept
    key = dg.AssetKey(["backtests", "backtests"])
    with open_instance(hindsight.settings) as instance:
        assert instance.get_materialized_partitions(key) == {"buy_hold|2024", "market_structure|2024"}
        records = instance.fetch_observations(key, limit=10).records
        assert instance.get_latest_materialization_event(dg.AssetKey(["backtests", "backtest_summary"]))
    (said,) = [record.asset_observation for record in records]
    assert said is not None
    assert said.partition == "hindsight|2024"
    assert "strategy hindsight looks ahead" in str(said.metadata["failed"].value)


def test_a_strategy_that_fails_leaves_the_walks_of_the_others(hindsight: World) -> None:
    """Likewise; market_structure never trades in so few weeks, which its partition says, and is no failure."""

    def walk(bench: Workbench) -> None:
        run_members(bench.definitions, bench.instance, "walk_forward", "hindsight", "mean_reversion")

    with pytest.raises(RunFailedError, match=r"1 of 3 partitions failed, .* hindsight: strategy hindsight looks ahead"):
        hindsight.run(walk)
    assert hindsight.rows("select distinct strategy from backtests.walk_forward") == [("mean_reversion",)]
    with open_instance(hindsight.settings) as instance:
        found = instance.get_materialized_partitions(dg.AssetKey(["backtests", "walk_forward"]))
    assert found == {"market_structure", "mean_reversion"}


def test_a_fold_again_replaces_its_rows(copied: World) -> None:
    """Twice the same partitions: as many rows as once, and a newer snapshot."""
    counts = "select count(*), max(lake_snapshot) from backtests.backtest_runs"
    copied.run(folds_of("buy_hold", 2024, 2024))
    first = copied.rows(counts)[0]
    copied.run(folds_of("buy_hold", 2024, 2024))
    second = copied.rows(counts)[0]
    assert second[0] == first[0]
    assert second[1] > first[1]


def test_parameters_are_walked_forward(copied: World) -> None:
    """Folds follow each other with purged bars between training and test; every trial is counted."""

    def walk(bench: Workbench) -> None:
        run_members(bench.definitions, bench.instance, "walk_forward", "mean_reversion", "mean_reversion")

    copied.run(walk)
    rows = copied.rows(
        "select fold, train_end, test_start, test_end, trials, all_trials from backtests.walk_forward "
        "where strategy = 'mean_reversion' order by fold"
    )
    assert [row[0] for row in rows] == [0, 1, 2, 3]
    assert {row[2] - row[1] for row in rows} == {timedelta(days=5)}
    assert [row[2] for row in rows[1:]] == [row[3] for row in rows[:-1]]
    assert {row[5] for row in rows} == {sum(row[4] for row in rows)}


# The portfolio of all


def test_a_day_alone_equals_the_day_in_a_range(copied: World) -> None:
    """Whatever was stored before it, and in whatever order: the portfolio is replayed from the first day on."""
    query = "select * from signals.aggregated_signals order by date, asset"
    whole = copied.rows(query)
    copied.write("delete from signals.aggregated_signals")

    def days_alone(bench: Workbench) -> None:
        asset = bench.definitions.resolve_assets_def(dg.AssetKey(["signals", "aggregated_signals"]))
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        for back in (2, 10, 0, 5, 1, 3, 4, 6, 7, 8, 9):
            day = f"{LAST - timedelta(days=back):%Y-%m-%d}"
            dg.materialize([asset], partition_key=day, run_config=quiet)

    copied.run(days_alone)
    assert copied.rows(query) == whole
    assert len(whole) == 11 * 3


def test_the_signal_file_begins_with_the_portfolio(filled: World) -> None:
    """One decision an asset, with the rule that decided and what contributed; then what it was made of."""
    document = json.loads((filled.settings.signal_folder / "signals_2024-02-20.json").read_text())
    first, rest = document["signals"][:3], document["signals"][3:]
    assert [entry["strategy"] for entry in first] == ["aggregate"] * 3
    assert "aggregate" not in {entry["strategy"] for entry in rest}
    for entry in first:
        stated = {part["strategy"]: part for part in entry["contributions"]}
        heard = {signal["strategy"]: signal for signal in rest if signal["asset"] == entry["asset"]}
        assert set(stated) == set(heard)
        assert all(stated[name]["signal"] == heard[name]["signal"] for name in heard)
        assert stated["buy_hold"]["weight"] == 0.0
        assert entry["decided_by"]


def test_votes_are_weight_times_confidence(filled: World) -> None:
    """And the sign is the side."""
    sides = {"long": 1, "short": -1, "flat": 0}
    for (text,) in filled.rows("select contributions from signals.aggregated_signals"):
        for part in json.loads(text):
            assert part["vote"] == pytest.approx(sides[part["direction"]] * part["weight"] * part["confidence"])


# Commands


def test_a_backtest_for_programs(mts: Mts, tmp_path: Path) -> None:
    """The issue's own words: several coins, a window, a strategy, capital, a report."""
    said = mts("backtest", "--symbols", *COINS, *WINDOW, "--strategy", "buy_hold", "--capital", "50000",
               "--report", str(tmp_path / "out.html"), "--json")  # fmt: skip
    found = said.document
    assert said.code == 0
    assert found["symbols"] == COINS
    assert (found["start"], found["end"]) == ("2024-01-10T00:00:00+00:00", "2024-02-21T00:00:00+00:00")
    assert found["metrics"]["start_equity_usd"] == 50_000.0
    assert found["config"]["assets"] == COINS
    assert found["coverage"] == "complete: 84 bars, 252 funding settlements"
    assert found["pessimistic"]["total_return_pct"] < found["metrics"]["total_return_pct"]
    assert found["assumptions"]["initial_capital_usd"] == 50_000.0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert found["run_id"] in page
    assert "Result and costs, USD" in page


def test_a_backtest_for_people_prints_every_assumption(mts: Mts) -> None:
    """Fees, slippage, funding, fills, limits, the worse case, gaps, snapshot, and how to do it again."""
    said = mts("backtest", "--symbols", "bitcoin", *WINDOW, "--strategy", "momentum")
    assert said.code == 0
    for told in (
        "momentum: bitcoin, 2024-01-10 to 2024-02-20, daily bars",
        "maker 2 bps, taker 5 bps, perpetual, funding at every settlement",
        "1 bps of each fill that takes",
        "decided on a close, filled at the next open",
        "fees x 1.5, slippage x 2 + 5 bps",
        "input: complete: 42 bars, 126 funding settlements; lake snapshot ",
        "mts reproduce momentum-",
    ):
        assert told in said.out


def test_the_same_request_is_the_same_run(mts: Mts, tested: World) -> None:
    """Asked twice, stored once; another capital is another run."""
    ask = ("backtest", "--symbols", "ethereum", *WINDOW, "--strategy", "momentum", "--json")
    first, second, third = (mts(*ask).document, mts(*ask).document, mts(*ask, "--capital", "7").document)
    assert first["run_id"] == second["run_id"] != third["run_id"]
    query = "select count(*) from backtests.backtest_runs where run_id = ?"
    assert tested.rows(query, [first["run_id"]]) == [(2,)]


def test_strategies_side_by_side(mts: Mts) -> None:
    """Buy-and-hold comes first, asked for or not, over the same window."""
    said = mts("compare", "--strategies", "momentum", "volume_spike", "--symbols", *COINS, *WINDOW, "--json")
    assert [run["strategy"] for run in said.document] == ["buy_hold", "momentum", "volume_spike"]
    assert len({(run["start"], run["end"], tuple(run["symbols"])) for run in said.document}) == 1


def test_the_comparison_reads_well(mts: Mts) -> None:
    """A line a strategy, and the assumptions once."""
    said = mts("compare", "--strategies", "momentum", "--symbols", *COINS, *WINDOW)
    assert re.search(r"│ buy_hold +│", said.out)
    assert re.search(r"│ momentum +│", said.out)
    assert said.out.count("maker 2 bps") == 1


def test_a_search_is_held_against_its_best(mts: Mts, tmp_path: Path) -> None:
    """Every set is a trial, the best is what the run was made with, the map is drawn."""
    said = mts("optimize", "--strategy", "mean_reversion", *WINDOW, "--parameters", "vix_above", "drawdown_above_pct",
               "--method", "grid", "--folds", "2", "--report", str(tmp_path / "map.html"), "--json")  # fmt: skip
    assert said.code == 0, said.err
    found = said.document
    strategy = subject_named("mean_reversion", get_settings()).strategy
    assert strategy is not None
    space = space_of(strategy, ["vix_above", "drawdown_above_pct"])
    assert found["trials"] == len(space["vix_above"]) * len(space["drawdown_above_pct"])
    assert found["run"]["metrics"]["trials"] == found["trials"]
    assert found["run"]["metrics"]["deflated_sharpe"] <= found["run"]["metrics"]["probabilistic_sharpe"]
    assert found["run"]["config"]["vix_above"] == found["best"]["vix_above"]
    assert found["run"]["metrics"]["sharpe"] == pytest.approx(found["stability"]["best"])
    assert len(found["walk_forward"]) == 2
    assert "sharpe over parameters" in (tmp_path / "map.html").read_text(encoding="utf-8")


def test_a_search_by_chance_is_repeatable(mts: Mts) -> None:
    """A seed, a number of trials, one answer."""
    ask = ("optimize", "--strategy", "volume_spike", *WINDOW, "--trials", "12", "--seed", "3", "--json")
    first, second = mts(*ask).document, mts(*ask).document
    assert first["trials"] == 12
    for found in (first, second):
        del found["run"]["lake_snapshot"]  # storing the first run made a newer one
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["backtest", "--strategy", "momentun"], "there is no strategy 'momentun': did you mean 'momentum'?"),
        (["backtest", "--strategy", "spread_arbitrage"], "holds hedged pairs on two venues"),
        (["backtest", "--strategy", "momentum", "--symbols", "bitcon"], "no bars of 'bitcon': did you mean 'bitcoin'?"),
        (["backtest", "--strategy", "momentum", "--start", "2024-02-02", "--end", "2024-02-01"], "lies after the end"),
        (["backtest", "--strategy", "momentum", "--end", "2199-01-01"], "lies in the future"),
        (["backtest", "--strategy", "momentum", "--start", "soon"], "--start 'soon' is not a day"),
        (["backtest", "--strategy", "momentum", "--start", "2022-01-01", "--end", "2022-02-01"], "no daily bars of"),
        (["backtest", "--strategy", "buy_hold", *WINDOW, "--capital", "0"], "the capital must be above zero, got 0"),
        (["backtest", "--strategy", "buy_hold", "--assumptions", "no.json"], "no.json cannot be read"),
        (["backtest"], "Missing option '--strategy'"),
        (["compare", "--strategies", "nobody", *WINDOW], "there is no strategy 'nobody'"),
        (["optimize", "--strategy", "buy_hold", *WINDOW], "buy_hold has no parameters to tune"),
        (["optimize", "--strategy", "aggregate", *WINDOW], "aggregate has no parameters to tune"),
        (["optimize", "--strategy", "momentum", "--parameters", "windw_days"], "did you mean 'window_days'?"),
        (["optimize", "--strategy", "momentum", "--method", "grid", "--trials", "5"], "--method grid tries all sets"),
        (["backtest", "--strategy", "momentum", "--start", "0001-01-01"], "lies before 2009-01-03, the day of Bitcoin"),
        (["compare", "--start", "0001-01-01", "--end", "2024-02-20"], "--start 0001-01-01 lies before 2009-01-03"),
        (["optimize", "--strategy", "momentum", "--start", "0001-01-09"], "--start 0001-01-09 lies before 2009-01-03"),
        (
            ["optimize", "--strategy", "momentum", *WINDOW, "--seed", "-1"],
            "'--seed': Input should be greater than or equal to 0",
        ),
        (
            ["optimize", "--strategy", "momentum", *WINDOW, "--method", "bayes", "--seed", "99999999999"],
            "'--seed': Input should be less than or equal to 4294967295",
        ),
        (["reproduce", "nothing-1"], "there is no run 'nothing-1'"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_code_2(mts: Mts, arguments: list[str], told: str) -> None:
    """It says what was given and what is allowed."""
    said = mts(*arguments)
    assert said.code == 2
    assert is_one_line(said)
    assert told in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--report", "."], "--report . is a folder; name an HTML file"),
        (["--report", "/dev/null"], "--report /dev/null is no file; name an HTML file"),
        (["--report", "/dev/null/out.html"], "--report /dev/null/out.html cannot be written: "),
        (["--folds", "500"], "43 bars are too few for 500 folds"),
    ],
    ids=["folder", "device", "no folder", "folds"],
)
def test_what_cannot_end_well_does_not_begin(
    mts: Mts, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    """A search takes minutes; what is wrong with its end is said before the first trial."""
    tried: list[object] = []
    monkeypatch.setattr(desk, "tune", lambda *given, **_: tried.append(given))
    said = mts("optimize", "--strategy", "volume_spike", *WINDOW, *arguments)
    assert (said.code, is_one_line(said), tried) == (2, True, [])
    assert told in said.err


def test_a_strict_run_refuses_gaps(mts: Mts) -> None:
    """Days of the window that were never collected: code 1, what is missing, and nothing stored."""
    said = mts("backtest", "--strategy", "buy_hold", "--start", "2024-02-01", "--end", "2024-03-10", "--strict")
    assert said.code == 1
    assert is_one_line(said)
    assert "strict run refused, 57 of 117 bars missing" in said.err


def test_no_lake_is_said(mts: Mts, empty: World) -> None:
    """Looking makes none."""
    said = mts("backtest", "--strategy", "buy_hold", world=empty)
    assert (said.code, is_one_line(said)) == (1, True)
    assert "no lake at" in said.err
    assert not empty.settings.home.exists()


# The same again


def test_a_stored_fold_is_reproduced(mts: Mts) -> None:
    """Code 0, in words."""
    said = mts("reproduce", "momentum-2024")
    assert said.code == 0, said.out
    assert re.match(r"momentum-2024 on snapshot \d+: all numbers are equal; code 0\.", said.out)


def test_a_tuned_run_is_reproduced_with_its_own_config(mts: Mts) -> None:
    """Parameters, assets, capital and the number of trials come from the stored row, not from today's files."""
    said = mts("optimize", "--strategy", "mean_reversion", "--symbols", "bitcoin", "ethereum", *WINDOW, "--trials",
               "24", "--capital", "1234", "--json")  # fmt: skip
    assert said.code == 0, said.err
    best = said.document["run"]
    assert best["metrics"]["start_equity_usd"] == 1234.0
    found = mts("reproduce", best["run_id"], "--json")
    assert found.code == 0
    assert found.document["differences"] == []


def test_a_changed_number_is_found(mts: Mts, tested: World) -> None:
    """Somebody touched the stored results: code 1, and which number."""
    run_id = mts("backtest", "--symbols", "binancecoin", *WINDOW, "--strategy", "buy_hold", "--json").document["run_id"]
    tested.write("update backtests.backtest_runs set sharpe = 9 where run_id = ? and variant = 'base'", [run_id])
    said = mts("reproduce", run_id)
    assert said.code == 1
    assert "1 numbers differ; code" in said.out
    assert "base sharpe: stored 9.0, now " in said.out


def test_other_code_is_told_apart_from_other_numbers(mts: Mts, tested: World) -> None:
    """All numbers are equal, the code is not: code 1, and both versions."""
    run_id = mts("backtest", "--symbols", "bitcoin", *WINDOW, "--strategy", "buy_hold", "--json").document["run_id"]
    tested.write("update backtests.backtest_runs set code_version = '0.0.9-old' where run_id = ?", [run_id])
    said = mts("reproduce", run_id, "--json")
    assert said.code == 1
    assert said.document["differences"] == []
    assert said.document["stored_code_version"] == "0.0.9-old"


def test_a_maintained_lake_still_reproduces(copied: World, mts: Mts) -> None:
    """Bars are changed, snapshots expire, files are merged and cleaned up: what a run read is still there.

    Without the pin the same run could not be read again.
    """
    ask = ("backtest", "--symbols", "bitcoin", *WINDOW, "--strategy", "momentum", "--json")
    run = mts(*ask, world=copied).document
    copied.write("update marts.ohlcv_daily set close = close * 1.01, high = high * 1.01 where coin = 'bitcoin'")
    assert pinned_snapshots(copied.settings) == {run["lake_snapshot"]}
    later = datetime.now(UTC) + timedelta(days=400)
    report = maintain(copied.settings, pinned=pinned_snapshots(copied.settings), now=later)
    assert run["lake_snapshot"] in report.snapshots_pinned
    assert report.snapshots_expired
    assert mts("reproduce", run["run_id"], world=copied).code == 0
    again = mts(*ask, world=copied).document
    assert again["run_id"] != run["run_id"]
    assert again["metrics"]["total_return_pct"] != run["metrics"]["total_return_pct"]
    maintain(copied.settings, pinned={again["lake_snapshot"]}, now=later)
    lost = mts("reproduce", run["run_id"], world=copied)
    assert (lost.code, is_one_line(lost)) == (1, True)
    assert f"snapshot {run['lake_snapshot']} of the lake has expired" in lost.err


def test_the_maintenance_job_keeps_what_runs_refer_to(copied: World, mts: Mts) -> None:
    """The job asks for the pins by itself."""
    run = mts("backtest", "--symbols", "bitcoin", *WINDOW, "--strategy", "momentum", "--json", world=copied).document
    old = copied.settings.model_copy(update={"snapshot_keep_days": 1e-9, "file_keep_days": 1e-9})

    def maintenance(bench: Workbench) -> None:
        bench.definitions.resolve_job_def("maintenance").execute_in_process(instance=bench.instance)

    World(copied.simulator, old).run(maintenance)
    with session(copied.settings) as con:
        kept = {snapshot for (snapshot,) in con.execute("select snapshot_id from lake.snapshots()").fetchall()}
    assert run["lake_snapshot"] in kept
    assert mts("reproduce", run["run_id"], world=copied).code == 0


def test_a_run_is_listed_until_it_is_forgotten(mts: Mts, tested: World) -> None:
    """Fresh, it can be reproduced like the folds beside it; afterwards the lake is as if it had never been asked."""
    rows = "select count(*) from backtests.backtest_events"
    before = tested.rows(rows)
    ask = ("backtest", "--strategy", "buy_hold", "--symbols", "ethereum", *WINDOW, "--capital", "777", "--json")
    run = mts(*ask).document
    listed = mts("backtests", "--strategy", "buy_hold", "--folds", "--json").document
    found = {item["run_id"]: item for item in listed}
    assert listed[0]["run_id"] == run["run_id"]
    assert found["buy_hold-2024"]["reproducible"] is True
    brief = found[run["run_id"]]
    assert (brief["start"], brief["end"], brief["reproducible"]) == (run["start"], run["end"], True)
    assert brief["total_return_pct"] == run["metrics"]["total_return_pct"]
    assert brief["pessimistic_return_pct"] == run["pessimistic"]["total_return_pct"]
    assert mts("forget", run["run_id"]).code == 0
    assert tested.rows(rows) == before
    assert f"there is no run '{run['run_id']}'" in mts("reproduce", run["run_id"]).err


def test_results_are_queryable_like_everything_else(tested: World) -> None:
    """Trades of a run by name, without a schema."""
    with session(tested.settings) as con:
        frame: pd.DataFrame = con.execute("from backtest_equity where run_id = 'buy_hold-2024'").df()
    assert frame["timestamp"].min() == pd.Timestamp(FIRST_BAR + timedelta(days=1), tz="UTC")
    assert set(frame["variant"]) == {"base", "pessimistic"}
