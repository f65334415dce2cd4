"""The analytics over stored hours: the same measures and decisions as in the running sidecar, driven by samples.

What belongs here: walking through sampled books and funding rows in time order and calling the functions of this
package. Nothing is decided here that the live side decides elsewhere. Between two samples nothing is known: what a
sample shows counts until the next grid time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mts_realtime.analytics.anomalies import rolling_score, rolling_trend
from mts_realtime.analytics.arbitrage import BOOK_LOST, EDGE_GONE, Assessment, Edge, Limits, Side, judge, paying_ratio
from mts_realtime.analytics.funding import FundingQuote, FundingSpread, compare
from mts_realtime.analytics.microstructure import (
    BPS,
    FloatArray,
    depth_within_bps_usd,
    imbalance,
    liquidity_score,
    micro_price,
    mid,
    price_impact_bps,
    spread_bps,
)
from mts_realtime.analytics.opportunities import NS_PER_MS, Opportunity, OpportunityTracker
from mts_realtime.analytics.signals import confidence_of

HOUR_ENDED = "hour_ended"
"""Why an opportunity ended that was alive at the end of its hour: hours are computed apart."""
FUNDING_LOST = "funding_lost"
"""Why it ended when one of its rates is no longer known."""

DEPTH_WITHIN_BPS = 10.0
IMPACT_NOTIONAL_USD = 10_000.0

Times = NDArray[np.int64]
Key = tuple[str, str, str]


class Books(Struct, frozen=True, kw_only=True):
    """The sampled books of one market in time order.

    Attributes:
        exchange: Name of the exchange.
        timestamp_ns: Grid times, rising.
        received_ns: When the newest update in each sample reached us.
        exchange_time_ms: Exchange time of that update.
        bid_prices: Rows by levels, best first, missing levels NaN.
        bid_sizes: The same for sizes, base currency.
        ask_prices: As the bids.
        ask_sizes: As the bids.
    """

    exchange: str
    timestamp_ns: Times
    received_ns: Times
    exchange_time_ms: FloatArray
    bid_prices: FloatArray
    bid_sizes: FloatArray
    ask_prices: FloatArray
    ask_sizes: FloatArray


class Span(Struct, frozen=True):
    """How far an hour is known.

    Attributes:
        end_ns: Its end.
        known_ns: The end once the hour is over, before that the newest sample of any market. What was alive then has
            not ended yet.
    """

    end_ns: int
    known_ns: int

    @property
    def is_over(self) -> bool:
        """Whether nothing can be added."""
        return self.known_ns >= self.end_ns


class FundingRow(Struct, frozen=True, kw_only=True):
    """What one exchange said about funding of one symbol.

    Attributes:
        at_ns: When it reached us.
        mark_price: Mark price, quote currency.
        quote: The rate, ``None`` while something of it is unknown.
    """

    exchange: str
    at_ns: int
    mark_price: float
    quote: FundingQuote | None


class FundingRules(Struct, frozen=True, kw_only=True):
    """When a difference of funding rates is an opportunity.

    Attributes:
        divergence_pct: Least annual difference, percent.
        holding_hours: Holding time for which the net is stated.
        notional_usd: Size of one leg.
        silence_ns: A rate not heard of for this long is no longer known.
    """

    divergence_pct: float
    holding_hours: float
    notional_usd: float
    silence_ns: int


class FundingEdge(Edge, frozen=True, kw_only=True):
    """What a pair of unequal rates is expected to earn over the holding time, as an edge.

    Attributes:
        differential_pct: Annual rate earned before fees, percent.
        break_even_hours: Holding time that pays the fees.
    """

    differential_pct: float
    break_even_hours: float


def pad_levels(offsets: NDArray[np.int64], values: FloatArray) -> FloatArray:
    """Ladders of unequal length, laid end to end, as rows by levels; missing levels are NaN.

    Args:
        offsets: Where each ladder begins, and the end of the last: one more than ladders.
        values: All levels.
    """
    lengths = np.diff(offsets)
    padded = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), np.nan)
    present = np.arange(padded.shape[1]) < lengths[:, None]
    padded[present] = values[offsets[0] : offsets[-1]]
    return padded


def structure_of(books: Books, window: int, step_s: float) -> dict[str, FloatArray]:
    """What each sampled book says about its market.

    Args:
        books: Samples with both sides, a market's own past included.
        window: Samples of the rolling statistics.
        step_s: Grid of the samples, seconds.

    Returns:
        One array for each measure, by the names of the columns of ``market_structure``; NaN where undefined.
    """
    bid, ask = books.bid_prices[:, 0], books.ask_prices[:, 0]
    middle = mid(bid, ask)
    spread = spread_bps(bid, ask)
    bid_depth = depth_within_bps_usd(books.bid_prices, books.bid_sizes, middle, DEPTH_WITHIN_BPS)
    ask_depth = depth_within_bps_usd(books.ask_prices, books.ask_sizes, middle, DEPTH_WITHIN_BPS)
    return {
        "mid": middle,
        "micro_price": micro_price(bid, books.bid_sizes[:, 0], ask, books.ask_sizes[:, 0]),
        "bid_depth_10bps_usd": bid_depth,
        "ask_depth_10bps_usd": ask_depth,
        "imbalance": imbalance(books.bid_sizes, books.ask_sizes),
        "impact_buy_10k_bps": price_impact_bps(books.ask_prices, books.ask_sizes, middle, IMPACT_NOTIONAL_USD),
        "impact_sell_10k_bps": price_impact_bps(books.bid_prices, books.bid_sizes, middle, IMPACT_NOTIONAL_USD),
        "liquidity_score": liquidity_score(spread, bid_depth, ask_depth),
        "spread_zscore": rolling_score(spread, window),
        "spread_trend_bps_per_minute": rolling_trend(spread, window, step_s),
    }


def spread_opportunities(
    symbol: str, markets: Sequence[Books], fees_bps: Mapping[str, float], limits: Limits, span: Span, step_ns: int
) -> list[Opportunity]:
    """Lives of all edges between the markets of one symbol, each direction on its own.

    Smallest orders are no part of stored books, so none is required.

    Args:
        symbol: Our name of the instrument.
        markets: Its books on several exchanges; one gives nothing.
        fees_bps: Taker fee by exchange.
        limits: When an edge counts.
        span: How far the hour is known.
        step_ns: Grid of the samples.
    """
    ended: list[Opportunity] = []
    for buy, sell in permutations([books for books in markets if len(books.timestamp_ns)], 2):
        watch = _PairWatch(symbol, buy, sell, fees_bps, limits, step_ns)
        ended += watch.run(span)
    return sorted(ended, key=lambda life: (life.opened_ns, life.buy_exchange, life.sell_exchange))


class _PairWatch:
    """Buying on one exchange and selling on another, over all samples of both."""

    def __init__(
        self, symbol: str, buy: Books, sell: Books, fees_bps: Mapping[str, float], limits: Limits, step_ns: int
    ) -> None:
        self._key: Key = (symbol, buy.exchange, sell.exchange)
        self._buy, self._sell = buy, sell
        self._buy_fee_bps, self._sell_fee_bps = fees_bps[buy.exchange], fees_bps[sell.exchange]
        self._limits = limits
        self._step_ns = step_ns
        self._times: Times = np.union1d(buy.timestamp_ns, sell.timestamp_ns)
        self._at_buy = _places(buy.timestamp_ns, self._times)
        self._at_sell = _places(sell.timestamp_ns, self._times)
        self._known = (self._at_buy >= 0) & (self._at_sell >= 0)
        self._tracker = OpportunityTracker()

    def run(self, span: Span) -> list[Opportunity]:
        """Every life that ended; one that is alive at the end of an unfinished hour is left out."""
        ended: list[Opportunity | None] = []
        last = -1
        for now in self._paying():
            if last >= 0 and not self._follows(last, now):
                ended.append(self._end_after(last))
            at_ns = int(self._times[now])
            verdict = judge(
                _side(self._buy, self._buy.ask_prices, self._buy.ask_sizes, self._at_buy[now], self._buy_fee_bps),
                _side(self._sell, self._sell.bid_prices, self._sell.bid_sizes, self._at_sell[now], self._sell_fee_bps),
                self._limits,
            )
            if isinstance(verdict, str):
                ended.append(self._tracker.expire(self._key, at_ns, verdict))
            else:
                self._tracker.observe(self._key, at_ns, *verdict)
            last = now
        if last >= 0:
            ended.append(self._end_of_hour(last, span))
        return [life for life in ended if life is not None]

    def _paying(self) -> Iterator[int]:
        """Samples at which the first unit pays: two comparisons of arrays instead of a walk a sample."""
        ask = np.where(self._known, self._buy.ask_prices[self._at_buy, 0], np.nan)
        bid = np.where(self._known, self._sell.bid_prices[self._at_sell, 0], np.nan)
        ratio = paying_ratio(self._buy_fee_bps, self._sell_fee_bps, self._limits.min_net_bps)
        return (int(number) for number in np.flatnonzero(bid > ask * ratio))

    def _follows(self, last: int, now: int) -> bool:
        return now == last + 1 and self._times[now] - self._times[last] <= self._step_ns

    def _end_after(self, last: int) -> Opportunity | None:
        """The edge, or a book, was gone at the grid time after ``last``."""
        due_ns = int(self._times[last]) + self._step_ns
        is_sampled = last + 1 < len(self._times) and self._times[last + 1] <= due_ns
        reason = EDGE_GONE if is_sampled and self._known[last + 1] else BOOK_LOST
        return self._tracker.expire(self._key, due_ns, reason)

    def _end_of_hour(self, last: int, span: Span) -> Opportunity | None:
        due_ns = int(self._times[last]) + self._step_ns
        if due_ns < span.end_ns and (due_ns <= span.known_ns or span.is_over):
            return self._end_after(last)
        return self._tracker.expire(self._key, span.end_ns, HOUR_ENDED) if span.is_over else None


def _places(times: Times, wanted: Times) -> NDArray[np.int64]:
    """Position of each wanted time, -1 where it is missing."""
    found = np.searchsorted(times, wanted)
    inside = np.minimum(found, len(times) - 1)
    return np.where(times[inside] == wanted, inside, -1)


def _side(books: Books, prices: FloatArray, sizes: FloatArray, row: int, fee_bps: float) -> Side:
    """One side of a sampled book; its age is that at the grid time."""
    depth = int(np.count_nonzero(~np.isnan(prices[row])))
    return Side(
        prices=prices[row, :depth].tolist(),
        sizes=sizes[row, :depth].tolist(),
        fee_bps=fee_bps,
        age_ms=float(books.timestamp_ns[row] - books.received_ns[row]) / NS_PER_MS,
        exchange_time_ms=float(books.exchange_time_ms[row]),
    )


def funding_opportunities(
    symbol: str, rows: Iterable[FundingRow], rules: FundingRules, span: Span
) -> list[Opportunity]:
    """Lives of all funding differences of one symbol that are large enough.

    Args:
        symbol: Our name of the instrument.
        rows: What its exchanges said, in the order in which it reached us.
        rules: When a difference counts.
        span: How far the hour is known.
    """
    watch = _FundingWatch(symbol, rules)
    for row in rows:
        watch.on_row(row)
    return watch.close(span)


class _FundingWatch:
    """The newest rate of each exchange, and the lives of their differences."""

    def __init__(self, symbol: str, rules: FundingRules) -> None:
        self._symbol = symbol
        self._rules = rules
        self._newest: dict[str, FundingRow] = {}
        self._tracker = OpportunityTracker()
        self._ended: list[Opportunity] = []

    def on_row(self, here: FundingRow) -> None:
        """Compare with the newest of every other exchange."""
        self._lose_silent(here.at_ns)
        self._newest[here.exchange] = here
        for there in list(self._newest.values()):
            if there.exchange == here.exchange:
                continue
            if here.quote is None or there.quote is None:
                self._expire_pair(here.exchange, there.exchange, here.at_ns, FUNDING_LOST)
            else:
                self._compare(here, there, compare(here.quote, there.quote, self._rules.holding_hours))

    def close(self, span: Span) -> list[Opportunity]:
        """End what is alive, and return every life that ended."""
        self._lose_silent(span.known_ns)
        if span.is_over:
            for key in list(self._tracker.living):
                self._expire(key, span.end_ns, HOUR_ENDED)
        return sorted(self._ended, key=lambda life: (life.opened_ns, life.buy_exchange, life.sell_exchange))

    def _compare(self, here: FundingRow, there: FundingRow, spread: FundingSpread) -> None:
        key = (self._symbol, spread.long_exchange, spread.short_exchange)
        self._expire((key[0], key[2], key[1]), here.at_ns, EDGE_GONE)
        if spread.differential_pct < self._rules.divergence_pct:
            self._expire(key, here.at_ns, EDGE_GONE)
            return
        long, short = (here, there) if here.exchange == spread.long_exchange else (there, here)
        notional_usd = self._rules.notional_usd
        edge = FundingEdge(
            size_base=notional_usd / long.mark_price,
            notional_usd=notional_usd,
            buy_price=long.mark_price,
            sell_price=short.mark_price,
            gross_bps=spread.gross_bps,
            net_bps=spread.net_bps,
            net_usd=spread.net_bps / BPS * notional_usd,
            differential_pct=spread.differential_pct,
            break_even_hours=spread.break_even_hours,
        )
        assessment = Assessment(
            feasible=spread.net_bps > 0.0,
            confidence=confidence_of(spread.differential_pct, self._rules.divergence_pct),
            reasons=() if spread.net_bps > 0.0 else ("fees_above_funding",),
        )
        self._tracker.observe(key, here.at_ns, edge, assessment)

    def _lose_silent(self, at_ns: int) -> None:
        """Forget rates that were not heard of for too long, as of the moment when they became unknown."""
        for exchange, row in list(self._newest.items()):
            lost_ns = row.at_ns + self._rules.silence_ns
            if lost_ns < at_ns:
                del self._newest[exchange]
                for other in {key[1] for key in self._tracker.living} | {key[2] for key in self._tracker.living}:
                    self._expire_pair(exchange, other, lost_ns, FUNDING_LOST)

    def _expire_pair(self, first: str, second: str, at_ns: int, reason: str) -> None:
        self._expire((self._symbol, first, second), at_ns, reason)
        self._expire((self._symbol, second, first), at_ns, reason)

    def _expire(self, key: Key, at_ns: int, reason: str) -> None:
        life = self._tracker.expire(key, at_ns, reason)
        if life is not None:
            self._ended.append(life)
