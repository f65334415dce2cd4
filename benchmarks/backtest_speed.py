"""How fast the backtest engine is, beside public engines on the same machine in the same run.

An SMA 20/50 cross with fees and next-open fills, on seeded random walks:

- ``given signals``: one symbol, 1,000,000 bars, signals known; all rules on, the full event log written.
- ``prices to metrics``: the same from prices, signals computed, to Sharpe ratio, drawdown, trades and costs.
- ``portfolio``: ten symbols, 2,000 bars, one cash account.
- ``sweep``: 500 parameter sets, 50,000 bars, Sharpe ratio and drawdown of each; with the memory it takes.
- ``on_bar``: a strategy in plain Python, called for each of 1,000,000 bars.
- ``first call``: from an empty compile cache, and in a later process, with and without the imports.

Each case runs in fresh processes, ours and the peers' in turn, and the fastest of its repetitions counts, since a
shared machine is never equally fast for long: read the ratios. The engines end with the same equity to 1e-9 where they
size alike, which ``tests/crosscheck`` shows. The peers are installed into ``.venv-peer-engines`` when first needed.

    python -m benchmarks.backtest_speed [--rounds 2] [--json results.json] [--slow]

``--slow`` adds backtrader on 100,000 bars (it needs a minute for a million).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.backtest_peers import installed_engines
from benchmarks.machine import describe

FOLDER = Path(__file__).resolve().parent
OURS, THEIRS = "backtest_speed_ours.py", "backtest_speed_peers.py"
Measured = dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """One line of the result.

    Attributes:
        case: What was measured.
        ours_s: Our time (or bytes, for memory).
        peer: Who it is compared with.
        theirs_s: The peer's.
        aim: Smallest ratio that we want.
    """

    case: str
    ours_s: float
    peer: str
    theirs_s: float
    aim: float

    @property
    def ratio(self) -> float:
        """How many times less we need."""
        return self.theirs_s / self.ours_s


AIMS = (
    ("given signals", "vectorbt", 20.0),
    ("prices to metrics", "vectorbt", 5.0),
    ("portfolio", "vectorbt", 50.0),
    ("sweep", "vectorbt", 50.0),
    ("sweep memory", "vectorbt", 5.0),
    ("on_bar", "backtesting.py", 6.0),
)


def run(python: str | Path, script: str, case: str, **environment: str) -> Measured:
    """Run one case in a fresh process and return what it measured, with the time of the whole process."""
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(FOLDER.parent), **environment}
    command = [str(python), str(FOLDER / script), case]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    ended = time.perf_counter()
    if done.returncode != 0:
        raise SystemExit(f"{script} {case} failed:\n{done.stderr}")
    found: Measured = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {f"{case} process": ended - begun}


def first_calls(into: Measured) -> None:
    """Measure a first call with an empty compile cache, then one in a later process that finds it filled."""
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first", "later"):
            found = run(sys.executable, OURS, "call", NUMBA_CACHE_DIR=cache)
            fastest(into, {f"{name} call": found["call"], f"{name} process": found["call process"]})


def fastest(into: Measured, found: Measured) -> None:
    """Keep the smaller of two measurements."""
    for name, value in found.items():
        into[name] = min(value, into.get(name, value))


def measure(rounds: int, *, slow: bool) -> tuple[Measured, Measured]:
    """Run all cases in turn; return our measurements and the peers'."""
    peers = installed_engines()
    ours: Measured = {}
    theirs: Measured = {}
    for _ in range(rounds):
        for case in ("single", "portfolio", "sweep", "on_bar"):
            fastest(theirs, run(peers, THEIRS, case))
            fastest(ours, run(sys.executable, OURS, case))
        first_calls(ours)
    if slow:
        fastest(theirs, run(peers, THEIRS, "backtrader"))
    return ours, theirs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="how often each case is measured")
    parser.add_argument("--json", type=Path, help="write the measurements here as well")
    parser.add_argument("--slow", action="store_true", help="add backtrader")
    options = parser.parse_args()
    print(describe())
    ours, theirs = measure(options.rounds, slow=options.slow)
    lines = [Comparison(case, ours[case], peer, theirs[case], aim) for case, peer, aim in AIMS]
    print(f"{'case':<18}{'ours':>12}  {'peer':<15}{'peer':>12}{'ratio':>9}{'aim':>7}")
    for line in lines:
        scale, unit = (1e-6, "MB") if "memory" in line.case else (1e3, "ms")
        print(
            f"{line.case:<18}{line.ours_s * scale:>9.3f} {unit}  {line.peer:<15}{line.theirs_s * scale:>9.1f} {unit}"
            f"{line.ratio:>8.1f}x{line.aim:>6.0f}x{'' if line.ratio >= line.aim else '   missed'}"
        )
    print(f"first call ever {ours['first call']:.1f} s (aim 10), with imports {ours['first process']:.1f} s")
    print(
        f"first call of a later process {ours['later call']:.2f} s (aim 1), with imports {ours['later process']:.2f} s"
    )
    if "backtrader" in theirs:
        print(f"backtrader, 100,000 bars: {theirs['backtrader']:.1f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(line) | {"ratio": line.ratio} for line in lines], indent=2))


if __name__ == "__main__":
    main()
