"""Configs: what is refused and how it is said, hashing, and the coins that configs name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from mts_dagster.errors import ConfigError
from mts_dagster.strategies.buy_hold import BuyHoldConfig
from mts_dagster.strategies.config import (
    DEFAULT_ASSETS,
    StrategyConfig,
    Tunable,
    build_config,
    config_hash,
    configured_coins,
    load_config,
)
from mts_dagster.strategies.mean_reversion import MeanReversionConfig
from mts_dagster.strategies.vix_correlation import VixCorrelationConfig


class SampleConfig(StrategyConfig):
    threshold_pct: Annotated[float, Tunable(1.0, 9.0, 1.0)] = Field(5.0, gt=0, le=10, description="Percent.")
    window_days: int = Field(30, ge=1, description="Days.")
    side: Literal["both", "long_only"] = Field("both", description="What may be held.")
    compound: bool = Field(default=True, description="Whether gains are reinvested.")
    label: str = Field("", description="Shown in the UI.")


def refusal(folder: Path, content: str, model: type[StrategyConfig] = SampleConfig) -> str:
    path = folder / "sample.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, model)
    message = str(caught.value)
    assert message.startswith(f"config {path}: ")
    assert "\n" not in message
    return message.removeprefix(f"config {path}: ")


def test_values_of_a_file_are_taken_and_the_rest_is_default(tmp_path: Path) -> None:
    """A file may state any part of the fields."""
    path = tmp_path / "sample.json"
    path.write_text('{"assets": ["solana"], "threshold_pct": 7}')
    config = load_config(path, SampleConfig)
    assert (config.assets, config.threshold_pct, config.window_days) == (("solana",), 7.0, 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"threshold_pct": 0}', "field 'threshold_pct': got 0, allowed: a number > 0 and <= 10"),
        ('{"threshold_pct": "5"}', "field 'threshold_pct': got \"5\", allowed: a number > 0 and <= 10"),
        ('{"threshold_pct": true}', "field 'threshold_pct': got true, allowed: a number > 0 and <= 10"),
        ('{"threshold_pct": null}', "field 'threshold_pct': got null, allowed: a number > 0 and <= 10"),
        ('{"threshold_pct": NaN}', "field 'threshold_pct': got NaN, allowed: a number > 0 and <= 10"),
        ('{"window_days": 2.5}', "field 'window_days': got 2.5, allowed: a whole number >= 1"),
        ('{"side": "short"}', "field 'side': got \"short\", allowed: 'both', 'long_only'"),
        ('{"compound": "yes"}', "field 'compound': got \"yes\", allowed: true or false"),
        ('{"label": 3}', "field 'label': got 3, allowed: text"),
        (
            '{"assets": []}',
            "field 'assets': got [], allowed: a list of CoinGecko ids such as 'bitcoin', at least 1",
        ),
        (
            '{"assets": ["Bitcoin"]}',
            "field 'assets.0': got \"Bitcoin\", allowed: a list of CoinGecko ids such as 'bitcoin', at least 1",
        ),
        ('{"assets": ["bitcoin", "bitcoin"]}', "assets names bitcoin twice"),
        (
            '{"treshold_pct": 3}',
            (
                "unknown field 'treshold_pct' (value 3): did you mean 'threshold_pct'? "
                "allowed: assets, threshold_pct, window_days, side, compound, label"
            ),
        ),
        (
            '{"zzz": 3}',
            ("unknown field 'zzz' (value 3): allowed: assets, threshold_pct, window_days, side, compound, label"),
        ),
        ('{"window_days": 1, "window_days": 2}', "field 'window_days' is given twice"),
        ("[1]", "got [1], allowed: one JSON object of fields and values"),
        ('{"window_days": 1,}', "no valid JSON at line 1, column 19: "),
    ],
)
def test_a_wrong_config_is_refused_with_what_is_allowed(tmp_path: Path, content: str, message: str) -> None:
    """The error names the file, the field, what was given and what is allowed."""
    assert refusal(tmp_path, content).startswith(message)


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    """One error is enough to repair the whole file."""
    message = refusal(tmp_path, '{"threshold_pct": 11, "window_days": 0}')
    assert message == (
        "field 'threshold_pct': got 11, allowed: a number > 0 and <= 10; "
        "field 'window_days': got 0, allowed: a whole number >= 1"
    )


def test_fields_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """A rule over several fields speaks in its own words."""
    message = refusal(tmp_path, '{"vix_above": 30.0, "extreme_vix": 28.0}', MeanReversionConfig)
    assert message == "extreme_vix (28.0) must be above vix_above (30.0)"


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """The error tells which file to create."""
    with pytest.raises(ConfigError, match=r"config .*nothing\.json does not exist: create it"):
        load_config(tmp_path / "nothing.json", SampleConfig)


def test_a_file_that_is_no_text_is_a_config_error(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with the file's name."""
    path = tmp_path / "sample.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match=r"config .*sample\.json cannot be read"):
        load_config(path, SampleConfig)


def test_a_loaded_config_cannot_be_changed() -> None:
    """Configs are frozen."""
    with pytest.raises(ValueError, match="frozen"):
        SampleConfig().threshold_pct = 1.0  # type: ignore[misc]


def test_values_without_a_file_are_refused_the_same_way() -> None:
    """The config class stands where the file's name would."""
    with pytest.raises(ConfigError, match=r"SampleConfig: field 'window_days': got 0, allowed: a whole number >= 1"):
        build_config(SampleConfig, {"window_days": 0})


def test_the_hash_is_that_of_the_canonical_json() -> None:
    """The twelve digits that ``sha256sum`` begins with on the sorted JSON without blanks.

    ``{"assets":["bitcoin"],"high_risk_volatility_pct":80.0,"invested_fraction":1.0,"medium_risk_volatility_pct":50.0}``
    """
    assert config_hash(BuyHoldConfig(assets=("bitcoin",))) == "8b7ddddc4cfc"


def test_the_hash_knows_no_order_of_fields(tmp_path: Path) -> None:
    """The same values in another order or left at their default are the same config."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('{"long_below": -0.7, "short_above": 0.7}')
    second.write_text('{"short_above": 0.70, "max_position_size": 0.1, "long_below": -7e-1}')
    hashes = {config_hash(load_config(path, VixCorrelationConfig)) for path in (first, second)}
    assert len(hashes) == 1


def test_another_value_is_another_hash() -> None:
    """Any change of a value changes the hash."""
    assert config_hash(SampleConfig()) != config_hash(SampleConfig(window_days=31))


def test_configured_coins_are_those_of_all_files(tmp_path: Path) -> None:
    """The union, sorted; a file without assets stands for the default coins."""
    (tmp_path / "a.json").write_text('{"assets": ["solana", "bitcoin"], "whatever": 1}')
    (tmp_path / "b.json").write_text('{"assets": ["tether"]}')
    assert configured_coins(tmp_path) == ("bitcoin", "solana", "tether")
    (tmp_path / "c.json").write_text("{}")
    assert configured_coins(tmp_path) == tuple(sorted({*DEFAULT_ASSETS, "solana", "tether"}))


def test_configured_coins_of_several_folders(tmp_path: Path) -> None:
    """Strategies of one's own bring their own folder."""
    for folder, coin in (("ours", "bitcoin"), ("yours", "dogecoin")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(json.dumps({"assets": [coin]}))
    assert configured_coins(tmp_path / "ours", tmp_path / "yours") == ("bitcoin", "dogecoin")


def test_configured_coins_refuse_what_is_no_coin(tmp_path: Path) -> None:
    """A coin id becomes a partition key: only what can be one is taken."""
    (tmp_path / "a.json").write_text('{"assets": ["bit|coin"]}')
    with pytest.raises(ConfigError, match=r"a\.json: field 'assets\.0'"):
        configured_coins(tmp_path)


def test_delivered_configs_name_the_default_coins() -> None:
    """Bitcoin, ethereum and binancecoin."""
    folder = Path(__file__).resolve().parents[3] / "mts_dagster" / "strategies" / "configs"
    assert set(configured_coins(folder)) == set(DEFAULT_ASSETS)
