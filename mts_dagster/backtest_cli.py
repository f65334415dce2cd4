"""The backtest commands of ``mts``: backtest, compare, optimize, reproduce, backtests, forget.

What belongs here: arguments and exit codes. What the commands do is ``desk``, what they print ``backtest_reports``;
those that only look at what is stored, or delete it, need no engine: ``research`` and ``record_reports``. All are
imported inside the commands, so that ``mts --help`` answers at once.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import typer

from mts_dagster.arguments import parse_day, split_list

SymbolsOption = Annotated[
    list[str] | None,
    typer.Option("--symbols", help="CoinGecko ids, several if you like; default: those of the strategy's config."),
]
StrategyOption = Annotated[str, typer.Option("--strategy", help="Name of a strategy, or aggregate.")]
StartOption = Annotated[str | None, typer.Option("--start", help="First day to trade, YYYY-MM-DD; default: all.")]
EndOption = Annotated[str | None, typer.Option("--end", help="Last day, included; default: the last closed one.")]
CapitalOption = Annotated[float | None, typer.Option("--capital", help="Cash at the start, USD.")]
AssumptionsOption = Annotated[
    Path | None, typer.Option("--assumptions", help="JSON file of fees, fills and limits; default: the setting's.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse to run over missing bars or funding.")]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write the tear sheet to this HTML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DEFAULT_LIMIT = 20
LARGEST_SEED = 2**32 - 1  # of numpy's older generator, which the Bayesian search draws from
Objective = Literal["sharpe", "sortino", "calmar", "total_return_pct"]
Method = Literal["grid", "random", "bayes"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``mts``."""
    for command in (backtest, compare, optimize, reproduce, backtests, forget):
        app.command()(command)


def backtest(
    strategy: StrategyOption,
    symbols: SymbolsOption = None,
    start: StartOption = None,
    end: EndOption = None,
    capital: CapitalOption = None,
    assumptions: AssumptionsOption = None,
    strict: StrictOption = False,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Trade a strategy over daily bars of the lake, as assumed and under worse costs."""
    from mts_dagster.backtest_reports import print_run
    from mts_dagster.desk import Desk, Terms
    from mts_dagster.research.sheets import sheet_place

    terms = Terms(split_list(symbols), _day("--start", start), _day("--end", end), capital, assumptions, strict)
    place = None if report is None else sheet_place(report)
    desk = Desk.open()
    run = desk.backtest(strategy, terms)
    print_run(run, desk.sheet(run, place), as_json=json)


def compare(
    strategies: Annotated[
        list[str] | None, typer.Option("--strategies", help="Names; default: all. buy_hold is always among them.")
    ] = None,
    symbols: SymbolsOption = None,
    start: StartOption = None,
    end: EndOption = None,
    capital: CapitalOption = None,
    assumptions: AssumptionsOption = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Trade several strategies over the same bars and show them side by side, buy-and-hold among them."""
    from mts_dagster.backtest_reports import print_comparison
    from mts_dagster.desk import Desk, Terms

    terms = Terms(split_list(symbols), _day("--start", start), _day("--end", end), capital, assumptions, strict)
    print_comparison(Desk.open().compare(split_list(strategies), terms), as_json=json)


def optimize(
    strategy: StrategyOption,
    symbols: SymbolsOption = None,
    start: StartOption = None,
    end: EndOption = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameters", help="What to vary; default: all that can be tuned.")
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="All sets, as many by chance as --trials says, or Bayesian.")
    ] = "random",
    trials: Annotated[
        int | None, typer.Option("--trials", min=2, help="Backtests of random and bayes; default 200.")
    ] = None,
    objective: Annotated[Objective, typer.Option("--objective", help="What to maximise.")] = "sharpe",
    folds: Annotated[int, typer.Option("--folds", min=0, help="Walk forward in so many folds too; 0 does not.")] = 0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Makes random and bayes repeatable.")
    ] = 0,
    capital: CapitalOption = None,
    assumptions: AssumptionsOption = None,
    strict: StrictOption = False,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Search the parameters of a strategy; every trial counts against the Sharpe ratio of the best."""
    from mts_dagster.backtest_reports import print_tuning
    from mts_dagster.desk import Desk, Quest, Terms
    from mts_dagster.research.sheets import sheet_place

    terms = Terms(split_list(symbols), _day("--start", start), _day("--end", end), capital, assumptions, strict)
    quest = Quest(split_list(parameters), method, trials, objective, folds, seed)
    place = None if report is None else sheet_place(report)
    desk = Desk.open()
    found = desk.optimise(strategy, terms, quest)
    print_tuning(found, desk.sheet(found.run, place, found.extras), as_json=json)


def reproduce(
    run_id: Annotated[str, typer.Argument(help="Name of a stored run, see mts backtests.")],
    json: JsonOption = False,
) -> None:
    """Run a stored backtest again on the snapshot of the lake that it read: 0 if all is equal, 1 if not."""
    from mts_dagster.backtest_reports import print_reproduction
    from mts_dagster.desk import Desk

    found = Desk.open().reproduce(run_id)
    print_reproduction(run_id, found, as_json=json)
    raise typer.Exit(0 if found.is_equal else 1)


def backtests(
    strategy: Annotated[str | None, typer.Option("--strategy", help="Only of this strategy, or of aggregate.")] = None,
    folds: Annotated[bool, typer.Option("--folds", help="The years of the asset backtests too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many at most.")] = DEFAULT_LIMIT,
    json: JsonOption = False,
) -> None:
    """List the stored backtests, the newest first, and whether each can be reproduced."""
    from mts_dagster.record_reports import print_stored

    print_stored(strategy, with_folds=folds, limit=limit, as_json=json)


def forget(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN_ID", help="Stored runs, see mts backtests.")],
) -> None:
    """Delete stored backtests: all of those named or, if one is wrong, none; their snapshots are free then."""
    from mts_dagster.record_reports import print_forgotten

    print_forgotten(run_ids)


def _day(option: str, text: str | None) -> date | None:
    return None if text is None else parse_day(option, text)
