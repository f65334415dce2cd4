"""Every assumption of a backtest in words, for tear sheets and terminals alike.

What belongs here: text. What an assumption does is told where it is declared, in ``config``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions


def assumed(terms: Assumptions, assets: Sequence[str]) -> list[tuple[str, str]]:
    """Return every assumption that matters to a run over ``assets``: what it is about, and how it is."""
    fills, limits, worse, protection = terms.fills, terms.limits, terms.pessimism, terms.protection
    exits = {
        "stop-loss": protection.stop_loss_pct,
        "take-profit": protection.take_profit_pct,
        "trailing stop": protection.trailing_stop_pct,
    }
    slippage = f"x {worse.slippage_multiplier:g} + {worse.extra_slippage_bps:g} bps"
    share = "any share" if fills.max_volume_share is None else f"at most {fills.max_volume_share:.0%}"
    trades = "any number of" if limits.max_trades_per_day is None else str(limits.max_trades_per_day)
    return [
        ("capital", f"{terms.initial_capital_usd:,.2f} USD"),
        *((f"fees of {name}", fees) for name, fees in _fees(terms, assets).items()),
        ("slippage", f"{fills.slippage_bps:g} bps of each fill that takes, impact {fills.impact:g} x share squared"),
        ("fills", f"decided on a close, filled at the next open; {share} of a bar's volume"),
        ("resting orders", f"filled on {fills.limit_fill}; a gap fills at the {fills.gap_price}"),
        ("limits", f"position {limits.max_position:.0%}, leverage {limits.max_leverage:g}, {trades} trades a day"),
        (
            "margin",
            f"liquidated at {limits.maintenance_margin_pct:g} % of notional, {limits.liquidation_fee_bps:g} bps fee",
        ),
        ("changes", f"smaller than {terms.rebalance_threshold:.2%} of equity are not traded"),
        ("exits", ", ".join(f"{name} {value:g} %" for name, value in exits.items() if value) or "none but signals"),
        ("pessimistic", f"fees x {worse.fee_multiplier:g}, slippage {slippage}, resting orders need a trade through"),
        ("gaps in the data", "refused" if terms.strict else "declared"),
    ]


def _fees(terms: Assumptions, assets: Sequence[str]) -> dict[str, str]:
    """Return fees, funding and steps of each venue that is traded."""
    found: dict[str, str] = {}
    for asset in assets:
        name, venue = terms.instrument(asset).venue, terms.venue(asset)
        funding = "funding at every settlement" if venue.kind == "perpetual" else "no funding"
        steps = terms.instrument(asset)
        rules = f"lot {steps.lot_size:g}, tick {steps.tick_size:g}, at least {steps.min_notional_usd:g} USD"
        fees = f"maker {venue.maker_fee_bps:g} bps, taker {venue.taker_fee_bps:g} bps, {venue.kind}, {funding}"
        found[name if terms.default_instrument == steps else f"{name} ({asset})"] = f"{fees}; {rules}"
    return found
