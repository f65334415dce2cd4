"""Buying on one exchange and selling on another at the same moment: what is left after fees.

What belongs here: walking two books for the same size, and judging whether the result can be trusted; the sidecar and
the batch over stored books decide by the same functions. No tracking over time (``opportunities``), no signals
(``signals``).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from mts_realtime.analytics.microstructure import BPS

EDGE_GONE = "edge_gone"
"""Why an opportunity ended when the books no longer pay."""
BOOK_LOST = "book_lost"
"""Why it ended when a book is no longer known."""

TYPICAL_SLIP_BPS = 2.0
"""Edge at which confidence in the margin is one half: what prices commonly move while two orders travel."""


class Edge(Struct, frozen=True, kw_only=True):
    """Result of walking both books for one size.

    Attributes:
        size_base: Size bought and sold, base currency.
        notional_usd: Cost of the bought side before fees.
        buy_price: Average price paid, before fees.
        sell_price: Average price received, before fees.
        gross_bps: Difference of the averages relative to the price paid.
        net_bps: The same after both taker fees.
        net_usd: Profit of the whole size after both taker fees.
    """

    size_base: float
    notional_usd: float
    buy_price: float
    sell_price: float
    gross_bps: float
    net_bps: float
    net_usd: float


class Limits(Struct, frozen=True, kw_only=True):
    """When an edge counts.

    Attributes:
        min_net_bps: Least net edge of every unit taken.
        max_notional_usd: Largest cost of the bought side.
        max_age_ms: Oldest book allowed, by our receipt time.
        max_skew_ms: Largest difference of the two books' exchange times. It includes the exchanges' clock errors.
    """

    min_net_bps: float
    max_notional_usd: float
    max_age_ms: float
    max_skew_ms: float


class Assessment(Struct, frozen=True, kw_only=True):
    """Whether an edge can be acted on. ``reasons`` is empty when it can."""

    feasible: bool
    confidence: float
    reasons: tuple[str, ...]


class Side(Struct, frozen=True, kw_only=True):
    """One exchange's part in a trade: the side of its book that would be taken, and what is known about it.

    Attributes:
        prices: Best first.
        sizes: Their sizes, base currency.
        fee_bps: Taker fee there.
        age_ms: Age of the book by our receipt time.
        exchange_time_ms: Exchange time of the book.
        min_size_base: Smallest order there, 0 where it is not known.
        min_notional_usd: The same in value.
    """

    prices: Sequence[float]
    sizes: Sequence[float]
    fee_bps: float
    age_ms: float
    exchange_time_ms: float
    min_size_base: float = 0.0
    min_notional_usd: float = 0.0


def paying_ratio(buy_fee_bps: float, sell_fee_bps: float, min_net_bps: float) -> float:
    """Ratio of the bid sold into to the ask bought above which ``walk`` takes a first unit.

    >>> round(paying_ratio(5.0, 5.5, 0.0), 6)
    1.001051
    """
    return (1.0 + min_net_bps / BPS) * (1.0 + buy_fee_bps / BPS) / (1.0 - sell_fee_bps / BPS)


def judge(buy: Side, sell: Side, limits: Limits) -> tuple[Edge, Assessment] | str:
    """Walk both sides and assess the edge: what can be acted on, or the first reason why nothing can."""
    edge = walk(
        buy.prices,
        buy.sizes,
        sell.prices,
        sell.sizes,
        buy_fee_bps=buy.fee_bps,
        sell_fee_bps=sell.fee_bps,
        min_net_bps=limits.min_net_bps,
        max_notional_usd=limits.max_notional_usd,
    )
    if edge is None:
        return EDGE_GONE
    assessment = assess(
        edge,
        limits,
        buy_age_ms=buy.age_ms,
        sell_age_ms=sell.age_ms,
        skew_ms=buy.exchange_time_ms - sell.exchange_time_ms,
        min_size_base=max(buy.min_size_base, sell.min_size_base),
        min_notional_usd=max(buy.min_notional_usd, sell.min_notional_usd),
    )
    return (edge, assessment) if assessment.feasible else assessment.reasons[0]


def walk(
    ask_prices: Sequence[float],
    ask_sizes: Sequence[float],
    bid_prices: Sequence[float],
    bid_sizes: Sequence[float],
    *,
    buy_fee_bps: float,
    sell_fee_bps: float,
    min_net_bps: float = 0.0,
    max_notional_usd: float = float("inf"),
) -> Edge | None:
    """Buy the asks of one book and sell into the bids of another, unit by unit, while each unit still pays.

    Args:
        ask_prices: Asks of the exchange that is bought on, rising.
        ask_sizes: Their sizes, base currency.
        bid_prices: Bids of the exchange that is sold on, falling.
        bid_sizes: Their sizes, base currency.
        buy_fee_bps: Taker fee of the exchange that is bought on.
        sell_fee_bps: Taker fee of the exchange that is sold on.
        min_net_bps: Least net edge of every unit.
        max_notional_usd: Largest cost before fees.

    Returns:
        The walk's result, ``None`` when not even the first unit pays.
    """
    cost = 1.0 + buy_fee_bps / BPS
    proceeds = 1.0 - sell_fee_bps / BPS
    least = 1.0 + min_net_bps / BPS
    size = paid = received = 0.0
    ask = bid = 0
    ask_left = float(ask_sizes[0]) if len(ask_prices) else 0.0
    bid_left = float(bid_sizes[0]) if len(bid_prices) else 0.0
    while ask < len(ask_prices) and bid < len(bid_prices) and paid < max_notional_usd:
        buy_price, sell_price = float(ask_prices[ask]), float(bid_prices[bid])
        if sell_price * proceeds <= buy_price * cost * least:
            break
        step = min(ask_left, bid_left, (max_notional_usd - paid) / buy_price)
        size += step
        paid += step * buy_price
        received += step * sell_price
        ask_left -= step
        bid_left -= step
        if ask_left <= 0.0:
            ask += 1
            ask_left = float(ask_sizes[ask]) if ask < len(ask_prices) else 0.0
        if bid_left <= 0.0:
            bid += 1
            bid_left = float(bid_sizes[bid]) if bid < len(bid_prices) else 0.0
    if size <= 0.0:
        return None
    net = received * proceeds - paid * cost
    return Edge(
        size_base=size,
        notional_usd=paid,
        buy_price=paid / size,
        sell_price=received / size,
        gross_bps=(received - paid) / paid * BPS,
        net_bps=net / paid * BPS,
        net_usd=net,
    )


def assess(
    edge: Edge,
    limits: Limits,
    *,
    buy_age_ms: float,
    sell_age_ms: float,
    skew_ms: float,
    min_size_base: float,
    min_notional_usd: float,
) -> Assessment:
    """Judge an edge.

    Confidence is the product of three factors from 0 to 1: freshness (age against its limit), alignment (skew
    against its limit), and margin (net edge against what prices move while orders travel).

    Args:
        edge: Result of ``walk``.
        limits: What is allowed.
        buy_age_ms: Age of the bought book.
        sell_age_ms: Age of the sold book.
        skew_ms: Difference of the two books' exchange times.
        min_size_base: Larger one of both exchanges' smallest orders.
        min_notional_usd: The same in value.
    """
    age_ms = max(buy_age_ms, sell_age_ms, 0.0)
    reasons = []
    if age_ms > limits.max_age_ms:
        reasons.append("book_too_old")
    if abs(skew_ms) > limits.max_skew_ms:
        reasons.append("clock_skew")
    if edge.size_base < min_size_base or edge.notional_usd < min_notional_usd:
        reasons.append("below_smallest_order")
    if edge.net_bps < limits.min_net_bps:
        reasons.append("edge_too_small")
    freshness = max(0.0, 1.0 - age_ms / limits.max_age_ms)
    alignment = max(0.0, 1.0 - abs(skew_ms) / limits.max_skew_ms)
    margin = max(0.0, edge.net_bps) / (max(0.0, edge.net_bps) + TYPICAL_SLIP_BPS)
    return Assessment(feasible=not reasons, confidence=freshness * alignment * margin, reasons=tuple(reasons))
