"""Assumptions: printable, comparable, and wrong ones refused with an exact message."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Venue, parse_assumptions
from mts_dagster.errors import ConfigError


def test_equal_assumptions_have_equal_hashes() -> None:
    """A hash from defaults and from the same values written out; another one for another fee."""
    written = Assumptions.model_validate_json(Assumptions().model_dump_json())
    assert written.config_hash() == Assumptions().config_hash()
    assert Assumptions(fills=Fills(slippage_bps=2.0)).config_hash() != Assumptions().config_hash()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fills": {"slippage_bps": -1}}', "costs.json: fills.slippage_bps: .*greater than or equal to 0.*-1"),
        ('{"fills": {"limit_fill": "maybe"}}', "'touch' or 'through'.*'maybe'"),
        ('{"slipage": 1}', "costs.json: slipage: Extra inputs"),
        ("{", "costs.json: .file.: Invalid JSON"),
        ('{"pessimism": {"fee_multiplier": Infinity}}', "pessimism.fee_multiplier: .*finite number.*inf"),
        ('{"pessimism": {"fee_multiplier": 1e400}}', "pessimism.fee_multiplier: .*finite number.*inf"),
        ('{"pessimism": {"fee_multiplier": 1e300}}', "pessimism.fee_multiplier: .*less than or equal to 100.*1e.300"),
        ('{"limits": {"max_position": NaN}}', "limits.max_position: .*finite number.*nan"),
        ('{"protection": {"take_profit_pct": Infinity}}', "protection.take_profit_pct: .*finite number.*inf"),
        ('{"fills": {"impact": 0.1}}', "costs.json: fills: impact 0.1 needs a max_volume_share"),
        (
            '{"fills": {"slippage_bps": 500}, "pessimism": {"slippage_multiplier": 20}}',
            "pessimism .*slippage_bps 10005 .*100 % .*lower slippage_multiplier",
        ),
        ('{"initial_capital_usd": "100"}', "initial_capital_usd: .*valid number.*'100'"),
        ('{"fills": {"slippage_bps": true}}', "fills.slippage_bps: .*valid number.*True"),
        ('{"limits": {"max_trades_per_day": 5.0}}', "limits.max_trades_per_day: .*valid integer.*5.0"),
        ('{"strict": "yes"}', "strict: .*valid boolean.*'yes'"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_allowed_values(text: str, words: str) -> None:
    """One line that tells a stranger what to change."""
    with pytest.raises(ConfigError, match=words):
        parse_assumptions(text, "costs.json")


def test_whole_numbers_in_a_file_are_numbers() -> None:
    """Who writes 100000 means 100000.0."""
    terms = parse_assumptions('{"initial_capital_usd": 5000, "limits": {"max_leverage": 2}}', "costs.json")
    assert (terms.initial_capital_usd, terms.limits.max_leverage) == (5000.0, 2.0)


def test_assumptions_cannot_change() -> None:
    """They are part of a result."""
    with pytest.raises(ValidationError):
        Assumptions().strict = True  # type: ignore[misc]  # that it is refused is the point


def test_an_unknown_venue_is_named() -> None:
    """The message names venue and asset and the venues there are."""
    terms = Assumptions(instruments={"bitcoin": InstrumentRules(venue="mtgox")})
    with pytest.raises(ConfigError, match=r"'mtgox' of 'bitcoin'.*binance_usdm"):
        terms.venue("bitcoin")


def test_a_rebate_is_gone_in_the_pessimistic_variant() -> None:
    """Minus one basis point becomes zero, not minus one and a half."""
    terms = Assumptions(venues={"v": Venue(maker_fee_bps=-1.0, taker_fee_bps=4.0, kind="perpetual")})
    worse = terms.pessimistic().venues["v"]
    assert (worse.maker_fee_bps, worse.taker_fee_bps) == (0.0, 6.0)


def test_the_pessimistic_variant_needs_a_trade_through_and_gives_no_gap() -> None:
    """Limits fill later, gaps at the limit, half of the volume."""
    worse = Assumptions(fills=Fills(max_volume_share=0.1)).pessimistic().fills
    assert (worse.limit_fill, worse.gap_price, worse.max_volume_share) == ("through", "limit", 0.05)
