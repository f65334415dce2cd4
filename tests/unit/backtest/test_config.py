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
    ],
)
def test_a_wrong_field_is_named_with_file_and_allowed_values(text: str, words: str) -> None:
    """One line that tells a stranger what to change."""
    with pytest.raises(ConfigError, match=words):
        parse_assumptions(text, "costs.json")


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
