"""The life of opportunities: opened, updated, expired; how long they lasted and how good they got.

What belongs here: tracking of one edge per key over time. Times come with the observations, so a recording gives
the same lives as the live stream.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from mts_realtime.analytics.arbitrage import Assessment, Edge

HORIZONS_MS = (50, 250, 1000)
"""Delays at which survival is recorded: what somebody that slow could still have got."""

NS_PER_MS = 1_000_000


class Change(StrEnum):
    """What an observation did to an opportunity."""

    OPENED = "opened"
    UPDATED = "updated"
    EXPIRED = "expired"


class Opportunity(Struct, kw_only=True):
    """One stretch of time in which an edge existed without interruption.

    Attributes:
        symbol: Our name of the instrument.
        buy_exchange: Where the asks are bought.
        sell_exchange: Where the bids are sold into.
        opened_ns: First observation.
        updated_ns: Newest observation with an edge.
        expired_ns: When the edge was gone; ``None`` while it lives.
        expired_reason: Why it ended, empty while it lives.
        edge: Newest edge.
        assessment: Newest judgement.
        peak: Best edge by ``net_bps``.
        net_bps_after: Net edge in force this many ms after opening, by horizon; absent when gone by then.
        updates: Observations with an edge.
    """

    symbol: str
    buy_exchange: str
    sell_exchange: str
    opened_ns: int
    updated_ns: int
    edge: Edge
    assessment: Assessment
    peak: Edge
    net_bps_after: dict[int, float]
    updates: int = 1
    expired_ns: int | None = None
    expired_reason: str = ""

    @property
    def id(self) -> str:
        """Name that is unique, and equal for the same recording."""
        return f"{self.symbol}-{self.buy_exchange}-{self.sell_exchange}-{self.opened_ns}"

    @property
    def lifetime_ms(self) -> float:
        """From the first observation to the end, or to the newest observation while it lives."""
        end = self.updated_ns if self.expired_ns is None else self.expired_ns
        return (end - self.opened_ns) / NS_PER_MS

    def survived(self, horizon_ms: int) -> bool:
        """Whether the edge still existed that long after opening."""
        return horizon_ms in self.net_bps_after


class OpportunityTracker:
    """All living opportunities, at most one per symbol and direction."""

    def __init__(self) -> None:
        self.living: dict[tuple[str, str, str], Opportunity] = {}
        self.opened = 0
        self.expired = 0

    def observe(
        self,
        key: tuple[str, str, str],
        at_ns: int,
        edge: Edge,
        assessment: Assessment,
    ) -> tuple[Change, Opportunity]:
        """An edge was seen.

        Args:
            key: Symbol, exchange to buy on, exchange to sell on.
            at_ns: When.
            edge: What was seen.
            assessment: Its judgement.
        """
        living = self.living.get(key)
        if living is None:
            symbol, buy, sell = key
            living = self.living[key] = Opportunity(
                symbol=symbol,
                buy_exchange=buy,
                sell_exchange=sell,
                opened_ns=at_ns,
                updated_ns=at_ns,
                edge=edge,
                assessment=assessment,
                peak=edge,
                net_bps_after={},
            )
            self.opened += 1
            return Change.OPENED, living
        _pass_horizons(living, at_ns)
        living.updated_ns = at_ns
        living.updates += 1
        living.edge = edge
        living.assessment = assessment
        if edge.net_bps > living.peak.net_bps:
            living.peak = edge
        return Change.UPDATED, living

    def expire(self, key: tuple[str, str, str], at_ns: int, reason: str) -> Opportunity | None:
        """The edge is gone, or a book is no longer known; ``None`` when there was no opportunity."""
        living = self.living.pop(key, None)
        if living is None:
            return None
        _pass_horizons(living, at_ns)
        living.expired_ns = at_ns
        living.expired_reason = reason
        self.expired += 1
        return living


def _pass_horizons(living: Opportunity, at_ns: int) -> None:
    """Note the edge that was in force at each horizon passed since the newest observation.

    A horizon that falls on an observation is judged by that observation, not by the one before it.
    """
    for horizon_ms in HORIZONS_MS:
        if horizon_ms not in living.net_bps_after and at_ns > living.opened_ns + horizon_ms * NS_PER_MS:
            living.net_bps_after[horizon_ms] = living.edge.net_bps
