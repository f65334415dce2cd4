"""Live signals: something worth looking at happened just now, how strong it is, and until when it counts.

What belongs here: the signal record, its grading, and the rule that keeps one situation from being reported over
and over. What raises a signal is decided in ``mts_realtime.detector``.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

MODERATE_FROM = 1.5
STRONG_FROM = 2.5


class SignalKind(StrEnum):
    """What happened."""

    ARBITRAGE = "arbitrage"
    VOLUME_SPIKE = "volume_spike"
    SPREAD_ANOMALY = "spread_anomaly"
    FUNDING_DIVERGENCE = "funding_divergence"
    ORDER_BOOK_IMBALANCE = "order_book_imbalance"


class Strength(StrEnum):
    """How far a value is beyond its threshold."""

    WEAK = "WEAK"
    MODERATE = "MODERATE"
    STRONG = "STRONG"


_RANK = {Strength.WEAK: 0, Strength.MODERATE: 1, Strength.STRONG: 2}


class Signal(Struct, frozen=True, kw_only=True):
    """One signal.

    Attributes:
        kind: What happened.
        symbol: Our name of the instrument.
        exchanges: Where: one exchange, or the one to buy (be long) on and the one to sell (be short) on.
        at_ns: When it was decided: receipt time of the event that raised it.
        expires_ns: Until when it counts.
        value: The measure that raised it, in ``unit``.
        threshold: The measure from which on it is raised.
        unit: Unit of both.
        strength: Grade of value against threshold.
        confidence: 0 to 1.
        detail: Further facts by name, units in the names.
    """

    kind: SignalKind
    symbol: str
    exchanges: tuple[str, ...]
    at_ns: int
    expires_ns: int
    value: float
    threshold: float
    unit: str
    strength: Strength
    confidence: float
    detail: dict[str, float | str]


def strength_of(value: float, threshold: float) -> Strength:
    """Grade by the ratio to the threshold: 1.5 times is MODERATE, 2.5 times STRONG.

    >>> strength_of(-7.0, 4.0)
    <Strength.MODERATE: 'MODERATE'>
    """
    ratio = abs(value) / threshold
    if ratio >= STRONG_FROM:
        return Strength.STRONG
    return Strength.MODERATE if ratio >= MODERATE_FROM else Strength.WEAK


def confidence_of(value: float, threshold: float) -> float:
    """0.5 at the threshold, nearing 1 far beyond it: ``r / (1 + r)`` of the ratio r."""
    ratio = abs(value) / threshold
    return ratio / (1.0 + ratio)


class SignalGate:
    """Lets a situation through once per life of its signal, and again only when it got stronger."""

    def __init__(self) -> None:
        self._open: dict[tuple[SignalKind, str, tuple[str, ...]], Signal] = {}
        self.passed: dict[SignalKind, int] = dict.fromkeys(SignalKind, 0)

    def admit(self, signal: Signal) -> bool:
        """Whether the signal is news."""
        key = (signal.kind, signal.symbol, signal.exchanges)
        known = self._open.get(key)
        if known is not None and signal.at_ns < known.expires_ns and _RANK[signal.strength] <= _RANK[known.strength]:
            return False
        self._open[key] = signal
        self.passed[signal.kind] += 1
        return True
