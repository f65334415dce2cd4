"""The tear sheet is one file that needs nothing else; the pictures are small."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.market import market_from_frames
from mts_dagster.backtest.optimise import search
from mts_dagster.backtest.pictures import LARGEST_BYTES, drawdown_picture, equity_picture
from mts_dagster.backtest.report import Extras, render_report, write_report
from mts_dagster.backtest.result import BacktestResult, Provenance
from mts_dagster.backtest.run import backtest_signals
from mts_dagster.backtest.series import extremes, monthly_returns_pct, worst_drawdowns
from mts_dagster.backtest.walk_forward import purged_folds, walk_forward
from tests.unit.backtest.playing import HOUR, START, Bar, frame_of

if TYPE_CHECKING:
    from pathlib import Path

    from mts_dagster.backtest.signals import Targets
    from mts_dagster.backtest.sweep import Params
    from tests.unit.backtest.playing import Assume


def wave(count: int) -> list[Bar]:
    """Return bars of a price that swings around 100."""
    close = 100 + 10 * np.sin(np.arange(count) / 8)
    opens = np.concatenate([[100.0], close[:-1]])
    return [(o, max(o, c), min(o, c), c) for o, c in zip(opens.tolist(), close.tolist(), strict=True)]


@pytest.fixture(scope="module")
def result(assume: Assume) -> BacktestResult:
    """Return a result with many trades, a gap in the funding and a name that HTML must escape."""
    bars = frame_of({"BTC": wave(300)})
    long = np.diff(bars["close"], append=100.0) > 0
    signals = pd.DataFrame(
        {
            "timestamp": bars["open_time"] + HOUR,
            "asset": "BTC",
            "direction": np.where(long, "long", "flat"),
            "position_size": np.where(long, 0.5, 0.0),
            "confidence": 1.0,
        }
    )
    return backtest_signals(signals, bars, assume(taker_fee_bps=5.0), provenance=Provenance("r1", "a<b>"))


def test_the_sheet_needs_no_network(result: BacktestResult) -> None:
    """Scripts and styles are inside: no address is loaded by any tag."""
    page = render_report(result)
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
    assert not [tag for tag in tags if re.search(r"(?:src|href)\s*=", tag)]
    assert "Plotly.newPlot" in page


def test_names_are_escaped(result: BacktestResult) -> None:
    """A strategy called a<b> does not open a tag."""
    head = render_report(result).split("<script", 1)[0]
    assert "a&lt;b&gt;" in head
    assert "a<b>" not in head


def test_the_sheet_prints_numbers_books_assumptions_and_gaps(result: BacktestResult) -> None:
    """What a reader needs to trust the numbers is on the page."""
    page = render_report(result)
    for words in (
        f"{result.metrics.total_return_pct:+.2f} %",
        f"{result.pessimistic.metrics.total_return_pct:+.2f} %",
        "fills.slippage_bps",
        result.base.assumptions.config_hash(),
        "funding settlements missing",
        f"{result.base.reconciliation.end_usd:,.6f}",
    ):
        assert words in page


def test_the_sheet_shows_search_and_walk_forward(assume: Assume, result: BacktestResult, tmp_path: Path) -> None:
    """With extras the heat map, the stability and the folds are there."""
    market = market_from_frames(frame_of({"BTC": wave(300)}))
    change = np.diff(market.arrays.mark[:, 0], prepend=100.0)

    def decide(params: Params) -> Targets:
        return np.asarray(change * params["sign"] > params["level"], dtype=np.int8)

    space: dict[str, list[float]] = {"sign": [1, -1], "level": [0.0, 0.1]}
    found = search(market, decide, space, assume())
    walked = walk_forward(market, decide, space, assume(), purged_folds(300, 2, 5))
    path = tmp_path / "sheet.html"
    write_report(path, result, Extras(found, ("sign", "level"), walked))
    page = path.read_text(encoding="utf-8")
    assert "Stability of the optimum" in page
    assert "Walk-forward" in page
    assert "sharpe over parameters" in page


@pytest.mark.parametrize("draw", [equity_picture, drawdown_picture])
def test_pictures_fit_into_metadata(result: BacktestResult, draw: object) -> None:
    """A PNG below the limit."""
    assert callable(draw)
    picture = draw(result)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < LARGEST_BYTES


def test_thinning_keeps_both_ends_and_every_extreme() -> None:
    """A spike of one bar among a million survives."""
    values = np.zeros(1_000_000)
    values[123_456], values[654_321] = 5.0, -5.0
    kept = extremes(values, 1000)
    assert len(kept) <= 1002
    assert {0, 123_456, 654_321, 999_999} <= set(kept.tolist())


def test_months_end_at_midnight_of_the_next() -> None:
    """The close at 2024-02-01 00:00 belongs to January: 10 %, then 10 % of that in February."""
    times = pd.DatetimeIndex(["2024-01-15", "2024-02-01", "2024-02-20"], tz="UTC")
    months = monthly_returns_pct(times, np.array([100.0, 110.0, 121.0]))
    growth = months.to_numpy(np.float64)[0]
    assert months.index.tolist() == [2024]
    assert growth[:2].tolist() == pytest.approx([10.0, 10.0])
    assert np.isnan(growth[2:]).all()


def test_the_worst_drawdowns_in_order() -> None:
    """20 % from bar 3, not recovered, before 10 % from bar 0, recovered at bar 2."""
    times = pd.DatetimeIndex([START + HOUR * 24 * i for i in range(6)])
    frame = worst_drawdowns(times, np.array([100.0, 90.0, 100.0, 110.0, 88.0, 99.0]), 5)
    assert frame["depth_pct"].tolist() == pytest.approx([20.0, 10.0])
    assert frame["peak_at"].tolist() == [times[3], times[0]]
    assert pd.isna(frame["recovered_at"][0])
    assert frame["recovered_at"][1] == times[2]
    assert frame["days"].tolist() == [2.0, 2.0]


def test_a_curve_that_never_fell_has_no_drawdowns() -> None:
    """A strategy that never traded has a sheet too."""
    times = pd.DatetimeIndex([START + HOUR * 24 * i for i in range(3)])
    assert worst_drawdowns(times, np.array([100.0, 100.0, 100.0]), 5).empty


def test_the_sheet_says_where_the_result_went(result: BacktestResult) -> None:
    """Moves of prices less slippage, commission and funding are the result."""
    metrics = result.metrics
    gained = metrics.end_equity_usd - metrics.start_equity_usd
    moves = gained + metrics.slippage_usd + metrics.commission_usd - metrics.funding_usd
    page = render_report(result)
    assert f"<td>Moves of prices</td><td>{moves:+,.2f}</td>" in page
    assert f"<td>Result</td><td>{gained:+,.2f}</td>" in page


def test_the_sheet_says_its_assumptions_in_words(result: BacktestResult) -> None:
    """With the fees of the venue that was traded."""
    page = render_report(result)
    assert "maker 0 bps, taker 5 bps, perpetual, funding at every settlement" in page
    assert "decided on a close, filled at the next open" in page
