"""Detection on live books: the analytics applied to each event as it happens.

What belongs here: which measure of which market is compared with what, and when a signal is raised. The measures
are ``analytics``'; times come with the events, so a recording raises the same signals as the live stream.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mts_realtime.analytics.anomalies import RollingScore, trend_per_minute
from mts_realtime.analytics.arbitrage import BOOK_LOST, EDGE_GONE, Limits, Side, judge, paying_ratio
from mts_realtime.analytics.funding import HOUR_MS, FundingQuote, compare, quote_of
from mts_realtime.analytics.microstructure import imbalance_of_totals, spread_bps
from mts_realtime.analytics.opportunities import NS_PER_MS, Change, Opportunity, OpportunityTracker
from mts_realtime.analytics.signals import Signal, SignalGate, SignalKind, confidence_of, strength_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mts_realtime.book import OrderBook
    from mts_realtime.events import FundingUpdate, Instrument, Levels, TickerUpdate
    from mts_realtime.settings import RealtimeSettings

HOUR_NS = HOUR_MS * NS_PER_MS

SMALLEST_EDGE_BPS = 1.0
"""Threshold against which an arbitrage signal is graded when the configured least edge is smaller."""


class Market:
    """One instrument on one exchange: what is known of it right now.

    Attributes:
        instrument: Which.
        taker_fee_bps: Fee there.
        book: Its book while it is LIVE.
        funding: Newest funding while it is known.
        funding_hours: Its interval.
        ticker: Newest ticker while it is known.
        legs: Markets of the same symbol on other exchanges.
    """

    __slots__ = (
        "book",
        "funding",
        "funding_hours",
        "instrument",
        "legs",
        "spread_score",
        "taker_fee_bps",
        "ticker",
        "turnover_before",
        "volume_score",
    )

    def __init__(self, instrument: Instrument, taker_fee_bps: float, window: int) -> None:
        self.instrument = instrument
        self.taker_fee_bps = taker_fee_bps
        self.book: OrderBook | None = None
        self.funding: FundingUpdate | None = None
        self.funding_hours: float | None = None
        self.ticker: TickerUpdate | None = None
        self.legs: list[Leg] = []
        self.spread_score = RollingScore(window)
        self.volume_score = RollingScore(window)
        self.turnover_before = math.nan


class Leg:
    """The other side of a pair, with what a price there has to be for the pair to pay."""

    __slots__ = ("buy_here", "buy_ratio", "other", "sell_here", "sell_ratio")

    def __init__(self, here: Market, other: Market, min_net_bps: float) -> None:
        symbol = here.instrument.symbol
        self.other = other
        self.sell_here = (symbol, other.instrument.exchange, here.instrument.exchange)
        self.buy_here = (symbol, here.instrument.exchange, other.instrument.exchange)
        self.sell_ratio = paying_ratio(other.taker_fee_bps, here.taker_fee_bps, min_net_bps)
        self.buy_ratio = paying_ratio(here.taker_fee_bps, other.taker_fee_bps, min_net_bps)


def limits_of(settings: RealtimeSettings) -> Limits:
    """What the settings allow."""
    return Limits(
        min_net_bps=settings.arbitrage_min_net_bps,
        max_notional_usd=settings.arbitrage_max_notional_usd,
        max_age_ms=settings.arbitrage_max_age_ms,
        max_skew_ms=settings.arbitrage_max_skew_ms,
    )


class Detector:
    """Watches all markets. Signals and ended opportunities go to the callables given."""

    def __init__(
        self,
        settings: RealtimeSettings,
        on_signal: Callable[[Signal], None],
        on_opportunity: Callable[[Change, Opportunity], None],
    ) -> None:
        self._settings = settings
        self._on_signal = on_signal
        self._on_opportunity = on_opportunity
        self._ttl_ns = round(settings.signal_ttl_s * 1e9)
        self._limits = limits_of(settings)
        self._gate = SignalGate()
        self.markets: dict[tuple[str, str], Market] = {}
        self.tracker = OpportunityTracker()

    @property
    def signals_raised(self) -> dict[SignalKind, int]:
        """Signals that went out, by kind."""
        return self._gate.passed

    def market(self, instrument: Instrument, taker_fee_bps: float) -> Market:
        """The market of an instrument, paired with its siblings on first sight."""
        key = (instrument.exchange, instrument.symbol)
        market = self.markets.get(key)
        if market is None:
            market = self.markets[key] = Market(instrument, taker_fee_bps, self._settings.signal_window)
            for (exchange, symbol), other in self.markets.items():
                if symbol == instrument.symbol and exchange != instrument.exchange:
                    market.legs.append(Leg(market, other, self._limits.min_net_bps))
                    other.legs.append(Leg(other, market, self._limits.min_net_bps))
        return market

    def on_book(self, market: Market, at_ns: int) -> None:
        """A LIVE book changed. Two comparisons a pair while there is nothing to see."""
        book = market.book
        if book is None:
            return
        living = self.tracker.living
        for leg in market.legs:
            other = leg.other.book
            if other is None:
                continue
            if book.best_bid > other.best_ask * leg.sell_ratio:
                self._seen(leg.sell_here, leg.other, market, at_ns)
            elif leg.sell_here in living:
                self._gone(leg.sell_here, at_ns, EDGE_GONE)
            if other.best_bid > book.best_ask * leg.buy_ratio:
                self._seen(leg.buy_here, market, leg.other, at_ns)
            elif leg.buy_here in living:
                self._gone(leg.buy_here, at_ns, EDGE_GONE)

    def on_book_lost(self, market: Market, at_ns: int) -> None:
        """The book is not LIVE any more."""
        market.book = None
        for leg in market.legs:
            self._gone(leg.sell_here, at_ns, BOOK_LOST)
            self._gone(leg.buy_here, at_ns, BOOK_LOST)

    def on_tick(self, at_ns: int) -> None:
        """Time passed without events: opportunities on books that nobody updates are over."""
        for key, living in list(self.tracker.living.items()):
            books = [self.markets[exchange, living.symbol].book for exchange in key[1:]]
            ages_ms = [(at_ns - book.received_ns) / NS_PER_MS for book in books if book is not None]
            if max(ages_ms, default=math.inf) > self._limits.max_age_ms:
                self._gone(key, at_ns, "book_too_old")

    def on_book_sample(self, market: Market, grid_ns: int, bids: Levels, asks: Levels) -> None:
        """A book was sampled: compare its spread with its past, and its two sides."""
        if not bids or not asks:
            return
        spread = spread_bps(bids[0][0], asks[0][0])
        past = market.spread_score
        score = past.push(spread)
        if score >= self._settings.spread_anomaly_z:
            values = np.array(past.values)
            times_s = np.arange(len(values)) * self._settings.sample_interval_s
            detail = {"spread_bps": spread, "trend_bps_per_minute": trend_per_minute(times_s, values)}
            self._measure(
                SignalKind.SPREAD_ANOMALY, market, grid_ns, score, self._settings.spread_anomaly_z, "z", detail
            )
        balance = imbalance_of_totals(sum(size for _, size in bids), sum(size for _, size in asks))
        if abs(balance) >= self._settings.imbalance_threshold:
            self._measure(
                SignalKind.ORDER_BOOK_IMBALANCE,
                market,
                grid_ns,
                balance,
                self._settings.imbalance_threshold,
                "ratio",
                {"levels": float(max(len(bids), len(asks)))},
            )

    def on_ticker_sample(self, market: Market, grid_ns: int, ticker: TickerUpdate) -> None:
        """A ticker was sampled: compare the turnover since the sample before with its past."""
        flow = max(ticker.turnover_24h_quote - market.turnover_before, 0.0)
        first = math.isnan(market.turnover_before)
        market.turnover_before = ticker.turnover_24h_quote
        if first:
            return
        score = market.volume_score.push(flow)
        if score >= self._settings.volume_spike_z:
            detail = {"turnover_usd": flow, "last_price": ticker.last_price}
            self._measure(SignalKind.VOLUME_SPIKE, market, grid_ns, score, self._settings.volume_spike_z, "z", detail)

    def on_funding(self, market: Market) -> None:
        """Funding of a market is known or changed: compare it with the same symbol elsewhere."""
        here = _quote(market)
        if here is None or market.funding is None:
            return
        at_ns = market.funding.received_ns
        for leg in market.legs:
            there = _quote(leg.other)
            if there is None:
                continue
            spread = compare(here, there, self._settings.funding_holding_hours)
            coming_ns = round(min(here.hours_to_settlement, there.hours_to_settlement) * HOUR_NS)
            if spread.differential_pct < self._settings.funding_divergence_pct:
                continue
            self._raise(
                SignalKind.FUNDING_DIVERGENCE,
                market.instrument.symbol,
                (spread.long_exchange, spread.short_exchange),
                at_ns,
                spread.differential_pct,
                self._settings.funding_divergence_pct,
                "pct_per_year",
                {
                    "holding_hours": self._settings.funding_holding_hours,
                    "net_bps": spread.net_bps,
                    "fees_bps": spread.fees_bps,
                    "break_even_hours": spread.break_even_hours,
                },
                life_ns=max(coming_ns, self._ttl_ns),  # rates change slowly: one signal until the next settlement
            )

    def _seen(self, key: tuple[str, str, str], buy: Market, sell: Market, at_ns: int) -> None:
        """The tops of two books pay: walk them, judge, track, and raise a signal when it is news."""
        bought, sold = buy.book, sell.book
        if bought is None or sold is None:
            return
        levels = self._settings.sample_levels
        verdict = judge(
            _side(buy, bought, bought.top(levels)[1], at_ns),
            _side(sell, sold, sold.top(levels)[0], at_ns),
            self._limits,
        )
        if isinstance(verdict, str):
            self._gone(key, at_ns, verdict)
            return
        edge, assessment = verdict
        change, opportunity = self.tracker.observe(key, at_ns, edge, assessment)
        self._on_opportunity(change, opportunity)
        self._raise(
            SignalKind.ARBITRAGE,
            key[0],
            key[1:],
            at_ns,
            edge.net_bps,
            max(self._limits.min_net_bps, SMALLEST_EDGE_BPS),
            "bps",
            {
                "net_usd": edge.net_usd,
                "size_base": edge.size_base,
                "buy_price": edge.buy_price,
                "sell_price": edge.sell_price,
            },
            assessment.confidence,
        )

    def _gone(self, key: tuple[str, str, str], at_ns: int, reason: str) -> None:
        ended = self.tracker.expire(key, at_ns, reason)
        if ended is not None:
            self._on_opportunity(Change.EXPIRED, ended)

    def expire_all(self, at_ns: int) -> None:
        """The sidecar ends: so do all opportunities."""
        for key in list(self.tracker.living):
            self._gone(key, at_ns, "stopped")

    def _measure(
        self,
        kind: SignalKind,
        market: Market,
        at_ns: int,
        value: float,
        threshold: float,
        unit: str,
        detail: dict[str, float],
    ) -> None:
        instrument = market.instrument
        self._raise(kind, instrument.symbol, (instrument.exchange,), at_ns, value, threshold, unit, detail)

    def _raise(
        self,
        kind: SignalKind,
        symbol: str,
        exchanges: Iterable[str],
        at_ns: int,
        value: float,
        threshold: float,
        unit: str,
        detail: dict[str, float],
        confidence: float | None = None,
        life_ns: int | None = None,
    ) -> None:
        signal = Signal(
            kind=kind,
            symbol=symbol,
            exchanges=tuple(exchanges),
            at_ns=at_ns,
            expires_ns=at_ns + (self._ttl_ns if life_ns is None else life_ns),
            value=value,
            threshold=threshold,
            unit=unit,
            strength=strength_of(value, threshold),
            confidence=confidence_of(value, threshold) if confidence is None else confidence,
            detail=dict(detail),
        )
        if self._gate.admit(signal):
            self._on_signal(signal)


def _side(market: Market, book: OrderBook, levels: Levels, at_ns: int) -> Side:
    """One side of the market's book as it is now."""
    return Side(
        prices=[price for price, _ in levels],
        sizes=[size for _, size in levels],
        fee_bps=market.taker_fee_bps,
        age_ms=(at_ns - book.received_ns) / NS_PER_MS,
        exchange_time_ms=book.exchange_time_ms,
        min_size_base=market.instrument.min_size,
        min_notional_usd=market.instrument.min_notional,
    )


def _quote(market: Market) -> FundingQuote | None:
    """The market's funding as one side of a comparison; ``None`` while something of it is unknown."""
    funding = market.funding
    if funding is None:
        return None
    return quote_of(
        market.instrument.exchange,
        rate=funding.funding_rate,
        interval_hours=market.funding_hours,
        next_funding_ms=funding.next_funding_ms,
        exchange_time_ms=funding.exchange_time_ms,
        taker_fee_bps=market.taker_fee_bps,
    )
