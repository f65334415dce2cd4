"""The interface of a strategy: analyse the market, turn the analysis into signals, tell the parameters.

What belongs here: the abstract class, the rule table that turns conditions into decisions, and parameters. Running
a strategy honestly over a window is ``decisions.decide``; finding and configuring strategies is ``registry``.

A strategy is causal by contract: what it says about a row depends on that row, on rows of earlier periods and on
rows of the same period, all within ``lookback_days``. It knows no clock, no file and no Dagster.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, get_args, get_origin

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray

from mts_dagster.strategies.config import ConfigT, StrategyConfig, Tunable, build_config, config_hash
from mts_dagster.strategies.errors import StrategyError
from mts_dagster.strategies.market import Market

Direction = Literal["long", "short", "flat"]

Numbers: TypeAlias = "pd.Series[float] | npt.NDArray[np.float64]"

FEATURES = "features_daily"
ANALYSIS_COLUMNS = ("date", "coin", "available_at", "close_usd")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Parameter:
    """A tunable value of a strategy's config.

    Attributes:
        name: field of the config.
        value: what it is now.
        low: smallest value worth trying, inclusive.
        high: largest value worth trying, inclusive.
        step: distance of two neighbours in a grid.
        integer: whether only whole numbers make sense.
        description: meaning and unit.
    """

    name: str
    value: float
    low: float
    high: float
    step: float
    integer: bool
    description: str


@dataclass(frozen=True)
class Rule:
    """One row of a rule table: the first rule whose condition holds decides.

    Attributes:
        when: a truth value for each row of the analysis; null counts as false.
        direction: what to hold if this rule decides.
        reason: why, as a format string over the analysis' columns and ``config``, e.g.
            ``"VIX {vix:.1f} above {config.vix_above:.1f}"``.
    """

    when: pd.Series[bool]
    direction: Direction
    reason: str


class Strategy(ABC, Generic[ConfigT]):
    """Base of all strategies: ``class Mine(Strategy[MineConfig])`` in one file, with ``mine.json`` as its config.

    Attributes:
        name: unique, in snake case; also the name of its asset and of its JSON file.
        inputs: tables of the lake that it reads.
        hedged: whether a position is a pair of equal and opposite legs, and so no bet on the coin's price: ``long``
            means that the pair is held, its legs stand in the reason, and ``short`` is not allowed. Such decisions
            have no vote on the coin's direction (``aggregate``), and a backtest that trades the coin alone must
            refuse them.
        config_type: class of its config, taken from the type argument.
        config: the validated config.
        worded: whether signals have reasons. ``first_match`` leaves the column out while parameters are searched:
            wording takes longer than deciding, and nobody reads the reasons of thousands of sets.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = (FEATURES,)
    hedged: ClassVar[bool] = False
    config_type: ClassVar[type[StrategyConfig]]

    def __init__(self, config: ConfigT) -> None:
        if not isinstance(config, self.config_type):
            raise StrategyError(
                f"strategy {self.name} takes a {self.config_type.__name__}, got a {type(config).__name__}"
            )
        self.config: ConfigT = config
        self.worded = True

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - handed through
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            argument = get_args(base)[0] if get_origin(base) and get_args(base) else None
            if isinstance(argument, type) and issubclass(argument, StrategyConfig):
                cls.config_type = argument
        if inspect.isabstract(cls):
            return
        if not _NAME.fullmatch(getattr(cls, "name", "")):
            raise StrategyError(f"strategy class {cls.__name__} needs a name in snake case, e.g. name = 'my_strategy'")
        if not hasattr(cls, "config_type"):
            raise StrategyError(f"strategy {cls.name} needs a config class: class {cls.__name__}(Strategy[MyConfig])")

    @property
    def description(self) -> str:
        """First line of the class docstring: what the strategy does."""
        return (inspect.getdoc(type(self)) or self.name).splitlines()[0]

    @property
    def config_hash(self) -> str:
        """Twelve digits that change whenever a value of the config changes."""
        return config_hash(self.config)

    @property
    def lookback_days(self) -> int:
        """Days of input before the first decision day; nothing older may change a decision."""
        return 0

    @abstractmethod
    def analyse(self, market: Market) -> pd.DataFrame:
        """Compute the indicators, one row for each decision to make.

        Returns:
            A frame with at least ``date`` (day decided on), ``coin``, ``available_at`` (when the decision is
            possible) and ``close_usd``, and the indicators that the rules use.
        """

    @abstractmethod
    def signals(self, analysis: pd.DataFrame) -> pd.DataFrame:
        """Decide: one row of ``TradingSignals`` for each row of the analysis, flat ones included."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Tunable values with their bounds: the config fields marked ``Tunable``."""
        return tuple(
            Parameter(
                name=name,
                value=getattr(self.config, name),
                low=mark.low,
                high=mark.high,
                step=mark.step,
                integer=field.annotation is int,
                description=field.description or "",
            )
            for name, field in self.config_type.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Tunable)
        )

    def tuned(self, values: Mapping[str, float]) -> Self:
        """The same strategy with some parameters changed; 20.0 is a whole number here, and so is a numpy 20.

        Raises:
            ConfigError: a value is not allowed, or there is no such parameter.
        """
        integers = {parameter.name for parameter in self.parameters() if parameter.integer}
        exact = {
            name: int(value) if name in integers and float(value).is_integer() else value
            for name, value in values.items()
        }
        return type(self)(build_config(type(self.config), {**self.config.model_dump(), **exact}))

    def first_match(
        self,
        analysis: pd.DataFrame,
        rules: Sequence[Rule],
        *,
        otherwise: str,
        confidence: Numbers,
        position_size: Numbers,
        risk_level: pd.Series[str],
    ) -> pd.DataFrame:
        """Turn a rule table into signals.

        A row without a close is flat before any rule is asked. Flat rows carry confidence 0, size 0 and low risk.

        Args:
            analysis: at least the columns that ``analyse`` promises.
            rules: asked in order, the first whose condition holds decides.
            otherwise: reason of a flat row that no rule decides, a format string like ``Rule.reason``.
            confidence: 0..1 for each row, used where it is not flat.
            position_size: fraction of equity for each row, used where it is not flat.
            risk_level: low, medium or high for each row, used where it is not flat.

        Returns:
            ``TradingSignals``, in the order of the analysis.
        """
        flat_first = Rule(analysis["close_usd"].isna(), "flat", "no close price on {date:%Y-%m-%d}")
        flat_last = Rule(pd.Series(data=True, index=analysis.index), "flat", otherwise)
        table = (flat_first, *rules, flat_last)
        chosen = np.array([_truth(rule.when) for rule in table]).argmax(axis=0)
        direction = pd.array([rule.direction for rule in table], dtype="str").take(chosen)
        flat = np.array([rule.direction == "flat" for rule in table])[chosen]
        risk = risk_level.astype("str").array.copy()
        risk[flat] = "low"
        # Arrays, since a search decides thousands of times, and columns that bring an index take twice as long.
        columns = {
            "date": analysis["date"].array,
            "timestamp": analysis["available_at"].array,
            "strategy": _repeated(self.name, len(analysis)),
            "asset": analysis["coin"].array,
            "direction": direction,
            "confidence": np.where(flat, 0.0, confidence),
            "position_size": np.where(flat, 0.0, position_size),
            "risk_level": risk,
            "price": analysis["close_usd"].array,
            **({"reason": self._reasons(table, analysis, chosen)} if self.worded else {}),
            "config_hash": _repeated(self.config_hash, len(analysis)),
            "available_at": analysis["available_at"].array,
        }
        return pd.DataFrame(columns, index=analysis.index, copy=False)

    def _reasons(
        self, table: Sequence[Rule], analysis: pd.DataFrame, chosen: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.object_]:
        """Why each row is decided as it is."""
        reasons = np.empty(len(analysis), dtype=object)
        for position, rule in enumerate(table):
            where = chosen == position
            if where.any():
                reasons[where] = self._filled(rule.reason, analysis, where)
        return reasons

    def _filled(self, template: str, analysis: pd.DataFrame, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
        """Fill a reason for each row of ``where``; only the columns that it names are touched."""
        fields = {re.split(r"[.\[]", field)[0] for _, field, _, _ in Formatter().parse(template) if field}
        names = sorted(fields & set(analysis.columns))
        columns = [analysis[name][where].tolist() for name in names]
        values = zip(*columns, strict=True) if names else ((),) * int(where.sum())
        texts = [template.format(config=self.config, **dict(zip(names, row, strict=True))) for row in values]
        return np.array(texts, dtype=object)


def _truth(when: pd.Series[bool]) -> npt.NDArray[np.bool_]:
    """A condition's values, null as false."""
    return when.to_numpy() if when.dtype == np.bool_ else when.to_numpy(dtype=np.bool_, na_value=False)


def _repeated(text: str, rows: int) -> ExtensionArray:
    """A column with the same text in each row, taken from one value: quicker than made of many."""
    return pd.array([text], dtype="str").take(np.zeros(rows, np.intp))
