"""Every assumption of a backtest, typed, frozen and printable: fees, fills, instruments, limits, margin.

What belongs here: the models that a user writes in JSON or Python, their defaults and their bounds. What does
not: how a rule works (``rules.py`` and its neighbours) and anything compiled, so that reading a config costs
    no import of
numba.

Two results are comparable only under the same assumptions, therefore ``Assumptions.config_hash`` is stored
with each run, and ``Assumptions.pessimistic`` gives the second, worse set under which every run is repeated.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mts_dagster.errors import ConfigError

Bps = Annotated[float, Field(ge=0, le=1_000)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Multiplier = Annotated[float, Field(ge=1, le=100)]

BPS: Final = 1e-4
PCT: Final = 1e-2


class Frozen(BaseModel):
    """Unknown fields, text for numbers, NaN and infinity are an error, values never change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Venue(Frozen):
    """What a venue charges, and whether its contracts pay funding.

    Attributes:
        maker_fee_bps: Fee on a resting order, basis points of the notional; negative is a rebate.
        taker_fee_bps: Fee on an order that takes liquidity, basis points of the notional.
        kind: ``spot`` cannot be sold short and pays no funding, ``perpetual`` can and does.
    """

    maker_fee_bps: Annotated[float, Field(ge=-100, le=1_000)]
    taker_fee_bps: Bps
    kind: Literal["spot", "perpetual"]


# Public fee tables of the entry tier, without token discounts. A user's own tier belongs in their config.
VENUES: Final[dict[str, Venue]] = {
    "binance_spot": Venue(maker_fee_bps=10.0, taker_fee_bps=10.0, kind="spot"),
    "binance_usdm": Venue(maker_fee_bps=2.0, taker_fee_bps=5.0, kind="perpetual"),
    "bybit_linear": Venue(maker_fee_bps=2.0, taker_fee_bps=5.5, kind="perpetual"),
}


class InstrumentRules(Frozen):
    """The steps and the smallest order of one instrument.

    Attributes:
        venue: Name of an entry in ``Assumptions.venues``.
        lot_size: Quantity step in base units; 0 means any quantity.
        tick_size: Price step in quote units; 0 means any price.
        min_notional_usd: Smaller orders are rejected, except one that closes the whole position.
    """

    venue: str = "binance_usdm"
    lot_size: Annotated[float, Field(ge=0)] = 0.0
    tick_size: Annotated[float, Field(ge=0)] = 0.0
    min_notional_usd: Annotated[float, Field(ge=0)] = 0.0


class Fills(Frozen):
    """How far a fill is from the price on the chart.

    Attributes:
        slippage_bps: Adverse distance of every fill that takes liquidity.
        max_volume_share: Largest share of a bar's base volume that fills of one asset may take; the rest of
            the order waits for the next bar. ``None`` means unlimited.
        impact: Further adverse distance as a fraction of the price, times the square of the share that a fill
            takes of the bar's volume (the volume share model known from Zipline). It needs a
            ``max_volume_share``: without one a sale larger than the bar's volume could get less than nothing.
        limit_fill: ``touch`` fills a limit order when the bar reaches its price, ``through`` only when it
            trades beyond.
        decision_delay_s: A decision that was possible this long after a close still fills at that open, since
            data take a moment to arrive; at most a tenth of a bar. A later one waits for the next open.
        gap_price: Where a resting limit or take-profit fills when the bar opens beyond it: at the better
            ``open`` or at its own price (``limit``).
    """

    slippage_bps: Bps = 1.0
    max_volume_share: Annotated[float, Field(gt=0, le=1)] | None = None
    impact: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    limit_fill: Literal["touch", "through"] = "touch"
    gap_price: Literal["open", "limit"] = "open"
    decision_delay_s: Annotated[float, Field(ge=0, le=3_600)] = 300.0

    @model_validator(mode="after")
    def _impact_is_bounded(self) -> Self:
        if self.impact > 0.0 and self.max_volume_share is None:
            raise ValueError(f"impact {self.impact:g} needs a max_volume_share above 0 and at most 1, such as 0.1")
        return self

    def largest_distance_rate(self) -> float:
        """Return how far from the price a fill can be at most, as a fraction of the price."""
        return self.slippage_bps * BPS + self.impact * (self.max_volume_share or 0.0) ** 2


class Limits(Frozen):
    """What the account may do.

    Attributes:
        max_position: Largest position of one asset when an order is accepted, as a fraction of equity.
        max_trades_per_day: Accepted orders a UTC day that open or add to a position. ``None`` means
            unlimited. Closing is always allowed.
        max_leverage: Largest sum of absolute positions when a fill adds to it, as a multiple of equity.
        maintenance_margin_pct: Positions are liquidated when equity falls to this share of their notional.
        liquidation_fee_bps: Charged on a liquidation, on top of the taker fee.
    """

    max_position: Annotated[float, Field(gt=0, le=125)] = 1.0
    max_trades_per_day: Annotated[int, Field(ge=0)] | None = None
    max_leverage: Annotated[float, Field(gt=0, le=125)] = 1.0
    maintenance_margin_pct: Annotated[float, Field(ge=0, lt=100)] = 0.5
    liquidation_fee_bps: Bps = 50.0


class Protection(Frozen):
    """Exits attached to a position, in percent of its entry price, if any.

    In ``Assumptions`` they are those of every position that a signal opens; an order of a strategy brings its
    own, within the same bounds. A short never reaches a take-profit of 100 and more, as no price falls below
    zero.
    """

    stop_loss_pct: Percent | None = None
    take_profit_pct: Annotated[float, Field(gt=0)] | None = None
    trailing_stop_pct: Percent | None = None

    def rates(self) -> tuple[float, float, float]:
        """Return stop-loss, take-profit and trailing stop as fractions, 0 for none."""
        percents = (self.stop_loss_pct, self.take_profit_pct, self.trailing_stop_pct)
        stop_loss, take_profit, trailing = (0.0 if percent is None else percent * PCT for percent in percents)
        return stop_loss, take_profit, trailing


class Pessimism(Frozen):
    """How much worse the second run is. Limit orders then need a trade through and gaps give nothing away.

    The multipliers are bounded, since at costs beyond any market nothing can be bought and a run that trades
    nothing looks better than one that loses.
    """

    fee_multiplier: Multiplier = 1.5
    slippage_multiplier: Multiplier = 2.0
    extra_slippage_bps: Bps = 5.0
    volume_share_multiplier: Annotated[float, Field(gt=0, le=1)] = 0.5


class Assumptions(Frozen):
    """The whole of what a backtest takes for granted.

    Attributes:
        initial_capital_usd: Cash at the start, in the quote currency.
        venues: Fee schedules by name; entries add to or replace ``VENUES``.
        instruments: Rules by asset; an asset that is not named here follows ``default_instrument``.
        rebalance_threshold: A signal that repeats the direction of the last accepted one trades only if its
            position size differs by more than this fraction of equity.
        strict: Refuse to run over uncovered bars, late bars or missing funding settlements instead of
            declaring them.
    """

    initial_capital_usd: Annotated[float, Field(gt=0)] = 100_000.0
    venues: dict[str, Venue] = Field(default_factory=dict)
    default_instrument: InstrumentRules = InstrumentRules()
    instruments: dict[str, InstrumentRules] = Field(default_factory=dict)
    fills: Fills = Fills()
    limits: Limits = Limits()
    protection: Protection = Protection()
    pessimism: Pessimism = Pessimism()
    rebalance_threshold: Annotated[float, Field(ge=0)] = 0.0
    strict: bool = False

    @model_validator(mode="after")
    def _pessimistic_sales_get_something(self) -> Self:
        worse = self.pessimistic().fills
        if worse.largest_distance_rate() >= 1.0:
            raise ValueError(
                f"pessimism leads to slippage_bps {worse.slippage_bps:g} and impact {worse.impact:g}, fills 100 % "
                "and more from the price: lower slippage_multiplier or extra_slippage_bps"
            )
        return self

    def instrument(self, asset: str) -> InstrumentRules:
        """Return the rules of ``asset``."""
        return self.instruments.get(asset, self.default_instrument)

    def venue(self, asset: str) -> Venue:
        """Return the venue where ``asset`` trades.

        Raises:
            ConfigError: the instrument names a venue without a fee schedule.
        """
        name = self.instrument(asset).venue
        venue = self.venues.get(name) or VENUES.get(name)
        if venue is None:
            known = sorted(VENUES | self.venues)
            raise ConfigError(f"no fees for venue {name!r} of {asset!r}: add it to 'venues' or use {known}")
        return venue

    def pessimistic(self) -> Assumptions:
        """Return the same run under worse fills and higher costs."""
        worse = self.pessimism
        fills = self.fills.model_copy(
            update={
                "slippage_bps": self.fills.slippage_bps * worse.slippage_multiplier + worse.extra_slippage_bps,
                "impact": min(0.5, self.fills.impact * worse.slippage_multiplier),
                "max_volume_share": self.fills.max_volume_share
                and self.fills.max_volume_share * worse.volume_share_multiplier,
                "limit_fill": "through",
                "gap_price": "limit",
            }
        )
        venues = {
            name: venue.model_copy(
                update={
                    "maker_fee_bps": max(venue.maker_fee_bps, 0.0) * worse.fee_multiplier,
                    "taker_fee_bps": venue.taker_fee_bps * worse.fee_multiplier,
                }
            )
            for name, venue in (VENUES | self.venues).items()
        }
        return self.model_copy(update={"fills": fills, "venues": venues})

    def config_hash(self) -> str:
        """Return a short digest that is equal exactly for equal assumptions."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_assumptions(text: str, origin: str) -> Assumptions:
    """Read assumptions from JSON text; ``origin`` is the file name that an error should show.

    Raises:
        ConfigError: the text is not JSON or a field is wrong; the message names file, field and allowed
            values.
    """
    try:
        return Assumptions.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_mistake(error)}") from error


def first_mistake(error: ValidationError) -> str:
    """Return the first wrong field, what is allowed there and what was given, in one line."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "(file)"
    if first["type"] == "value_error":  # of several fields together: our own words name them
        return f"{field}: {first['ctx']['error']}"
    return f"{field}: {first['msg']}, got {first.get('input')!r}"
