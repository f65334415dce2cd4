"""Contracts of the backtest tables: what was assumed, what came of it, and every event on the way.

What belongs here: the shape and meaning of stored results, as in ``schemas`` for everything else. A run is found by
``run_id`` in all of them. Each run is there twice: as assumed (``base``) and under worse costs (``pessimistic``).
Money is in the quote currency, taken as USD. A metric that has no meaning (no trade, no variance) is null.
"""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from mts_dagster.schemas import TableSchema, Utc, number_column, table, text_column, utc_column

SCHEMA = "backtests"
VARIANTS = ["base", "pessimistic"]
RUN_ID = "Name of the run: strategy and year for a fold, strategy and a digest of its inputs for a single run."
VARIANT = "base: as assumed. pessimistic: worse fills and higher costs."
SNAPSHOT = "Snapshot of the lake that everything was read from."
CODE = "Version of the package, and a digest of the engine's and the strategies' source."
KEPT_JSON = "JSON, enough to run it again."


@table(schema=SCHEMA, key=("run_id", "variant"), time_column=None)
class BacktestRuns(TableSchema):
    """One row for each run and variant: assumptions, metrics, coverage of the input, and the books."""

    run_id: Series[str] = text_column(RUN_ID)
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    kind: Series[str] = text_column(
        "fold: a year of a strategy, replaced when its partition is computed again. single: asked for by a person.",
        one_of=["fold", "single"],
    )
    fold_year: Series[pd.Int64Dtype] = number_column("Year of a fold.", unit="calendar year", nullable=True)
    strategy: Series[str] = text_column("Name of the strategy; aggregate is the portfolio of all.")  # type: ignore[assignment]  # hides pandera's test-data method on purpose
    created_at: Series[Utc] = utc_column("When it was computed.")
    window_start: Series[Utc] = utc_column("First open that could be traded.")
    window_end: Series[Utc] = utc_column("End of what was asked for, exclusive.")
    started_at: Series[Utc] = utc_column("Close of the first bar; it may be the bar before the window.")
    ended_at: Series[Utc] = utc_column("Close of the last bar.")
    assets: Series[str] = text_column("Traded assets, JSON list of CoinGecko ids.")
    assets_without_bars: Series[str] = text_column("Assets of the config that had no bar and were left out, JSON list.")
    interval_s: Series[int] = number_column("Length of a bar.", unit="s", gt=0)
    lake_snapshot: Series[int] = number_column(SNAPSHOT, unit="1", ge=0)
    code_version: Series[str] = text_column(CODE)
    strategy_config: Series[str] = text_column(f"Configuration of the strategy, {KEPT_JSON}")
    config_hash: Series[str] = text_column("SHA-256 of the assumptions, first 16 digits.")
    assumptions: Series[str] = text_column(f"Fees, fills, limits, venues, {KEPT_JSON}")
    bars: Series[int] = number_column("Bars from the first to the last mark.", unit="1", ge=0)
    periods_per_year: Series[float] = number_column("Bars in a year of 365 days.", unit="1", gt=0)
    start_equity_usd: Series[float] = number_column("Capital at the start.", unit="usd", gt=0)
    end_equity_usd: Series[float] = number_column("Equity at the last close.", unit="usd")
    total_return_pct: Series[float] = number_column("Growth over the whole time.", unit="percent")
    annual_return_pct: Series[float] = number_column("The same a year, compounded.", unit="percent", nullable=True)
    volatility_pct: Series[float] = number_column("Annual deviation of the returns.", unit="percent", nullable=True)
    sharpe: Series[float] = number_column("Mean over deviation of returns.", unit="annualised ratio", nullable=True)
    sortino: Series[float] = number_column("Mean over downside deviation.", unit="annualised ratio", nullable=True)
    calmar: Series[float] = number_column("Annual return over deepest drawdown.", unit="ratio", nullable=True)
    max_drawdown_pct: Series[float] = number_column("Deepest fall from a peak at closes.", unit="percent")
    max_drawdown_days: Series[float] = number_column("Longest time under a former peak.", unit="days")
    trades: Series[int] = number_column("Closed trades.", unit="1", ge=0)
    win_rate_pct: Series[float] = number_column("Closed trades with a profit.", unit="percent", nullable=True)
    profit_factor: Series[float] = number_column("Profits over losses.", unit="ratio", nullable=True)
    expectancy_usd: Series[float] = number_column("Mean result of a closed trade.", unit="usd", nullable=True)
    average_trade_hours: Series[float] = number_column("Mean time in a trade.", unit="hours", nullable=True)
    turnover_per_year: Series[float] = number_column("Traded notional.", unit="mean equities a year", nullable=True)
    exposure_pct: Series[float] = number_column("Bars after the first with a position at the close.", unit="percent")
    average_gross_pct: Series[float] = number_column("Mean sum of positions.", unit="percent of equity", nullable=True)
    commission_usd: Series[float] = number_column("Fees paid.", unit="usd")
    slippage_usd: Series[float] = number_column("Distance of fills from their reference price.", unit="usd")
    funding_usd: Series[float] = number_column("Funding received less paid.", unit="usd")
    buy_hold_return_pct: Series[float] = number_column("Equal shares held without costs.", unit="percent")
    buy_hold_correlation: Series[float] = number_column("Correlation to that.", unit="-1..1", nullable=True)
    probabilistic_sharpe: Series[float] = number_column("P(true Sharpe > 0).", unit="0..1", nullable=True)
    deflated_sharpe: Series[float] = number_column(
        "P(true Sharpe > the best of as many worthless trials).", unit="0..1", nullable=True
    )
    trials: Series[int] = number_column("Backtests that were run to find this one.", unit="1", ge=1)
    trials_sharpe_variance: Series[float] = number_column("Of their Sharpe ratios a bar.", unit="1", ge=0)
    waiting_orders: Series[int] = number_column("Orders still waiting at the end.", unit="1", ge=0)
    signals_outside: Series[int] = number_column("Signals outside the bars, not traded.", unit="1", ge=0)
    undecided_days: Series[int] = number_column("Days of an asset with a bar but no decision.", unit="1", ge=0)
    coverage_complete: Series[bool] = pa.Field(description="Whether no bar and no funding settlement was missing.")
    coverage: Series[str] = text_column("What was missing, in words.")
    missing_bars: Series[int] = number_column("Bars that should have been there.", unit="1", ge=0)
    late_bars: Series[int] = number_column("Bars known only after the whole next one.", unit="1", ge=0)
    missing_settlements: Series[int] = number_column("Funding settlements missing.", unit="1", ge=0)
    cash_difference_usd: Series[float] = number_column("Start + fills + fees + funding - end.", unit="usd")
    equity_difference_usd: Series[float] = number_column("Cash + positions - equity.", unit="usd")


@table(schema=SCHEMA, key=("run_id", "variant", "timestamp"), time_column=None)
class BacktestEquity(TableSchema):
    """Equity, cash and exposure at every close of a run."""

    run_id: Series[str] = text_column(RUN_ID)
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    timestamp: Series[Utc] = utc_column("Close of the bar.")
    equity_usd: Series[float] = number_column("Cash and positions at their mark.", unit="usd")
    cash_usd: Series[float] = number_column("Cash.", unit="usd")
    gross_usd: Series[float] = number_column("Sum of absolute positions.", unit="usd", ge=0)
    drawdown_pct: Series[float] = number_column("Fall from the highest close so far.", unit="percent")
    buy_hold_usd: Series[float] = number_column("Equal shares in all assets, held without costs.", unit="usd")


@table(schema=SCHEMA, key=("run_id", "variant", "seq"), time_column=None)
class BacktestFills(TableSchema):
    """Every fill of a run, with its costs."""

    run_id: Series[str] = text_column(RUN_ID)
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    seq: Series[int] = number_column("Place in the event log.", unit="1", ge=0)
    bar_open_time: Series[Utc] = utc_column("Open of the bar in which it happened.")
    asset: Series[str] = text_column("CoinGecko id.")
    order_id: Series[pd.Int64Dtype] = number_column("Order; null for the engine's own.", unit="1", nullable=True)
    side: Series[str] = text_column("Of the fill.", one_of=["buy", "sell"])
    reason: Series[str] = text_column("Why the order was placed.")
    quantity: Series[float] = number_column("Signed amount.", unit="coin")
    price_usd: Series[float] = number_column("Price after slippage.", unit="usd", gt=0)
    notional_usd: Series[float] = number_column("Absolute value.", unit="usd", ge=0)
    fee_usd: Series[float] = number_column("Fee; a rebate is negative.", unit="usd")
    slippage_usd: Series[float] = number_column("Cost of the distance from the reference price.", unit="usd")
    cash_usd: Series[float] = number_column("Change of cash.", unit="usd")
    balance_usd: Series[float] = number_column("Cash afterwards.", unit="usd")


@table(schema=SCHEMA, key=("run_id", "variant", "trade"), time_column=None)
class BacktestTrades(TableSchema):
    """Every trade of a run from its opening to its closing; one still open exits at the last mark."""

    run_id: Series[str] = text_column(RUN_ID)
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    trade: Series[int] = number_column("Number within the run.", unit="1", ge=0)
    asset: Series[str] = text_column("CoinGecko id.")
    side: Series[str] = text_column("Direction.", one_of=["long", "short"])
    opened_at: Series[Utc] = utc_column("Open of the bar of the first fill.")
    closed_at: Series[Utc] = utc_column("Open of the bar of the last fill; null while open.", nullable=True)
    is_open: Series[bool] = pa.Field(description="Whether it was still open at the end.")
    exit_reason: Series[str] = text_column("Why it was closed; empty while open.")
    quantity: Series[float] = number_column("Largest amount.", unit="coin")
    entry_price_usd: Series[float] = number_column("Average price of the opening fills.", unit="usd")
    exit_price_usd: Series[float] = number_column("Average price of the closing fills.", unit="usd")
    fees_usd: Series[float] = number_column("Fees of its fills.", unit="usd")
    slippage_usd: Series[float] = number_column("Slippage of its fills.", unit="usd")
    funding_usd: Series[float] = number_column("Funding received less paid.", unit="usd")
    pnl_usd: Series[float] = number_column("Result after all costs.", unit="usd")
    return_pct: Series[float] = number_column("Result over what was put in.", unit="percent")
    fills: Series[int] = number_column("Fills.", unit="1", ge=1)


@table(schema=SCHEMA, key=("run_id", "variant", "seq"), time_column=None)
class BacktestEvents(TableSchema):
    """The event log of a run: signals, orders, fills, cancels, rejects, funding, triggers, margin calls."""

    run_id: Series[str] = text_column(RUN_ID)
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    seq: Series[int] = number_column("Order of events.", unit="1", ge=0)
    timestamp: Series[Utc] = utc_column("Close of the bar for decisions, its open for what happened in it.")
    bar_open_time: Series[Utc] = utc_column("Open of the bar.")
    kind: Series[str] = text_column("What happened.")
    reason: Series[str] = text_column("Why.")
    asset: Series[str] = text_column("CoinGecko id.")
    order_id: Series[pd.Int64Dtype] = number_column("Order; null for the engine's own.", unit="1", nullable=True)
    quantity: Series[float] = number_column(
        "Signed amount; of a signal the target.", unit="coin, or fraction of equity", nullable=True
    )
    price_usd: Series[float] = number_column("Price, if there is one.", unit="usd", nullable=True)
    fee_usd: Series[float] = number_column("Fee.", unit="usd")
    slippage_usd: Series[float] = number_column("Slippage.", unit="usd")
    cash_usd: Series[float] = number_column("Change of cash.", unit="usd")
    balance_usd: Series[float] = number_column("Cash afterwards.", unit="usd")


@table(schema=SCHEMA, key=("strategy", "variant"), time_column=None)
class BacktestSummary(TableSchema):
    """The yearly folds of a strategy joined by their growth, one row for each strategy and variant."""

    strategy: Series[str] = text_column("Name of the strategy.")  # type: ignore[assignment]  # as above
    variant: Series[str] = text_column(VARIANT, one_of=VARIANTS)
    first_year: Series[int] = number_column("Year of the first fold.", unit="calendar year")
    last_year: Series[int] = number_column("Year of the last fold.", unit="calendar year")
    folds: Series[int] = number_column("Folds joined.", unit="1", ge=1)
    started_at: Series[Utc] = utc_column("First close.")
    ended_at: Series[Utc] = utc_column("Last close.")
    total_return_pct: Series[float] = number_column("Growth over all folds.", unit="percent")
    annual_return_pct: Series[float] = number_column("The same a year, compounded.", unit="percent", nullable=True)
    volatility_pct: Series[float] = number_column("Annual deviation of the returns.", unit="percent", nullable=True)
    sharpe: Series[float] = number_column("Mean over deviation of returns.", unit="annualised ratio", nullable=True)
    sortino: Series[float] = number_column("Mean over downside deviation.", unit="annualised ratio", nullable=True)
    calmar: Series[float] = number_column("Annual return over deepest drawdown.", unit="ratio", nullable=True)
    max_drawdown_pct: Series[float] = number_column("Deepest fall from a peak at closes.", unit="percent")
    max_drawdown_days: Series[float] = number_column("Longest time under a former peak.", unit="days")
    trades: Series[int] = number_column("Closed trades.", unit="1", ge=0)
    commission_usd: Series[float] = number_column("Fees paid in all folds.", unit="usd")
    slippage_usd: Series[float] = number_column("Slippage in all folds.", unit="usd")
    funding_usd: Series[float] = number_column("Funding received less paid in all folds.", unit="usd")
    buy_hold_return_pct: Series[float] = number_column("Equal shares, each fold anew, no costs.", unit="percent")
    missing_bars: Series[int] = number_column("Bars that should have been there.", unit="1", ge=0)
    missing_settlements: Series[int] = number_column("Funding settlements missing.", unit="1", ge=0)
    undecided_days: Series[int] = number_column("Days of an asset with a bar but no decision.", unit="1", ge=0)
    code_version: Series[str] = text_column(f"{CODE} Several are listed.")


@table(schema=SCHEMA, key=("strategy", "fold"), time_column=None)
class WalkForward(TableSchema):
    """Parameters chosen on the past and judged on what came after, one row for each strategy and fold."""

    strategy: Series[str] = text_column("Name of the strategy.")  # type: ignore[assignment]  # as above
    fold: Series[int] = number_column("Number in the order of time.", unit="1", ge=0)
    train_start: Series[Utc] = utc_column("First bar that the choice saw.")
    train_end: Series[Utc] = utc_column("End of what it saw, exclusive.")
    test_start: Series[Utc] = utc_column("First bar that judged it; the bars between are purged.")
    test_end: Series[Utc] = utc_column("End of what judged it, exclusive.")
    parameters: Series[str] = text_column("What was chosen, JSON.")
    objective: Series[str] = text_column("What was maximised.")
    in_sample: Series[float] = number_column("Objective on the training bars.", unit="of the metric", nullable=True)
    out_of_sample: Series[float] = number_column("Objective on the test bars.", unit="of the metric", nullable=True)
    trials: Series[int] = number_column("Backtests run to choose.", unit="1", ge=1)
    joined_return_pct: Series[float] = number_column("Growth over all test bars joined.", unit="percent")
    joined_sharpe: Series[float] = number_column("Sharpe over them.", unit="annualised ratio", nullable=True)
    efficiency: Series[float] = number_column(
        "Mean objective out of sample over that in sample; 1: nothing overfitted.", unit="ratio", nullable=True
    )
    deflated_sharpe: Series[float] = number_column("Of the joined curve, all trials.", unit="0..1", nullable=True)
    all_trials: Series[int] = number_column("Backtests of all folds.", unit="1", ge=1)
    created_at: Series[Utc] = utc_column("When it was computed.")
    lake_snapshot: Series[int] = number_column(SNAPSHOT, unit="1", ge=0)
    code_version: Series[str] = text_column(CODE)
    config_hash: Series[str] = text_column("SHA-256 of the assumptions, first 16 digits.")
