"""One portfolio from the signals of several strategies: who is heard, who wins, what the account may hold.

What belongs here: the vote, the limits of the portfolio and the record of which rule decided. Pure: rows in, rows
out, and the state of the portfolio is a value that is handed in and handed back.

For each day, in this order:

1. Vote. A strategy's vote is its weight times its confidence, for long or for short; flat is heard but votes for
   neither side. A hedged pair says nothing about the coin's direction, its weight is 0. The margin is the difference
   of the sides over their sum; below ``min_margin`` they cancel each other and the asset is flat. Otherwise the
   winners' mean size, weighted as their votes and scaled by the margin, is wanted.
2. Volatility. The size is reduced by target over realised volatility, never enlarged; unknown volatility is flat.
3. Position limit. No asset beyond ``max_position``.
4. Drawdown stop. Once the portfolio on paper is ``max_drawdown_pct`` below its peak, all is flat for
   ``drawdown_pause_days``; then the peak is counted anew.
5. Small changes of size are not worth a trade: the position stays.
6. Portfolio risk. If all positions together exceed ``max_portfolio_risk``, all are scaled by the same factor.
7. Trades. Beyond ``max_trades_per_day`` the least sure openings wait; reducing and closing always goes through.

The portfolio on paper grows by each position times the move of its price from decision to decision, without costs. It
serves the drawdown stop alone; what a portfolio would have earned is the backtest's to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, Final, TypeAlias

import pandas as pd
from pydantic import Field

from mts_dagster.errors import UsageError
from mts_dagster.strategies.config import StrategyConfig, config_hash

NAME: Final = "aggregate"
SIDES: Final = {"long": 1, "short": -1, "flat": 0}
DIRECTIONS: Final = {1: "long", -1: "short", 0: "flat"}
RISKS: Final = ("low", "medium", "high")
NEEDED: Final = (
    "date",
    "timestamp",
    "strategy",
    "asset",
    "direction",
    "confidence",
    "position_size",
    "risk_level",
    "price",
    "reason",
    "available_at",
)
SAME: Final = 1e-12  # sizes closer than this are equal


Weight: TypeAlias = Annotated[float, Field(ge=0)]  # one below would turn a vote for a side into one against it


class AggregationConfig(StrategyConfig):
    """How votes are weighed and what the portfolio may hold."""

    weights: dict[str, Weight] = Field(
        default_factory=dict, description="Weight of a strategy's vote by its name, 0 or more; 0 silences it."
    )
    default_weight: float = Field(1.0, ge=0, description="Weight of a strategy that ``weights`` does not name.")
    min_margin: float = Field(0.2, ge=0, le=1, description="Smaller majorities are flat, fraction of all votes.")
    max_position: float = Field(0.10, gt=0, le=1, description="Largest position, fraction of equity.")
    max_portfolio_risk: float = Field(
        0.25, gt=0, le=1, description="Largest sum of absolute positions, fraction of equity."
    )
    max_trades_per_day: int = Field(50, ge=0, description="Changes of position a day that open or add.")
    max_drawdown_pct: float = Field(20.0, gt=0, le=100, description="Fall from the peak that stops all, percent.")
    drawdown_pause_days: int = Field(30, ge=1, description="Days without positions after a drawdown stop.")
    target_volatility_pct: float = Field(
        50.0, gt=0, description="Annual volatility up to which a position keeps its size, percent."
    )
    rebalance_threshold: float = Field(
        0.005, ge=0, description="Smaller changes of size in the same direction are not traded, fraction of equity."
    )

    def weight(self, strategy: str) -> float:
        """Weight of a strategy's vote."""
        return self.weights.get(strategy, self.default_weight)


@dataclass(frozen=True)
class PortfolioState:
    """The portfolio on paper between two days.

    Attributes:
        positions: Signed fraction of equity by asset.
        prices: Price of the last decision by asset.
        equity: Growth from 1.
        peak: Highest equity since the last drawdown stop ended.
        stopped_until: First day on which positions are allowed again after a drawdown stop.
    """

    positions: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    equity: float = 1.0
    peak: float = 1.0
    stopped_until: pd.Timestamp | None = None

    @property
    def drawdown_pct(self) -> float:
        """How far equity is below its peak, percent."""
        return 100.0 * (1.0 - self.equity / self.peak)


@dataclass(frozen=True)
class Contribution:
    """A signal that was heard, with the weight of its strategy."""

    strategy: str
    direction: str
    confidence: float
    position_size: float
    risk_level: str
    reason: str
    weight: float

    @property
    def vote(self) -> float:
        """Weight times confidence, positive for long and negative for short."""
        return SIDES[self.direction] * self.weight * self.confidence


@dataclass(frozen=True)
class Choice:
    """What one asset is to hold, and by which rule.

    Attributes:
        asset: CoinGecko id.
        position: Signed fraction of equity.
        confidence: Net votes over the weight of all that were heard, 0..1.
        risk_level: Highest of the winners'.
        price: Close that was decided on; NaN if no strategy knew it.
        decided_by: The rule that had the last word.
        reason: In words, all that happened to the size.
        contributions: The signals that were heard.
    """

    asset: str
    position: float
    confidence: float
    risk_level: str
    price: float
    decided_by: str
    reason: str
    contributions: tuple[Contribution, ...]

    def held_at(self, position: float, rule: str, why: str) -> Choice:
        """Return the choice after a rule changed its position."""
        return replace(self, position=position, decided_by=rule, reason=f"{self.reason}; {why}")


def aggregate(
    signals: pd.DataFrame,
    volatility: pd.DataFrame,
    config: AggregationConfig,
    before: PortfolioState | None = None,
    *,
    hedged: Collection[str] = (),
) -> tuple[pd.DataFrame, PortfolioState]:
    """Make one decision for each day and asset out of all strategies' signals.

    Args:
        signals: ``TradingSignals`` of any strategies and days. Of several decisions of one strategy on one day and
            asset the last counts.
        volatility: ``date``, ``coin`` and ``volatility_30d_ann_pct`` of the same days, as in ``features_daily``.
        config: Weights and limits.
        before: The portfolio as the day before left it; empty if not given.
        hedged: Names of the strategies that hold hedged pairs (``Strategy.hedged``): heard, but without a vote.

    Returns:
        The decisions, one row for each day and asset that has a signal, and the portfolio afterwards. The rows have the
        columns of ``TradingSignals`` (strategy ``aggregate``), and ``decided_by``, ``contributions`` (JSON),
        ``paper_equity``, ``paper_peak`` and ``stopped_until``. All rows of a day carry the time at which its last
        contributing signal was known, since the limits tie the assets together.

    Raises:
        UsageError: a column is missing.
    """
    absent = [name for name in NEEDED if name not in signals.columns]
    if absent:
        raise UsageError(f"signals lack the columns {absent}; they have {list(signals.columns)}")
    heard = signals[signals["asset"].isin(config.assets)].sort_values(["date", "timestamp"], kind="stable")
    heard = heard.drop_duplicates(["date", "strategy", "asset"], keep="last")
    moves = volatility.set_index(["date", "coin"])["volatility_30d_ann_pct"].to_dict()
    state = before or PortfolioState()
    rows: list[dict[str, Any]] = []
    # Plain rows: years of decisions are replayed each day, and a frame for each day and asset would take a hundredfold.
    for day, group in groupby(heard.to_dict("records"), key=itemgetter("date")):
        said = sorted(group, key=itemgetter("asset"))
        votes = [vote(str(asset), list(part), config, hedged) for asset, part in groupby(said, key=itemgetter("asset"))]
        choices = [sized(choice, moves.get((day, choice.asset)), config) for choice in votes]
        state, choices = held(pd.Timestamp(str(day)), choices, state, config)
        known = {name: max(row[name] for row in said) for name in ("timestamp", "available_at")}
        rows += [row_of(choice, state, config) | {"date": day, **known} for choice in choices]
    return pd.DataFrame(rows, columns=list(COLUMNS)), state


COLUMNS: Final = (
    "date",
    "timestamp",
    "strategy",
    "asset",
    "direction",
    "confidence",
    "position_size",
    "risk_level",
    "price",
    "reason",
    "config_hash",
    "available_at",
    "decided_by",
    "contributions",
    "paper_equity",
    "paper_peak",
    "stopped_until",
)


def vote(
    asset: str, signals: Sequence[Mapping[Hashable, Any]], config: AggregationConfig, hedged: Collection[str] = ()
) -> Choice:
    """Weigh the signals on one asset, in the order of time; those of ``hedged`` strategies weigh nothing."""
    heard = tuple(
        Contribution(
            strategy=str(row["strategy"]),
            direction=str(row["direction"]),
            confidence=float(row["confidence"]),
            position_size=float(row["position_size"]),
            risk_level=str(row["risk_level"]),
            reason=str(row["reason"]),
            weight=0.0 if row["strategy"] in hedged else config.weight(str(row["strategy"])),
        )
        for row in sorted(signals, key=itemgetter("strategy"))
    )
    long = sum(item.vote for item in heard if item.vote > 0)
    short = -sum(item.vote for item in heard if item.vote < 0)
    cast = long + short
    margin = abs(long - short) / cast if cast > 0 else 0.0
    price = next((float(row["price"]) for row in reversed(signals) if row["price"] > 0), math.nan)
    said = f"{len(heard)} strategies, long {long:.2f} against short {short:.2f}"
    flat = Choice(asset, 0.0, 0.0, RISKS[0], price, "no_vote", said, heard)
    if cast == 0.0:
        return flat
    if margin < config.min_margin or long == short:
        return flat.held_at(0.0, "conflict", f"margin {margin:.2f} is below {config.min_margin:.2f}")
    side = 1 if long > short else -1
    winners = [item for item in heard if item.vote * side > 0]
    size = sum(abs(item.vote) * item.position_size for item in winners) / max(long, short) * margin
    return replace(
        flat,
        position=side * min(1.0, size),
        confidence=min(1.0, abs(long - short) / sum(item.weight for item in heard)),
        risk_level=max((item.risk_level for item in winners), key=RISKS.index),
        decided_by="vote",
    )


def sized(choice: Choice, volatility_pct: float | None, config: AggregationConfig) -> Choice:
    """Reduce a position for its volatility and cut it to the position limit."""
    if choice.position == 0.0:
        return choice
    if volatility_pct is None or not volatility_pct > 0:
        return choice.held_at(0.0, "volatility_unknown", "volatility is unknown, a position cannot be sized")
    scale = min(1.0, config.target_volatility_pct / volatility_pct)
    if scale < 1.0:
        why = f"volatility {volatility_pct:.0f} % scales by {scale:.2f}"
        choice = choice.held_at(choice.position * scale, "volatility", why)
    if abs(choice.position) > config.max_position + SAME:
        limited = math.copysign(config.max_position, choice.position)
        why = f"{abs(choice.position):.3f} exceeds the position limit of {config.max_position:.3f}"
        choice = choice.held_at(limited, "position_limit", why)
    return choice


def held(
    day: pd.Timestamp, choices: list[Choice], before: PortfolioState, config: AggregationConfig
) -> tuple[PortfolioState, list[Choice]]:
    """Apply the limits of the portfolio to one day's choices; return the portfolio afterwards and what it holds."""
    state = stopped(day, marked(before, choices), config)
    if state.stopped_until is not None:
        why = f"stopped by a drawdown of {config.max_drawdown_pct:.0f} % until {state.stopped_until:%Y-%m-%d}"
        choices = [choice.held_at(0.0, "drawdown_stop", why) for choice in choices + unasked(choices, state)]
    else:
        choices = within_risk(without_small_changes(choices, state, config), state, config)
        choices = limited_trades(choices, state, config)
    positions = {**state.positions, **{choice.asset: choice.position for choice in choices}}
    return replace(state, positions=positions), choices


def unasked(choices: list[Choice], state: PortfolioState) -> list[Choice]:
    """Return the positions on which no strategy said anything today, as they are."""
    asked = {choice.asset for choice in choices}
    return [
        Choice(asset, position, 0.0, RISKS[0], state.prices.get(asset, math.nan), "unchanged", "no signal today", ())
        for asset, position in sorted(state.positions.items())
        if asset not in asked and position != 0.0
    ]


def marked(state: PortfolioState, choices: list[Choice]) -> PortfolioState:
    """Let the portfolio grow by the moves of its prices since the last decision."""
    prices = {choice.asset: choice.price for choice in choices if choice.price > 0}
    growth = sum(
        position * (prices[asset] / state.prices[asset] - 1.0)
        for asset, position in state.positions.items()
        if asset in prices and asset in state.prices
    )
    equity = state.equity * (1.0 + growth)
    return replace(state, equity=equity, peak=max(state.peak, equity), prices={**state.prices, **prices})


def stopped(day: pd.Timestamp, state: PortfolioState, config: AggregationConfig) -> PortfolioState:
    """Begin a drawdown stop where the fall is deep enough, and end one whose pause is over."""
    if state.stopped_until is not None:
        if day < state.stopped_until:
            return state
        return replace(state, stopped_until=None, peak=state.equity)
    if state.drawdown_pct < config.max_drawdown_pct:
        return state
    return replace(state, stopped_until=day + pd.Timedelta(days=config.drawdown_pause_days))


def without_small_changes(choices: list[Choice], state: PortfolioState, config: AggregationConfig) -> list[Choice]:
    """Keep positions whose size would change by less than is worth a trade."""
    kept = []
    for choice in choices:
        now = state.positions.get(choice.asset, 0.0)
        change = abs(choice.position - now)
        small = now * choice.position > 0 and SAME < change <= config.rebalance_threshold
        if small and abs(now) <= config.max_position + SAME:
            kept.append(choice.held_at(now, "unchanged", f"a change of {change:.4f} is not worth a trade"))
        else:
            kept.append(choice)
    return kept


def within_risk(choices: list[Choice], state: PortfolioState, config: AggregationConfig) -> list[Choice]:
    """Scale all positions alike if they exceed the portfolio's risk, together with those that no signal is about."""
    carried = sum(abs(choice.position) for choice in unasked(choices, state))
    total = sum(abs(choice.position) for choice in choices)
    room = max(0.0, config.max_portfolio_risk - carried)
    if total <= room + SAME:
        return choices
    why = f"positions of {total + carried:.3f} exceed the portfolio's {config.max_portfolio_risk:.3f}"
    return [
        choice if choice.position == 0.0 else choice.held_at(choice.position * room / total, "portfolio_risk", why)
        for choice in choices
    ]


def limited_trades(choices: list[Choice], state: PortfolioState, config: AggregationConfig) -> list[Choice]:
    """Let the least sure openings wait when the day's trades are used up; a reversal then only closes."""
    trades = 0
    kept: dict[str, Choice] = {}
    for choice in sorted(choices, key=lambda item: (-item.confidence, item.asset)):
        now = state.positions.get(choice.asset, 0.0)
        adds = now * choice.position < 0 or abs(choice.position) > abs(now) + SAME
        if adds and trades >= config.max_trades_per_day:
            waits = now if now * choice.position > 0 else 0.0
            why = f"{config.max_trades_per_day} trades of the day are used up"
            kept[choice.asset] = choice.held_at(waits, "trade_limit", why)
        else:
            trades += adds
            kept[choice.asset] = choice
    return [kept[choice.asset] for choice in choices]


def row_of(choice: Choice, state: PortfolioState, config: AggregationConfig) -> dict[str, Any]:
    """Return a decision as a row, without the times of its day."""
    is_flat = choice.position == 0.0
    return {
        "strategy": NAME,
        "asset": choice.asset,
        "direction": DIRECTIONS[(choice.position > 0) - (choice.position < 0)],
        "confidence": 0.0 if is_flat else choice.confidence,
        "position_size": abs(choice.position),
        "risk_level": RISKS[0] if is_flat else choice.risk_level,
        "price": choice.price,
        "reason": f"{choice.decided_by}: {choice.reason}",
        "config_hash": config_hash(config),
        "decided_by": choice.decided_by,
        "contributions": json.dumps([vars(item) | {"vote": item.vote} for item in choice.contributions]),
        "paper_equity": state.equity,
        "paper_peak": state.peak,
        "stopped_until": state.stopped_until,
    }


def state_after(rows: pd.DataFrame) -> PortfolioState:
    """Return the portfolio that decisions of earlier days left, from their rows as ``aggregate`` returned them.

    An asset counts with its latest row, so the rows must reach back to the last decision on each asset that is held.
    """
    if rows.empty:
        return PortfolioState()
    latest = rows.sort_values("date", kind="stable").drop_duplicates("asset", keep="last")
    last = rows.sort_values("date", kind="stable").iloc[-1]
    until = last["stopped_until"]
    records = latest.to_dict("records")
    return PortfolioState(
        positions={str(r["asset"]): SIDES[str(r["direction"])] * float(r["position_size"]) for r in records},
        prices={str(r["asset"]): float(r["price"]) for r in records if r["price"] > 0},
        equity=float(last["paper_equity"]),
        peak=float(last["paper_peak"]),
        stopped_until=None if pd.isna(until) else pd.Timestamp(until),
    )
