"""The numbers of a tear sheet, with their definitions.

What belongs here: pure arithmetic on the reduced equity curve, the trades and the costs. Returns are from bar
close to bar close, the risk-free rate is zero, and a year has 365 days of 24 hours, since crypto never
closes.

Sources:
    Bailey, D. and López de Prado, M. (2012), "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2):
    the probabilistic Sharpe ratio.
    Bailey, D. and López de Prado, M. (2014), "The Deflated Sharpe Ratio: Correcting for Selection Bias,
    Backtest Overfitting and Non-Normality", Journal of Portfolio Management 40(5): the expected maximum over
    trials. Sortino, F. and van der Meer, R. (1991), "Downside risk", Journal of Portfolio Management 17(4):
    downside deviation over all periods, target zero.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mts_dagster.backtest.layout import FloatArray

YEAR_NS: Final = 365 * 86_400_000_000_000
DAY_NS: Final = 86_400_000_000_000
HOUR_NS: Final = 3_600_000_000_000
EULER_GAMMA: Final = 0.5772156649015329
LARGEST_EXPONENT: Final = 700.0
NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Trials:
    """How many parameter sets were really tried, and how far their Sharpe ratios spread.

    Attributes:
        count: Backtests run, this one included.
        sharpe_variance: Variance of their Sharpe ratios per bar (not annualised).
    """

    count: int = 1
    sharpe_variance: float = 0.0

    @classmethod
    def of(cls, sharpes_per_bar: Sequence[float] | FloatArray) -> Trials:
        """Count trials from the Sharpe ratio per bar of each."""
        values = np.asarray(sharpes_per_bar, dtype=np.float64)
        usable = values[np.isfinite(values)]
        return cls(len(values), float(np.var(usable, ddof=1)) if len(usable) > 1 else 0.0)


@dataclass(frozen=True)
class Metrics:
    """What a run achieved. NaN where a number has no meaning (no trade, no variance, a single bar).

    Attributes:
        bars: Bars from the first to the last mark.
        periods_per_year: Bars in a year of 365 days.
        start_equity_usd: Capital at the start.
        end_equity_usd: Equity at the last close, open positions at their mark.
        total_return_pct: Growth over the whole time.
        annual_return_pct: The same growth a year, compounded.
        volatility_pct: Standard deviation of the returns, annualised.
        sharpe: Mean over standard deviation of the returns, annualised.
        sortino: Mean over downside deviation, annualised.
        calmar: Annual return over deepest drawdown.
        max_drawdown_pct: Deepest fall from a peak at closes.
        max_drawdown_days: Longest time under a former peak.
        trades: Closed trades.
        win_rate_pct: Closed trades with a profit after all costs.
        profit_factor: Profits over losses of closed trades.
        expectancy_usd: Mean result of a closed trade after all costs.
        average_trade_hours: Mean time from opening to closing.
        turnover_per_year: Traded notional over mean equity, a year.
        exposure_pct: Bars at whose close a position was held, of all but the first: its close is the first to be
            decided on, so that nothing can be held there.
        average_gross_pct: Mean sum of absolute positions over equity.
        commission_usd: Fees paid.
        slippage_usd: Cost of the distance between fills and reference prices; contained in the fills already.
        funding_usd: Funding received less paid.
        buy_hold_return_pct: Growth of equal shares in all assets of the run, untouched and without costs.
        buy_hold_correlation: Correlation of the returns with that.
        probabilistic_sharpe: Probability that the true Sharpe ratio is above zero.
        deflated_sharpe: Probability that it is above what the best of ``trials`` worthless strategies would
            show.
        trials: Backtests that were run to find this one.
    """

    bars: int
    periods_per_year: float
    start_equity_usd: float
    end_equity_usd: float
    total_return_pct: float
    annual_return_pct: float
    volatility_pct: float
    sharpe: float
    sortino: float
    calmar: float
    max_drawdown_pct: float
    max_drawdown_days: float
    trades: int
    win_rate_pct: float
    profit_factor: float
    expectancy_usd: float
    average_trade_hours: float
    turnover_per_year: float
    exposure_pct: float
    average_gross_pct: float
    commission_usd: float
    slippage_usd: float
    funding_usd: float
    buy_hold_return_pct: float
    buy_hold_correlation: float
    probabilistic_sharpe: float
    deflated_sharpe: float
    trials: int

    def as_dict(self) -> dict[str, float]:
        """Return name and value of each metric."""
        return asdict(self)


def ratio(numerator: float, denominator: float) -> float:
    """Return a quotient, NaN where the denominator is zero."""
    return numerator / denominator if denominator else math.nan


def sharpe_per_bar(moments: np.void) -> float:
    """Return mean over standard deviation of the returns from bar to bar."""
    return ratio(float(moments["mean"]), math.sqrt(float(moments["variance"])))


def expected_maximum_sharpe(trials: Trials) -> float:
    """Return the Sharpe ratio per bar that the best of that many worthless trials is expected to show.

    Bailey and López de Prado (2014), equation 1, under the hypothesis that the true Sharpe ratio is zero.
    """
    if trials.count < 2:  # noqa: PLR2004 - a single trial selects nothing
        return 0.0
    first = NORMAL.inv_cdf(1.0 - 1.0 / trials.count)
    second = NORMAL.inv_cdf(1.0 - 1.0 / (trials.count * math.e))
    return math.sqrt(trials.sharpe_variance) * ((1.0 - EULER_GAMMA) * first + EULER_GAMMA * second)


def probabilistic_sharpe(moments: np.void, threshold: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio per bar is above ``threshold``.

    Bailey and López de Prado (2012): accounts for the number of returns, their skewness and kurtosis.
    """
    sharpe = sharpe_per_bar(moments)
    skewness, kurtosis = float(moments["skewness"]), float(moments["kurtosis"])
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    if math.isnan(sharpe) or spread <= 0.0:
        return math.nan
    return NORMAL.cdf((sharpe - threshold) * math.sqrt((int(moments["count"]) - 1) / spread))


def compounded(growth: float, years: float) -> float:
    """Return the growth a year as a fraction; short runs can overflow, which is infinite, no time gives NaN."""
    if years == 0.0:
        return math.nan
    if growth <= 0.0:
        return -1.0
    exponent = math.log(growth) / years
    return math.expm1(exponent) if exponent < LARGEST_EXPONENT else math.inf


@dataclass(frozen=True)
class Growth:
    """The part of the metrics that the equity curve alone tells; all that a sweep needs of a trial."""

    total_return_pct: float
    annual_return_pct: float
    volatility_pct: float
    sharpe: float
    sortino: float
    calmar: float
    max_drawdown_pct: float
    max_drawdown_days: float


def growth_of(moments: np.void, interval_ns: int) -> Growth:
    """Return the metrics of an equity curve from its moments (dtype ``layout.MOMENTS``)."""
    periods = YEAR_NS / interval_ns
    growth = float(moments["last"] / moments["first"])
    years = int(moments["count"]) / periods
    annual = compounded(growth, years)
    drawdown = float(moments["drawdown"])
    return Growth(
        total_return_pct=100.0 * (growth - 1.0),
        annual_return_pct=100.0 * annual,
        volatility_pct=100.0 * math.sqrt(float(moments["variance"]) * periods),
        sharpe=sharpe_per_bar(moments) * math.sqrt(periods),
        sortino=ratio(float(moments["mean"]), math.sqrt(float(moments["downside"]))) * math.sqrt(periods),
        calmar=ratio(annual, drawdown),
        max_drawdown_pct=100.0 * drawdown,
        max_drawdown_days=int(moments["drawdown_bars"]) * interval_ns / DAY_NS,
    )


def metrics_of(
    moments: np.void,
    totals: np.void,
    trades: NDArray[np.void],
    *,
    interval_ns: int,
    buy_hold_return: float,
    buy_hold_correlation: float,
    trials: Trials,
) -> Metrics:
    """Put the metrics of a run together.

    Args:
        moments: Reduced equity curve (dtype ``layout.MOMENTS``).
        totals: Sums over the log (dtype ``layout.TOTALS``).
        trades: Trades (dtype ``layout.TRADE``).
        interval_ns: Length of a bar.
        buy_hold_return: Growth of equal shares in all assets, as a fraction.
        buy_hold_correlation: Correlation of the returns with theirs.
        trials: How many backtests were run to find this one.
    """
    growth = growth_of(moments, interval_ns)
    closed = trades[trades["closed_bar"] >= 0]
    pnl = closed["pnl"]
    bars = int(moments["count"]) + 1
    years = int(moments["count"]) * interval_ns / YEAR_NS
    held_bars = float((closed["closed_bar"] - closed["opened_bar"]).sum())
    return Metrics(
        bars=bars,
        periods_per_year=YEAR_NS / interval_ns,
        start_equity_usd=float(moments["first"]),
        end_equity_usd=float(moments["last"]),
        **asdict(growth),
        trades=len(closed),
        win_rate_pct=100.0 * ratio(float((pnl > 0).sum()), len(closed)),
        profit_factor=ratio(float(pnl[pnl > 0].sum()), -float(pnl[pnl < 0].sum())),
        expectancy_usd=ratio(float(pnl.sum()), len(closed)),
        average_trade_hours=ratio(held_bars * interval_ns / HOUR_NS, len(closed)),
        turnover_per_year=ratio(float(totals["traded"]), float(moments["mean_equity"]) * years),
        exposure_pct=100.0 * int(totals["exposed_bars"]) / max(1, bars - 1),
        average_gross_pct=100.0 * float(totals["mean_gross"]),
        commission_usd=float(totals["commission"]),
        slippage_usd=float(totals["slippage"]),
        funding_usd=float(totals["funding"]),
        buy_hold_return_pct=100.0 * buy_hold_return,
        buy_hold_correlation=buy_hold_correlation,
        probabilistic_sharpe=probabilistic_sharpe(moments),
        deflated_sharpe=probabilistic_sharpe(moments, expected_maximum_sharpe(trials)),
        trials=trials.count,
    )
