"""Funding of perpetuals: intervals, annual rates, and what a hedged pair earns from unequal rates.

What belongs here: functions of rates and settlement times. Intervals differ between symbols (1, 2, 4, 8 h seen) and
change over time, so they are derived from settlements and never assumed. A positive rate means that longs pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mts_realtime.analytics.microstructure import BPS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FloatArray = NDArray[np.float64]
Number = TypeVar("Number", float, FloatArray)

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
HOURS_PER_DAY = 24
HOURS_PER_YEAR = 8_760.0
LONGEST_USUAL_HOURS = 8
"""The longest interval of the exchanges followed here; taken where settlements do not tell one."""


def settlement_minute_ms(funding_time_ms: int) -> int:
    """Settlement time floored to the minute: exchanges stamp it some milliseconds late."""
    return funding_time_ms // MINUTE_MS * MINUTE_MS


def interval_hours(settlement_times_ms: ArrayLike) -> FloatArray:
    """Interval that each settlement closed, hours, from the settlements themselves.

    Args:
        settlement_times_ms: Rising settlement times of one symbol on one exchange, as stamped.

    Returns:
        Distance to the settlement before; the first one takes the interval of the second. NaN for a single one.
    """
    minutes = np.asarray(settlement_times_ms, dtype=np.int64) // MINUTE_MS
    hours = np.full(minutes.shape, np.nan)
    if minutes.size > 1:
        hours[1:] = np.diff(minutes) / 60.0
        hours[0] = hours[1]
    return hours


class SettlementGap(Struct, frozen=True, kw_only=True):
    """Settlements that should lie between two others and do not.

    Attributes:
        after_ms: The settlement before the gap.
        before_ms: The one after it; ``None`` while none has come.
        missing: How many are missing at least.
    """

    after_ms: int
    before_ms: int | None
    missing: int


def settlement_gaps(settlement_times_ms: Sequence[int], known_until_ms: int) -> list[SettlementGap]:
    """Where settlements of one symbol on one exchange are missing, judged by their own distances.

    A distance is a gap when it is longer than the interval before it *and* the one after it: an interval that changes
    agrees with one of the two. What the interval was, is told by the nearest distance that can be one, which means that
    it divides the day; where there is none, as at the ends, ``LONGEST_USUAL_HOURS`` is granted. So a longer distance at
    the newest end, which may be a change, is judged by the settlement that follows it. Two equal distances in a row
    count as an interval, never as two gaps.

    Args:
        settlement_times_ms: Rising settlement times, as stamped; half an hour late is not missing.
        known_until_ms: Moment up to which settlements would be known; the silence after the newest one counts up to
            there.
    """
    hours = [round((later - earlier) / HOUR_MS) for earlier, later in pairwise([*settlement_times_ms, known_until_ms])]
    ends = [*settlement_times_ms, None][1:]
    found = []
    for place, (after_ms, before_ms, distance) in enumerate(zip(settlement_times_ms, ends, hours, strict=True)):
        before = _nearest_interval(hours[:place][::-1])
        after = None if before_ms is None else _nearest_interval(hours[place + 1 : -1])
        granted = max(interval or LONGEST_USUAL_HOURS for interval in (before, after))
        if distance > granted:
            known = max(before or 0, after or 0) or LONGEST_USUAL_HOURS
            missing = -(-distance // known) - 1
            found.append(SettlementGap(after_ms=after_ms, before_ms=before_ms, missing=missing))
    return found


def _nearest_interval(hours: Sequence[int]) -> int | None:
    """The first of some distances that can be an interval: settlements come at the same times each day."""
    return next((distance for distance in hours if distance > 0 and HOURS_PER_DAY % distance == 0), None)


def annualised_pct(rate: Number, hours: Number) -> Number:
    """A rate per interval as percent per year, not compounded.

    >>> round(annualised_pct(0.0001, 8.0), 6)
    10.95
    """
    return rate * (HOURS_PER_YEAR / hours) * 100.0


class FundingSpread(Struct, frozen=True, kw_only=True):
    """Long the perpetual of one exchange and short that of another, in equal size.

    Attributes:
        long_exchange: Where to be long: the lower annual rate.
        short_exchange: Where to be short: the higher annual rate.
        differential_pct: Annual rate earned before fees, percent of the notional of one leg.
        settlements_long: Settlements of the long leg within the holding time.
        settlements_short: The same for the short leg.
        gross_bps: Funding received less funding paid over the holding time.
        fees_bps: Taker fees of opening and closing both legs.
        net_bps: Gross less fees.
        break_even_hours: Holding time at which funding has paid the fees; infinite when it never does.
    """

    long_exchange: str
    short_exchange: str
    differential_pct: float
    settlements_long: int
    settlements_short: int
    gross_bps: float
    fees_bps: float
    net_bps: float
    break_even_hours: float


class FundingQuote(Struct, frozen=True, kw_only=True):
    """One exchange's side of a comparison.

    Attributes:
        exchange: Name of the exchange.
        rate: Running estimate for the coming settlement, fraction per interval.
        interval_hours: Length of the interval.
        hours_to_settlement: Time until the coming settlement.
        taker_fee_bps: Taker fee there.
    """

    exchange: str
    rate: float
    interval_hours: float
    hours_to_settlement: float
    taker_fee_bps: float


def quote_of(
    exchange: str,
    *,
    rate: float | None,
    interval_hours: float | None,
    next_funding_ms: float | None,
    exchange_time_ms: float,
    taker_fee_bps: float,
) -> FundingQuote | None:
    """A funding update as one side of a comparison; ``None`` while something of it is unknown."""
    if rate is None or not interval_hours or not next_funding_ms:
        return None
    return FundingQuote(
        exchange=exchange,
        rate=rate,
        interval_hours=interval_hours,
        hours_to_settlement=max(0.0, next_funding_ms - exchange_time_ms) / HOUR_MS,
        taker_fee_bps=taker_fee_bps,
    )


def settlements_within(quote: FundingQuote, holding_hours: float) -> int:
    """How many settlements a position opened now and held that long lives through."""
    if holding_hours < quote.hours_to_settlement:
        return 0
    return 1 + int((holding_hours - quote.hours_to_settlement) // quote.interval_hours)


def compare(first: FundingQuote, second: FundingQuote, holding_hours: float) -> FundingSpread:
    """What the pair is expected to earn, if both rates stay as they are for the holding time."""
    long, short = sorted((first, second), key=lambda quote: annualised_pct(quote.rate, quote.interval_hours))
    differential_pct = annualised_pct(short.rate, short.interval_hours) - annualised_pct(long.rate, long.interval_hours)
    settlements_long = settlements_within(long, holding_hours)
    settlements_short = settlements_within(short, holding_hours)
    gross_bps = (short.rate * settlements_short - long.rate * settlements_long) * BPS
    fees_bps = 2.0 * (long.taker_fee_bps + short.taker_fee_bps)
    bps_per_hour = differential_pct / 100.0 * BPS / HOURS_PER_YEAR
    return FundingSpread(
        long_exchange=long.exchange,
        short_exchange=short.exchange,
        differential_pct=differential_pct,
        settlements_long=settlements_long,
        settlements_short=settlements_short,
        gross_bps=gross_bps,
        fees_bps=fees_bps,
        net_bps=gross_bps - fees_bps,
        break_even_hours=fees_bps / bps_per_hour if bps_per_hour > 0.0 else float("inf"),
    )
