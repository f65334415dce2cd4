"""The command line: ``mts``.

What belongs here: arguments, progress, exit codes, and what a person reads. What the commands do lives elsewhere.
Heavy modules are imported inside the commands, so that ``mts --help`` answers at once. A user's mistake is one line
on stderr and exit code 2; a failure of the world is one line and exit code 1.
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from mts_dagster import backtest_cli
from mts_dagster.arguments import parse_day, repeat_lists, split_list
from mts_dagster.errors import MtsError, UsageError

app = typer.Typer(
    name="mts",
    help="Market Time Series: crypto and macro history, signals and backtests as Dagster assets in DuckDB.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_DAYS = 30
USAGE = 2
INTERRUPTED = 130

DaysOption = Annotated[int | None, typer.Option("--days", min=1, help="The last N days, today included.")]
StartOption = Annotated[str | None, typer.Option("--start", help="First day, YYYY-MM-DD (UTC).")]
EndOption = Annotated[str | None, typer.Option("--end", help="Last day, included; default today (UTC).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def collect(
    days: DaysOption = None,
    start: StartOption = None,
    end: EndOption = None,
    coins: Annotated[
        list[str] | None, typer.Option("--coins", help="CoinGecko ids, several if you like; default: all tracked.")
    ] = None,
) -> None:
    """Pull rankings, price points and klines into the lake and rebuild the bars made of them."""
    from mts_dagster import workbench

    window = parse_days(days, start, end)
    with workbench.Workbench.open() as bench:
        workbench.collect_market(bench, window, split_list(coins))


@app.command("collect-macro")
def collect_macro(
    days: DaysOption = None,
    start: StartOption = None,
    end: EndOption = None,
    indicators: Annotated[
        list[str] | None,
        typer.Option("--indicators", help="FRED series ids, several if you like; default: all configured."),
    ] = None,
) -> None:
    """Pull macro series from FRED into the lake and rebuild the daily calendar made of them."""
    from mts_dagster import workbench

    window = parse_days(days, start, end)
    with workbench.Workbench.open() as bench:
        workbench.collect_macro(bench, window, split_list(indicators))


@app.command()
def signals(days: DaysOption = None, start: StartOption = None, end: EndOption = None) -> None:
    """Compute features and the signals of all strategies, and write the signal files."""
    from mts_dagster import workbench
    from mts_dagster.reports import print_signals

    window = parse_days(days, start, end)
    with workbench.Workbench.open() as bench:
        workbench.compute_signals(bench, window)
        print_signals(bench.settings)


@app.command()
def demo(
    days: Annotated[int, typer.Option(min=120, help="Days of history, today included.")] = 400,
) -> None:
    """Fill a lake from the simulator, from nothing to signals, and sum it up."""
    from mts_dagster.demo import run

    run(days)


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 picks a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the invented market.")] = 7,
    replay: Annotated[Path | None, typer.Option(help="Serve the recordings in this folder instead.")] = None,
    now: Annotated[str | None, typer.Option(help="What the simulated clock shows at the start, ISO 8601.")] = None,
) -> None:
    """Run CoinGecko, FRED, Binance and Bybit on loopback; prints the settings that point MTS at them."""
    import os

    arguments = ["--port", str(port), "--seed", str(seed)]
    arguments += ["--replay", str(replay)] if replay else []
    arguments += ["--now", now] if now else []
    os.execv(sys.executable, [sys.executable, "-m", "mts_simulator", *arguments])  # noqa: S606 - our own module


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def stream(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
    """Hold live order books and funding, write snapshots, detect arbitrage; until Ctrl-C; options: mts stream -h."""
    import os

    from mts_dagster.origin_guard import guard_origin
    from mts_dagster.settings import get_settings

    guard_origin(get_settings())
    # A process of its own: the sidecar needs nothing of Dagster, and runs for weeks.
    os.execv(sys.executable, [sys.executable, "-m", "mts_realtime", *(arguments or [])])  # noqa: S606 - our own module


@app.command()
def up(
    simulated: Annotated[bool, typer.Option("--simulated", help="Point all clients at the simulator.")] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the Dagster UI; 0 picks a free one.")
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Whether the sidecar runs too; no, if yours runs already.")
    ] = True,
) -> None:
    """Start the Dagster UI and daemon and the sidecar (and the simulator), until Ctrl-C."""
    from mts_dagster.processes import run_all
    from mts_dagster.settings import get_settings

    raise typer.Exit(run_all(get_settings(), simulated=simulated, port=port, streaming=streaming))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SQL query; the lake is attached read-only.")],
    json: JsonOption = False,
) -> None:
    """Run a query on the lake while everything else runs."""
    from mts_dagster.reports import print_query

    print_query(query, as_json=json)


@app.command()
def status(json: JsonOption = False) -> None:
    """Show tables, rows, freshness and coverage."""
    from mts_dagster.reports import print_status

    print_status(as_json=json)


@app.command()
def doctor(json: JsonOption = False) -> None:
    """Check settings, versions, the reach of each source, and the writer lock."""
    from mts_dagster.reports import print_doctor

    raise typer.Exit(print_doctor(as_json=json))


backtest_cli.register(app)


def parse_days(days: int | None, start: str | None, end: str | None) -> Any:  # noqa: ANN401 - Days, imported late
    """Turn the three options into whole days; ``--days`` excludes the other two."""
    from mts_dagster.runs import Days

    if days is not None and (start or end):
        raise UsageError("give either --days or --start and --end")
    last = parse_day("--end", end) if end else datetime.now(UTC).date()
    first = parse_day("--start", start) if start else last - timedelta(days=(days or DEFAULT_DAYS) - 1)
    return Days(first, last)


def main() -> None:
    """Entry point of the console script."""
    # A service manager's stop is a Ctrl-C: what was started is stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(repeat_lists(sys.argv[1:]), standalone_mode=False)
        if code == INTERRUPTED:  # Typer's own translation of Ctrl-C
            raise KeyboardInterrupt  # noqa: TRY301 - into ours
    except typer.TyperException as error:
        # Without a command, the help has been printed and there is nothing to add.
        sys.stderr.write(f"mts: {error.format_message()}\n" if error.format_message() else "")
        code = USAGE
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\nmts: stopped; what was committed stays, nothing is half-written\n")
        code = INTERRUPTED
    except MtsError as error:
        sys.stderr.write(f"mts: {error}\n")
        code = error.exit_code
    except BrokenPipeError:
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
