"""Which client answers what, and what is done where one cannot: rankings, prices, candles, funding, macro series.

What belongs here: combining clients over slices. What could not be had is returned beside the rows, in words, so that
the caller can show it; it is never silently left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

from mts_dagster.lake.slices import Slice
from mts_dagster.schemas import CoinUniverse, FundingRates, Klines, MacroData, PricePoints, TableSchema
from mts_dagster.sources.coingecko import CoinGecko, PriceHistory
from mts_dagster.sources.errors import SourceError
from mts_dagster.sources.fetch import KlineWindow, fetch_klines
from mts_dagster.sources.fred import Fred
from mts_dagster.sources.funding import FundingWindow, fetch_funding
from mts_dagster.sources.klines import Venue, step_ms

ONE_DAY = timedelta(days=1)
LIVE = "live_ranking"
FILLED_IN = "tracked_coins"
# A day filled in later is ranked by the last sample of the day; a coin without one in its last hours is not ranked.
RANKED_BY_SAMPLES_OF = timedelta(hours=3)


@dataclass(frozen=True)
class Collected:
    """Rows, and in words what could not be had."""

    frame: pd.DataFrame
    problems: tuple[str, ...] = ()


def universe(
    coingecko: CoinGecko,
    slices: Sequence[Slice],
    stored: pd.DataFrame,
    tracked: Sequence[str],
    top_n: int,
    now: datetime,
) -> Collected:
    """Rankings of the days of ``slices``, as ``schemas.CoinUniverse``.

    Today is ranked live. A past day keeps its stored live ranking; without one, the tracked coins are ranked among
    themselves by their own market caps at the end of that day, because CoinGecko tells no ranking of the past.

    Args:
        coingecko: client.
        slices: days wanted.
        stored: rows of these days that the lake holds.
        tracked: CoinGecko ids that are ranked in any case.
        top_n: size of the universe.
        now: current time, aware.
    """
    today = pd.Timestamp(now.astimezone(UTC).date())
    live = stored[(stored["ranking_source"] == LIVE) & (stored["date"] < today)]
    kept = set(live["date"])
    frames, problems = [live], list[str]()
    for piece in slices:
        days = pd.date_range(piece.start, piece.end - ONE_DAY, tz="UTC").tz_localize(None)
        if today in days:
            frames.append(coingecko.markets(top_n, tracked))
        if missing := [day for day in days if day < today and day not in kept]:
            ranked = _ranked_later(coingecko, missing, tracked, top_n)
            frames.append(ranked.frame)
            problems += ranked.problems
    return Collected(_joined(frames, CoinUniverse), tuple(problems))


def prices(coingecko: CoinGecko, slices: Sequence[Slice]) -> Collected:
    """Price points of the coins and days of ``slices``, as ``schemas.PricePoints``."""
    frames, problems = [], []
    for coin, piece in _members(slices):
        history = coingecko.price_points(coin, piece.start, piece.end)
        frames.append(history.frame)
        problems += _gaps(coin, history)
        problems += [
            f"{coin} {start:%Y-%m-%d} to {end:%Y-%m-%d}: samples are more than two hours apart"
            for start, end in history.coarse
        ]
        problems += [f"{coin}: {history.dropped} samples had no price"] if history.dropped else []
    return Collected(_joined(frames, PricePoints), tuple(problems))


def candles(
    venues: Sequence[Venue], slices: Sequence[Slice], intervals: Sequence[str], tickers: Mapping[str, str]
) -> Collected:
    """Closed candles of the coins and days of ``slices``, as ``schemas.Klines``.

    The first venue is asked for everything, each further one for what is still missing; the windows of one venue are
    fetched side by side. A refusal is a problem, and an error only when nothing at all was answered.

    Args:
        venues: in order of preference.
        slices: coins and days wanted.
        intervals: e.g. ``1h`` and ``1d``.
        tickers: CoinGecko id to ticker, for coins that the alias table does not know.
    """
    frames: list[pd.DataFrame] = []
    failures: list[SourceError] = []
    has_answer = False
    for venue in venues:
        try:
            now = venue.server_time()
        except SourceError as failure:
            failures.append(failure)
            continue
        windows = [
            KlineWindow(coin, venue.name, interval, start, end, tickers.get(coin, ""))
            for coin, piece in _members(slices)
            for interval in intervals
            for start, end in _missing(frames, coin, interval, piece, now)
        ]
        outcomes = fetch_klines(windows, {venue.name: venue})
        frames += [outcome.frame for outcome in outcomes]
        failures += [outcome.error for outcome in outcomes if outcome.error is not None]
        has_answer = has_answer or any(outcome.error is None for outcome in outcomes)
    if failures and not has_answer:
        raise failures[0]
    problems = dict.fromkeys(str(failure) for failure in failures)
    return Collected(_joined(frames, Klines), tuple(problems))


def funding(
    venues: Sequence[Venue],
    slices: Sequence[Slice],
    stored: pd.DataFrame,
    tickers: Mapping[str, str],
    *,
    delay_s: float,
) -> Collected:
    """Settled funding of the coins and days of ``slices``, as ``schemas.FundingRates``.

    Every venue is asked for everything. Where one refuses, its stored rows stay and the refusal is a problem; it is an
    error only when nothing at all was answered.

    Args:
        venues: all of them.
        slices: coins and days wanted.
        stored: rows of these coins and days that the lake holds.
        tickers: CoinGecko id to ticker, for coins that the alias table does not know.
        delay_s: how long after its time a settlement counts as known.
    """
    windows = [
        FundingWindow(coin, venue.name, piece.start, piece.end, tickers.get(coin, ""))
        for venue in venues
        for coin, piece in _members(slices)
    ]
    outcomes = fetch_funding(windows, {venue.name: venue for venue in venues}, delay_s=delay_s)
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, SourceError)]
    if failures and len(failures) == len(outcomes):
        raise failures[0]
    frames = [
        _stored_settlements(stored, window) if isinstance(outcome, SourceError) else outcome
        for window, outcome in outcomes.items()
    ]
    return Collected(_joined(frames, FundingRates), tuple(dict.fromkeys(str(failure) for failure in failures)))


def macro(fred: Fred, slices: Sequence[Slice]) -> pd.DataFrame:
    """Observations of the indicators and days of ``slices``, as ``schemas.MacroData``."""
    frames = [
        fred.observations(indicator, piece.start.date(), piece.end.date()) for indicator, piece in _members(slices)
    ]
    return _joined(frames, MacroData)


def _stored_settlements(stored: pd.DataFrame, window: FundingWindow) -> pd.DataFrame:
    """What the lake holds of a window."""
    inside = (stored["settled_at"] >= window.start) & (stored["settled_at"] < window.end)
    return stored[inside & (stored["coin"] == window.coin) & (stored["venue"] == window.venue)]


def _gaps(coin: str, history: PriceHistory) -> list[str]:
    """What no request could cover, in words."""
    return [f"{coin} {gap.start:%Y-%m-%d} to {gap.end:%Y-%m-%d}: {gap.reason}" for gap in history.uncovered]


def _members(slices: Sequence[Slice]) -> Iterator[tuple[str, Slice]]:
    """Each coin or indicator with each slice."""
    for piece in slices:
        for member in piece.members or ():
            yield member, piece


def _joined(frames: Sequence[pd.DataFrame], model: type[TableSchema]) -> pd.DataFrame:
    """One frame of all rows; an empty one has the contract's types too."""
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else model.empty()


def _missing(
    frames: Sequence[pd.DataFrame], coin: str, interval: str, piece: Slice, now: datetime
) -> list[tuple[datetime, datetime]]:
    """Windows of closed candles that ``frames`` do not hold yet, as few as possible."""
    step = timedelta(milliseconds=step_ms(interval, "history"))
    held = {
        moment
        for frame in frames
        for moment in frame.loc[(frame["coin"] == coin) & (frame["interval"] == interval), "open_time"]
    }
    windows: list[tuple[datetime, datetime]] = []
    for moment in pd.date_range(piece.start, min(piece.end, now) - step, freq=step).to_pydatetime():
        if pd.Timestamp(moment) in held:
            continue
        if windows and windows[-1][1] == moment:
            windows[-1] = (windows[-1][0], moment + step)
        else:
            windows.append((moment, moment + step))
    return windows


def _ranked_later(coingecko: CoinGecko, days: Sequence[pd.Timestamp], tracked: Sequence[str], top_n: int) -> Collected:
    """Days without a ranking of their own: tracked coins ranked by their last sample of each day."""
    start, end = days[0].tz_localize("UTC").to_pydatetime(), (days[-1] + ONE_DAY).tz_localize("UTC").to_pydatetime()
    histories = {coin: coingecko.price_points(coin, start, end) for coin in tracked}
    problems = [problem for coin, history in histories.items() for problem in _gaps(coin, history)]
    points = pd.concat([history.frame for history in histories.values()], ignore_index=True)
    points["date"] = points["sampled_at"].dt.floor("D").dt.tz_localize(None)
    ends = points["date"].dt.tz_localize("UTC") + ONE_DAY
    known = points["market_cap_usd"].notna() & (ends - points["sampled_at"] <= RANKED_BY_SAMPLES_OF)
    last = points[known & points["date"].isin(days)].sort_values("sampled_at").groupby(["date", "coin"]).tail(1)
    rank = last.groupby("date")["market_cap_usd"].rank(method="first", ascending=False).astype("int64")
    symbols = _symbols(coingecko, tracked, top_n)
    frame = CoinUniverse.validate(
        pd.DataFrame(
            {
                "date": last["date"],
                "coin": last["coin"],
                "symbol": last["coin"].map(symbols["symbol"]),
                "name": last["coin"].map(symbols["name"]),
                "rank": rank,
                "market_cap_usd": last["market_cap_usd"],
                "price_usd": last["price_usd"],
                "volume_24h_usd": last["volume_24h_usd"],
                "in_universe": rank <= top_n,
                "ranking_source": FILLED_IN,
                "source_tier": last["source_tier"],
                "available_at": last["available_at"],
            }
        )
    )
    return Collected(frame, tuple(problems))


def _symbols(coingecko: CoinGecko, coins: Sequence[str], top_n: int) -> pd.DataFrame:
    """Ticker and name of each coin, by id; they are facts of today."""
    return coingecko.markets(top_n, coins).set_index("coin")[["symbol", "name"]]
