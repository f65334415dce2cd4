"""Starting the long-running processes: the Dagster UI, its daemon, the sidecar, and the simulator when asked for.

What belongs here: command lines, environments and ports. What the processes do is theirs.
"""

from __future__ import annotations

import os
import random
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from honcho import manager as honcho

from mts_dagster.errors import LakeError, MtsError, UsageError
from mts_dagster.instance.home import environment, prepare
from mts_dagster.origin_guard import guard_origin
from mts_dagster.settings import REPOSITORY, Settings, load_settings

LOOPBACK = "127.0.0.1"
STOP_WAIT_S = 10
SIDECAR = [sys.executable, "-m", "mts_realtime"]
# The webserver binds its port seconds after it was picked. The system gives ports above these to connections that
# begin meanwhile.
PORTS_TO_PICK_FROM = range(20_000, 30_000)


@contextmanager
def simulator(arguments: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Run the simulator in a process of its own; yield the environment that points MTS at it.

    Raises:
        MtsError: the simulator ended before it told its addresses.
    """
    command = [sys.executable, "-m", "mts_simulator", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield _announced_environment(process)
    finally:
        _stop(process)


def sidecar_log(settings: Settings) -> Path:
    """Where a sidecar that was started here writes its log."""
    return settings.home / "logs" / "sidecar.log"


@contextmanager
def sidecar(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Run the sidecar in a process of its own for as long as the block lasts; what it received is landed at the end.

    Its live feed is on any free port.

    Raises:
        MtsError: the sidecar ended by itself, or could not bring all that it received to disk.
    """
    log = sidecar_log(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(SIDECAR, stderr=file, env={**os.environ, "MTS_FEED_PORT": "0"}, text=True)  # noqa: S603
        try:
            yield process
        finally:
            ended = process.poll() is not None
            _stop(process)
    if ended or process.returncode:
        raise MtsError(f"the sidecar ended with code {process.returncode}; its log is {log}")


def run_all(settings: Settings, *, simulated: bool, port: int | None, streaming: bool) -> int:
    """Run everything until Ctrl-C or until one process ends; return the exit code.

    Raises:
        UsageError: the UI's port is taken.
        ConfigError: the home holds data of another kind than the services that it would be filled from.
    """
    port = free_port(settings.dagster_port if port is None else port)
    if not simulated:
        guard_origin(settings)
        return _supervise(settings, {}, _commands(port, streaming=streaming), port)
    with simulator() as addresses:
        os.environ.update(addresses)  # the settings of this process and of all below it
        simulated_settings = load_settings()
        guard_origin(simulated_settings)
        return _supervise(simulated_settings, addresses, _commands(port, streaming=streaming), port)


def free_port(port: int) -> int:
    """The port, or for 0 any free one on loopback.

    Raises:
        UsageError: it is taken.
    """
    tries = [port] if port else random.sample(PORTS_TO_PICK_FROM, len(PORTS_TO_PICK_FROM))
    for number in tries:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((LOOPBACK, number))
                return number
    raise UsageError(f"port {port} is in use; choose another with --port or MTS_DAGSTER_PORT")


def _supervise(settings: Settings, addresses: dict[str, str], commands: dict[str, list[str]], port: int) -> int:
    prepare(settings)
    variables = {**os.environ, **environment(settings), **addresses}
    # The sidecar may take that long to bring what it received to a slow disk.
    honcho.KILL_WAIT = STOP_WAIT_S + 2
    manager = honcho.Manager()
    for name, command in commands.items():
        # Without exec the shell around a process would end at once, and nobody would wait for the process itself. All
        # stay in this folder: its .env holds their settings too, or they could fill the lake from elsewhere.
        manager.add_process(name, f"exec {shlex.join(command)}", env=variables)
    sys.stdout.write(f"Dagster UI on http://{LOOPBACK}:{port} (data in {settings.home}); Ctrl-C stops\n")
    sys.stdout.flush()
    manager.loop()
    return 0 if manager.returncode in {-2, -15, 130, 143, 0} else int(manager.returncode or 0)


def _commands(port: int, *, streaming: bool) -> dict[str, list[str]]:
    """Console scripts of this environment: Dagster's modules have no public ``python -m`` form for the daemon."""
    scripts = Path(sys.executable).parent
    workspace = ["-w", str(REPOSITORY / "workspace.yaml")]
    commands = {
        "webserver": [str(scripts / "dagster-webserver"), *workspace, "-h", LOOPBACK, "-p", str(port)],
        "daemon": [str(scripts / "dagster-daemon"), "run", *workspace],
    }
    return {**commands, "sidecar": SIDECAR} if streaming else commands


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, and end it when it does not."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_WAIT_S + 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _announced_environment(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the simulator's announcement up to its last line."""
    if process.stdout is None or process.stderr is None:
        raise LakeError("the simulator was started without pipes")
    found: dict[str, str] = {}
    for line in process.stdout:
        name, separator, value = line.strip().partition("=")
        if separator and name.startswith("MTS_"):
            found[name] = value
        elif line.startswith("simulated time"):
            return found
    raise MtsError(f"the simulator did not start: {process.stderr.read().strip() or 'it said nothing'}")
