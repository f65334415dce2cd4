"""Settled funding of several coins and venues, as its table stores it.

What belongs here: the windows that are asked for, the settlements before them that intervals need, and the frame of
the contract. Which coins and venues are asked is in ``history``, a venue's paging in its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from mts_dagster.schemas import FundingRates
from mts_dagster.sources.errors import SourceError, Subject
from mts_dagster.sources.fetch import in_parallel, instrument_lists, of_listings
from mts_dagster.sources.frames import conform, utc_times
from mts_dagster.sources.instruments import InstrumentList, Listing
from mts_dagster.sources.klines import REGULAR, Venue
from mts_realtime.analytics.funding import interval_hours

# Longer distances are pauses of an instrument. A window is fetched from this much earlier, so that its first rows have
# the interval that they would have in any other window.
LONGEST_INTERVAL = timedelta(hours=24)


@dataclass(frozen=True)
class FundingWindow:
    """Settlements to fetch: of a coin at a venue, in ``[start, end)``.

    ``ticker`` is CoinGecko's, used only for a coin that the alias table does not know.
    """

    coin: str
    venue: str
    start: datetime
    end: datetime
    ticker: str = ""


def fetch_funding(
    windows: Sequence[FundingWindow], venues: Mapping[str, Venue], *, delay_s: float
) -> dict[FundingWindow, pd.DataFrame | SourceError]:
    """Settlements of several windows, each under the symbols that its coin had at its venue.

    Args:
        windows: what to fetch.
        venues: open clients by name.
        delay_s: how long after its time a settlement counts as known.

    Returns:
        ``schemas.FundingRates`` of each window, empty for a coin without a perpetual, or why there is no answer.
    """
    lists = instrument_lists({name: venues[name] for name in sorted({window.venue for window in windows})})
    return in_parallel({window: _job(window, venues[window.venue], lists[window.venue], delay_s) for window in windows})


def funding_rates(window: FundingWindow, listing: Listing, settled: pd.DataFrame, delay_s: float) -> pd.DataFrame:
    """The settlements of one instrument in its part of the window, as ``schemas.FundingRates``.

    Args:
        window: what was asked for.
        listing: the instrument, and since when and until when it stood for the coin.
        settled: ``klines.funding_frame`` from ``LONGEST_INTERVAL`` before ``listing.start`` on.
        delay_s: how long after its time a settlement counts as known.
    """
    regular = settled["rate_type"] == REGULAR
    hours = pd.Series(np.nan, index=settled.index)
    hours[regular] = _intervals(settled.loc[regular, "settled_at_ms"])
    frame = pd.DataFrame(
        {
            "coin": window.coin,
            "venue": window.venue,
            "symbol": settled["symbol"],
            "settled_at": settled["settled_at"],
            "stamped_at": utc_times(settled["settled_at_ms"].tolist()),
            "funding_rate": settled["funding_rate"],
            "mark_price": settled["mark_price"] / listing.multiplier,
            "interval_hours": hours,
            "kind": np.where(regular, "regular", "special"),
            "available_at": settled["settled_at"] + timedelta(seconds=delay_s),
        }
    )
    inside = (frame["settled_at"] >= listing.start) & (frame["settled_at"] < listing.end)
    return conform(frame[inside], FundingRates, window.venue, Subject(listing.symbol, listing.start, listing.end))


def _intervals(settled_at_ms: pd.Series[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Hours since the settlement before; NaN without one, or with one too long ago."""
    hours = interval_hours(settled_at_ms.to_numpy())
    hours[:1] = np.nan
    return np.where(hours <= LONGEST_INTERVAL / timedelta(hours=1), hours, np.nan)


def _job(
    window: FundingWindow, venue: Venue, instruments: InstrumentList | SourceError, delay_s: float
) -> Callable[[], pd.DataFrame]:
    """A job for one window; the failure to get the venue's list is the failure of each of its windows."""

    def fetch(listing: Listing) -> pd.DataFrame:
        settled = venue.funding_rates(listing.symbol, listing.start - LONGEST_INTERVAL, listing.end)
        return funding_rates(window, listing, settled, delay_s)

    def job() -> pd.DataFrame:
        if isinstance(instruments, SourceError):
            raise instruments
        listings = instruments.listings(window.coin, window.start, window.end, ticker=window.ticker)
        frames = [frame for frame in of_listings(listings, fetch).values() if not frame.empty]
        return pd.concat(frames, ignore_index=True) if frames else FundingRates.empty()

    return job
