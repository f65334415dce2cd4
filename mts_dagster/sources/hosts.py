"""What all processes on this machine must agree on about a host: its budget, its pauses, its bans, its circuit.

What belongs here: one small SQLite file below ``MTS_HOME`` and the rules on its rows. Limits of FRED, Binance and
Bybit hold for an IP address or a key, not for a process, and Dagster runs are many processes: a budget in memory
would be spent once by each of them, and a ban seen by one would be prolonged by the others.

The policy of a budget is pyrate-limiter's GCRA (one number for each budget, exact waiting times), the circuit's is
pybreaker's; only their storage is ours. Rollback journal on purpose, not WAL: the SQLite that comes with Python
may be older than 3.51.3, which can corrupt a WAL with several writers. Without ``fsync``, because losing these
rows in a power cut costs nothing; the death of a process is safe either way.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreakerStorage
from pyrate_limiter import GCRA, Rate

from mts_dagster.errors import MtsError

LOCK_WAIT_S = 30.0
BURST_SHARE = 0.2

TABLES = """
create table if not exists budget (host text, name text, state text not null, primary key (host, name));
create table if not exists host (
    name text primary key,
    paused_until real not null default 0,
    blocked_until real not null default 0,
    blocked_because text not null default '',
    circuit text not null default 'closed',
    failures integer not null default 0,
    successes integer not null default 0,
    opened_at real,
    probed_at real not null default 0
);
"""


@dataclass(frozen=True)
class Cost:
    """What a request spends of one budget."""

    budget: str
    weight: int = 1


@dataclass(frozen=True)
class Verdict:
    """Whether a request may go out now.

    Attributes:
        wait_s: seconds to wait before asking again; 0 means that the cost is spent and the request may go.
        blocked_until: epoch seconds until which the host must not be asked at all, else None.
        blocked_because: the host's own words for it.
        circuit_until: epoch seconds of the next try of a host that keeps failing, else None.
    """

    wait_s: float = 0.0
    blocked_until: float | None = None
    blocked_because: str = ""
    circuit_until: float | None = None


def budget(limit: int, interval_s: float) -> Rate:
    """Rate that spends at most ``limit`` in any interval: a fifth at once, the rest evenly.

    A token bucket of size b refilled at r lets b + r through in one interval; the split keeps the sum at limit.
    """
    burst = max(1, int(limit * BURST_SHARE))
    return Rate(max(1, limit - burst), round(interval_s * 1000), burst=burst)


class HostFile:
    """The shared file; one connection, guarded by a lock, for the threads of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("pragma synchronous = off")
            self._connection.executescript(TABLES)
        except (OSError, sqlite3.Error) as failure:
            raise self._unusable(failure) from None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One writing transaction; other processes wait for it (it takes well under a millisecond)."""
        with self._lock:
            try:
                self._connection.execute("begin immediate")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("rollback")
                    raise
                self._connection.execute("commit")
            except sqlite3.Error as failure:
                raise self._unusable(failure) from None

    def _unusable(self, failure: Exception) -> MtsError:
        return MtsError(
            f"{self._path} (request budgets shared by all processes) cannot be used: {failure}; "
            "check that MTS_HOME is writable, or delete this file, it only holds budgets and pauses"
        )


class Host(CircuitBreakerStorage):
    """One host's rows: admission of requests, pauses and bans, and the storage of its circuit breaker.

    Args:
        file: the shared file.
        name: what tells the service apart from all others.
        budgets: rates by name.
        circuit_reset_s: how long a host that keeps failing is left alone.
        now: the session's clock, epoch seconds; the breaker's times are taken from it too.
    """

    def __init__(
        self,
        file: HostFile,
        name: str,
        *,
        budgets: Mapping[str, Rate],
        circuit_reset_s: float,
        now: Callable[[], float],
    ) -> None:
        super().__init__(name)
        self._file = file
        self._budgets = budgets
        self._reset_s = circuit_reset_s
        self._now = now
        with file.transaction() as rows:
            rows.execute("insert or ignore into host (name) values (?)", [name])

    def admit(self, costs: tuple[Cost, ...]) -> Verdict:
        """Decide on a request and spend its costs, in one transaction.

        The first request after a circuit's rest becomes its probe; others keep being refused until it is answered.
        """
        now = self._now()
        with self._file.transaction() as rows:
            paused, blocked, because, circuit, opened_at, probed_at = rows.execute(
                "select paused_until, blocked_until, blocked_because, circuit, opened_at, probed_at "
                "from host where name = ?",
                [self.name],
            ).fetchone()
            if blocked > now:
                return Verdict(blocked_until=blocked, blocked_because=because)
            if circuit != STATE_CLOSED:
                next_try = (opened_at if circuit == STATE_OPEN else probed_at) + self._reset_s
                if next_try > now:
                    return Verdict(circuit_until=next_try)
            if paused > now:
                return Verdict(wait_s=paused - now)
            wait_s = self._spend(rows, costs, now)
            if wait_s == 0.0 and circuit != STATE_CLOSED:
                rows.execute(
                    "update host set circuit = ?, successes = 0, probed_at = ? where name = ?",
                    [STATE_HALF_OPEN, now, self.name],
                )
        return Verdict(wait_s=wait_s)

    def _spend(self, rows: sqlite3.Connection, costs: tuple[Cost, ...], now: float) -> float:
        """Spend all costs, or none and say how long to wait."""
        now_ms = int(now * 1000)
        spent: list[tuple[str, str, str]] = []
        wait_ms = 0
        for cost in costs:
            rate = self._budgets[cost.budget]
            stored = rows.execute(
                "select state from budget where host = ? and name = ?", [self.name, cost.budget]
            ).fetchone()
            # A clock that was set back must not freeze everything until it has caught up again.
            latest_us = (now_ms + rate.interval) * 1000
            state = (min(int(stored[0]), latest_us) if stored else 0,)
            after, decision = GCRA().step([rate], state, now_ms, cost.weight)
            if not decision.allowed:
                if decision.retry_after_ms is None:
                    raise ValueError(f"a request of weight {cost.weight} never fits into {cost.budget}: {rate}")
                wait_ms = max(wait_ms, decision.retry_after_ms)
            spent.append((self.name, cost.budget, str(int(after[0]))))
        if wait_ms == 0:
            rows.executemany("insert or replace into budget (host, name, state) values (?, ?, ?)", spent)
        return wait_ms / 1000

    def pause(self, until: float) -> None:
        """Let every process wait until then before its next request."""
        self._update("paused_until = max(paused_until, ?)", until)

    def block(self, until: float, because: str) -> None:
        """Refuse every request of every process until then."""
        self._update("blocked_until = max(blocked_until, ?), blocked_because = ?", until, because)

    # What pybreaker asks of a storage. It counts successes only to leave the half-open state.

    @property
    def state(self) -> str:
        """State of the circuit: closed, open or half-open."""
        return str(self._read("circuit"))

    @state.setter
    def state(self, state: str) -> None:
        self._update("circuit = ?", state)

    def increment_counter(self) -> None:
        """Count one more failure in a row."""
        self._update("failures = failures + 1")

    def reset_counter(self) -> None:
        """Forget the failures; costs no write in the normal case."""
        if self.counter:
            self._update("failures = 0")

    def increment_success_counter(self) -> None:
        """Count one more success of a probe."""
        self._update("successes = successes + 1")

    def reset_success_counter(self) -> None:
        """Forget the successes."""
        self._update("successes = 0")

    @property
    def counter(self) -> int:
        """Failures in a row."""
        return int(str(self._read("failures")))

    @property
    def success_counter(self) -> int:
        """Successes since the circuit was half opened."""
        return int(str(self._read("successes")))

    @property
    def opened_at(self) -> datetime | None:
        """When the circuit opened, by the session's clock."""
        opened_at = self._read("opened_at")
        return datetime.fromtimestamp(float(str(opened_at)), UTC) if opened_at is not None else None

    @opened_at.setter
    def opened_at(self, _moment: datetime) -> None:
        self._update("opened_at = ?", self._now())

    def _read(self, column: str) -> object:
        with self._file.transaction() as rows:
            (value,) = rows.execute(f"select {column} from host where name = ?", [self.name]).fetchone()  # noqa: S608 - a constant of this module
        return value

    def _update(self, assignment: str, *values: object) -> None:
        with self._file.transaction() as rows:
            rows.execute(f"update host set {assignment} where name = ?", [*values, self.name])  # noqa: S608 - a constant of this module
