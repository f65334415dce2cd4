"""How long to wait before trying again.

What belongs here: one policy object, pure but for the random numbers it is given.
"""

from __future__ import annotations

import random


class Backoff:
    """Exponential, capped, with full jitter above the base: many clients must not come back together.

    Args:
        base_s: Shortest wait, seconds.
        cap_s: Longest wait, seconds.
        rng: Source of the jitter.
    """

    def __init__(self, base_s: float, cap_s: float, rng: random.Random | None = None) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self.failures = 0

    def next_s(self, at_least_s: float | None = None) -> float:
        """The wait after one more failure; never below what the exchange asked for.

        Args:
            at_least_s: Wait that the exchange named, if any.
        """
        ceiling = min(self._cap_s, self._base_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        wait_s = self._rng.uniform(min(self._base_s, ceiling), ceiling) if ceiling > self._base_s else ceiling
        return max(wait_s, at_least_s or 0.0)

    def reset(self) -> None:
        """It worked: the next failure is the first one again."""
        self.failures = 0
