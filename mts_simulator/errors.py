"""The one error of the simulator: what keeps it from starting, in one line for the user."""

from __future__ import annotations


class SimulatorError(Exception):
    """The simulator cannot run as asked; ``str(error)`` says why and what to do."""
