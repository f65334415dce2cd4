"""Discovery of strategy files and their configs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mts_dagster.errors import MtsError, UsageError
from mts_dagster.settings import Settings, load_settings
from mts_dagster.strategies import load_strategies, load_strategy
from mts_dagster.strategies.registry import PACKAGE_FOLDER, load_aggregation

OWN = '''
from typing import Annotated

from pydantic import Field

from mts_dagster.strategies import FEATURES, Rule, Strategy, StrategyConfig, Tunable


class DipConfig(StrategyConfig):
    drawdown_above_pct: Annotated[float, Tunable(5.0, 40.0, 5.0)] = Field(20.0, ge=0, description="Percent.")


class Dip(Strategy[DipConfig]):
    """Long while a coin is well below its 90-day high."""

    name = "dip"

    def analyse(self, market):
        return market.table(FEATURES, ("date", "coin", "available_at", "close_usd", "drawdown_90d_pct"))

    def signals(self, analysis):
        deep = analysis["drawdown_90d_pct"] > self.config.drawdown_above_pct
        size = deep.astype("float64") * 0.1
        risk = deep.map({True: "medium", False: "low"})
        rule = Rule(deep, "long", "{drawdown_90d_pct:.0f} % down")
        return self.first_match(
            analysis, [rule], otherwise="not down", confidence=size, position_size=size, risk_level=risk
        )
'''


def with_folder(folder: Path, **overrides: object) -> Settings:
    return load_settings(strategy_folders=(str(folder),), **overrides)


def refusal(settings: Settings) -> str:
    with pytest.raises(MtsError) as caught:
        load_strategies(settings)
    return str(caught.value)


def test_a_strategy_of_ones_own_is_a_file_and_a_json_beside_it(tmp_path: Path) -> None:
    """It stands among the delivered ones, with the values of its JSON."""
    (tmp_path / "dip.py").write_text(OWN)
    (tmp_path / "dip.json").write_text('{"assets": ["solana"], "drawdown_above_pct": 30.0}')
    strategies = load_strategies(with_folder(tmp_path))
    assert list(strategies) == [
        "buy_hold",
        "dip",
        "funding_arbitrage",
        "market_structure",
        "mean_reversion",
        "momentum",
        "spread_arbitrage",
        "vix_correlation",
        "volume_spike",
    ]
    assert strategies["dip"].config.assets == ("solana",)
    assert strategies["dip"].parameters()[0].value == 30.0
    assert strategies["dip"].description == "Long while a coin is well below its 90-day high."


def test_the_config_folder_comes_before_the_file_beside(tmp_path: Path) -> None:
    """A config in the config folder wins over the one that came with the strategy."""
    configs, own = tmp_path / "configs", tmp_path / "own"
    configs.mkdir()
    own.mkdir()
    for path in (PACKAGE_FOLDER / "configs").glob("*.json"):
        (configs / path.name).write_text(path.read_text())
    (own / "dip.py").write_text(OWN)
    (own / "dip.json").write_text('{"assets": ["solana"]}')
    (configs / "dip.json").write_text('{"assets": ["tether"]}')
    assert load_strategy("dip", with_folder(own, strategy_config_folder=configs)).config.assets == ("tether",)


def test_files_with_an_underscore_are_left_alone(tmp_path: Path) -> None:
    """Helpers and drafts can lie beside a strategy."""
    (tmp_path / "_draft.py").write_text("this is no Python")
    assert "buy_hold" in load_strategies(with_folder(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import pandas\n\nclass Broken(:\n", "line 3: SyntaxError: "),
        ("import pandas\n\nvalue = 1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("import no_such_library\n", "line 1: ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    """A stranger sees which file and line to repair."""
    (tmp_path / "broken.py").write_text(content)
    expected = f"strategy file {tmp_path / 'broken.py'} cannot be loaded: {message}"
    assert refusal(with_folder(tmp_path)).startswith(expected)


def test_a_broken_file_is_read_again_once_repaired(tmp_path: Path) -> None:
    """A failed import leaves nothing behind."""
    (tmp_path / "dip.py").write_text("1 / 0")
    refusal(with_folder(tmp_path))
    (tmp_path / "dip.py").write_text(OWN)
    (tmp_path / "dip.json").write_text("{}")
    assert "dip" in load_strategies(with_folder(tmp_path))


def test_a_file_without_a_strategy_is_refused(tmp_path: Path) -> None:
    """An imported strategy does not count, nor does an unfinished one."""
    (tmp_path / "empty.py").write_text(
        "from mts_dagster.strategies import Strategy, StrategyConfig\n"
        "from mts_dagster.strategies.buy_hold import BuyHold\n"
        "class Unfinished(Strategy[StrategyConfig]):\n    name = 'unfinished'\n"
    )
    assert refusal(with_folder(tmp_path)) == (
        f"strategy file {tmp_path / 'empty.py'} defines no usable subclass of mts_dagster.strategies.Strategy: "
        "it needs one with the methods analyse and signals"
    )


def test_two_strategies_of_one_name_are_refused(tmp_path: Path) -> None:
    """Both files are named."""
    (tmp_path / "mine.py").write_text(OWN.replace('name = "dip"', 'name = "momentum"'))
    (tmp_path / "momentum.json").write_text("{}")
    assert refusal(with_folder(tmp_path)) == (
        f"two strategies have the name 'momentum': {PACKAGE_FOLDER / 'momentum.py'} and {tmp_path / 'mine.py'}; "
        "rename one"
    )


@pytest.mark.parametrize("name", ["Dip", "my dip", "", "9dip"])
def test_a_name_that_cannot_name_an_asset_is_refused(tmp_path: Path, name: str) -> None:
    """Names are snake case, since assets, tables and files are called so."""
    (tmp_path / "dip.py").write_text(OWN.replace('name = "dip"', f'name = "{name}"'))
    assert "strategy class Dip needs a name in snake case" in refusal(with_folder(tmp_path))


def test_a_strategy_without_its_config_class_is_refused(tmp_path: Path) -> None:
    """The type argument tells how to read the JSON."""
    (tmp_path / "dip.py").write_text(OWN.replace("Strategy[DipConfig]", "Strategy"))
    assert "strategy dip needs a config class: class Dip(Strategy[MyConfig])" in refusal(with_folder(tmp_path))


def test_a_strategy_without_a_json_is_refused(tmp_path: Path) -> None:
    """The file to create is named."""
    (tmp_path / "dip.py").write_text(OWN)
    path = PACKAGE_FOLDER / "configs" / "dip.json"
    assert refusal(with_folder(tmp_path)) == f"config {path} does not exist: create it"


def test_a_json_without_its_strategy_is_refused(tmp_path: Path) -> None:
    """A misspelt file name would otherwise be ignored silently."""
    (tmp_path / "momentun.json").write_text("{}")
    message = refusal(load_settings(strategy_config_folder=tmp_path, strategy_folders=()))
    assert message.startswith(
        f"config {tmp_path / 'momentun.json'}: there is no strategy 'momentun': did you mean 'momentum'? "
    )


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """The setting is named."""
    folder = tmp_path / "nowhere"
    assert refusal(with_folder(folder)) == f"setting MTS_STRATEGY_FOLDERS: {folder} is not a folder"


def test_an_unknown_strategy_is_a_usage_error() -> None:
    """The user is told what there is."""
    with pytest.raises(
        UsageError, match=r"there is no strategy 'momentm': did you mean 'momentum'\? allowed: buy_hold"
    ):
        load_strategy("momentm", load_settings(strategy_folders=()))


def test_a_wrong_config_of_a_strategy_is_refused(tmp_path: Path) -> None:
    """Loading strategies validates every config."""
    (tmp_path / "dip.py").write_text(OWN)
    (tmp_path / "dip.json").write_text('{"drawdown_above_pct": -1}')
    assert refusal(with_folder(tmp_path)).endswith("field 'drawdown_above_pct': got -1, allowed: a number >= 0")


def aggregation_refusal(folder: Path, content: str) -> str:
    """What is said about an ``aggregate.json`` beside a strategy ``dip`` of one's own."""
    (folder / "dip.py").write_text(OWN)
    (folder / "aggregate.json").write_text(content)
    with pytest.raises(MtsError) as refused:
        load_aggregation(with_folder(folder, strategy_config_folder=folder))
    return str(refused.value)


def test_a_weight_below_zero_is_refused(tmp_path: Path) -> None:
    """Weights of 1 and -1 would sum to nothing, by which a confidence is divided."""
    message = aggregation_refusal(tmp_path, '{"weights": {"dip": 1.0, "momentum": -1.0}}')
    assert message.endswith("field 'weights.momentum': got -1.0, allowed: a number >= 0 for each name")


def test_a_weight_of_a_strategy_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """The strategy that was meant would vote with the default weight."""
    message = aggregation_refusal(tmp_path, '{"weights": {"buyhold": 0.0}}')
    assert "aggregate.json: weights names 'buyhold': did you mean 'buy_hold'? allowed: " in message


def test_every_strategy_can_be_weighed(tmp_path: Path) -> None:
    """One's own, and those that hold hedged pairs, though they have no vote."""
    (tmp_path / "dip.py").write_text(OWN)
    (tmp_path / "aggregate.json").write_text('{"weights": {"dip": 2.0, "funding_arbitrage": 0.0}}')
    found = load_aggregation(with_folder(tmp_path, strategy_config_folder=tmp_path))
    assert found.weight("dip") == 2.0
