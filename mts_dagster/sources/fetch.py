"""Several requests at once, in a small thread pool, under the budgets that all of them share.

What belongs here: running jobs side by side with progress, asking a coin's instruments one after the other, and the
candles of several coins and venues. A refusal
of one service is an outcome beside its window and not the end of the others: a venue that refuses this country
must not keep the second venue from answering. Any other exception ends everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import pandas as pd

from mts_dagster.schemas import Klines
from mts_dagster.sources.errors import SourceError, Subject, UnknownSymbolError
from mts_dagster.sources.frames import conform
from mts_dagster.sources.instruments import InstrumentList, Listing
from mts_dagster.sources.klines import Venue

logger = logging.getLogger(__name__)

WORKERS = 4
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class KlineWindow:
    """Candles to fetch: of a coin at a venue, opening in ``[start, end)``.

    ``ticker`` is CoinGecko's, used only for a coin that the alias table does not know.
    """

    coin: str
    venue: str
    interval: str
    start: datetime
    end: datetime
    ticker: str = ""

    def __str__(self) -> str:
        return f"{self.venue} {Subject(f'{self.coin} {self.interval}', self.start, self.end)}"


@dataclass(frozen=True)
class KlineOutcome:
    """What came of a window.

    Attributes:
        window: what was asked for.
        frame: ``schemas.Klines``; empty for a coin without a perpetual there, and where ``error`` is set.
        symbols: the venue's instruments that were asked, in order; empty for a coin without a perpetual.
        error: why there is no answer, or None.
    """

    window: KlineWindow
    frame: pd.DataFrame
    symbols: tuple[str, ...] = ()
    error: SourceError | None = None


def in_parallel(
    jobs: Mapping[Key, Callable[[], Result]],
    *,
    workers: int = WORKERS,
    on_done: Callable[[Key, int, int], None] | None = None,
) -> dict[Key, Result | SourceError]:
    """Run jobs side by side and collect what they return, or the ``SourceError`` that they raise, in their order.

    Args:
        jobs: what to do, by a name of it.
        workers: threads; the budgets of the services are shared, so more of them only hide waiting times.
        on_done: called in this thread after each job with its name, how many are done, and how many there are.

    Raises:
        Exception: what a job raised, if it is no ``SourceError``; jobs that have not begun are dropped.
    """
    outcomes: dict[Key, Result | SourceError] = {}
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="mts-fetch") as pool:
        running = {pool.submit(job): key for key, job in jobs.items()}
        try:
            for future in as_completed(running):
                error = future.exception()
                if error is not None and not isinstance(error, SourceError):
                    raise error
                key = running[future]
                outcomes[key] = error if error is not None else future.result()
                if on_done is not None:
                    on_done(key, len(outcomes), len(jobs))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return {key: outcomes[key] for key in jobs}


def fetch_klines(
    windows: Sequence[KlineWindow],
    venues: Mapping[str, Venue],
    *,
    workers: int = WORKERS,
    on_done: Callable[[KlineWindow, int, int], None] | None = None,
) -> list[KlineOutcome]:
    """Fetch the candles of several windows, each under the symbols that its coin had at its venue.

    Args:
        windows: what to fetch.
        venues: open clients by name.
        workers: threads.
        on_done: called after each window, see ``in_parallel``.

    Returns:
        One outcome for each window, in their order.
    """
    needed = sorted({window.venue for window in windows})
    lists = instrument_lists({name: venues[name] for name in needed}, workers=workers)
    outcomes = in_parallel(
        {window: _window_job(window, venues[window.venue], lists[window.venue]) for window in windows},
        workers=workers,
        on_done=on_done,
    )
    return [
        KlineOutcome(window, _no_klines(window), error=outcome) if isinstance(outcome, SourceError) else outcome
        for window, outcome in outcomes.items()
    ]


def instrument_lists(venues: Mapping[str, Venue], *, workers: int = WORKERS) -> dict[str, InstrumentList | SourceError]:
    """Each venue's perpetuals, or why it does not tell them."""
    return in_parallel({name: _instrument_list(venue) for name, venue in venues.items()}, workers=workers)


def of_listings(listings: Sequence[Listing], fetch: Callable[[Listing], pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Rows of each instrument that a coin had, by its symbol; a former name that the venue forgot is passed over."""
    frames: dict[str, pd.DataFrame] = {}
    for listing in listings:
        try:
            frames[listing.symbol] = fetch(listing)
        except UnknownSymbolError as failure:
            if not listing.is_former:
                raise
            logger.warning("nothing of a name that is out of use: %s", failure)
    return frames


def _instrument_list(venue: Venue) -> Callable[[], InstrumentList]:
    return lambda: InstrumentList(venue.perpetuals())


def _window_job(
    window: KlineWindow, venue: Venue, instruments: InstrumentList | SourceError
) -> Callable[[], KlineOutcome]:
    """A job for one window; the failure to get the venue's list is the failure of each of its windows."""

    def job() -> KlineOutcome:
        if isinstance(instruments, SourceError):
            raise instruments
        frames = of_listings(
            instruments.listings(window.coin, window.start, window.end, ticker=window.ticker),
            lambda listing: venue.klines(
                window.coin,
                listing.symbol,
                window.interval,
                listing.start,
                listing.end,
                multiplier=listing.multiplier,
            ),
        )
        filled = [frame for frame in frames.values() if not frame.empty]
        frame = pd.concat(filled, ignore_index=True) if filled else _no_klines(window)
        return KlineOutcome(window, frame, tuple(frames))

    return job


def _no_klines(window: KlineWindow) -> pd.DataFrame:
    return conform(pd.DataFrame(), Klines, window.venue, Subject(window.coin))
