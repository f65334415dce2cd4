"""Recorded data as if the services still held it.

What belongs here: the recorded implementations of the data protocols. What is not recorded is left out, never
invented: Bybit has no candles, market caps are null, the volume of the past 24 hours is null until 24 hours
are recorded, and a settlement, candle or price later than the simulated time is not served.

Where no futures candle is recorded for a symbol, interval and time, the spot candle fills in. A file's last
row may have been open when it was recorded: it is served, as the open candle, only while the simulated time
is inside it. A complete candle that contains the simulated time is shown as far as shorter recordings
reach.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mts_simulator.binance import instrument_row, recorded_ladder
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, central_date, day_number, from_ms
from mts_simulator.coingecko import FIVE_MINUTES_MS, Point
from mts_simulator.coins import DEFAULT_FUNDING_HOURS
from mts_simulator.intervals import INTERVALS, Interval
from mts_simulator.macro import MISSING, Releases, Series
from mts_simulator.perpetuals import Candle, Ladder, Mark, Settlement, Window
from mts_simulator.recordings import MARKETS, RecordedCandles, Recordings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mts_simulator.wire import JsonObject

_QUOTES = ("USDT", "USDC", "BUSD", "USD")
_LAST_POINT_MS = 2 * HOUR_MS


def default_now(recordings: Recordings) -> datetime | None:
    """A moment inside the newest still open candle of the recordings; None without candles."""
    newest = recordings.newest_open()
    if newest is None:
        return None
    opened, interval = newest
    return from_ms(opened + min(MINUTE_MS, (interval.shift(opened, 1) - opened) // 2))


class ReplayBinance:
    """Binance's perpetuals as recorded."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._merged = lru_cache(maxsize=None)(self._merge)

    def symbols(self) -> list[str]:
        """Symbols with candles or funding."""
        return self._recordings.symbols()

    def instruments(self) -> list[JsonObject]:
        """Recorded rows of exchangeInfo; every symbol of the files is a trading perpetual."""
        return self._instruments

    def candles(self, symbol: str, interval: Interval, window: Window, now_ms: int) -> list[Candle]:
        """Candles in ascending order, the still open one included."""
        opens, rows = self._merged(symbol, interval)
        start = 0 if window.start_ms is None else bisect_left(opens, window.start_ms)
        end_ms = now_ms if window.end_ms is None else min(window.end_ms, now_ms)
        stop = bisect_right(opens, end_ms)
        chosen = rows[max(start, stop - window.limit - 1) : stop] if window.newest else rows[start:stop]
        closed = [row for row in chosen[: None if window.newest else window.limit + 1] if row.close_ms < now_ms]
        opened = interval.floor(now_ms)
        if (window.start_ms is None or opened >= window.start_ms) and opened <= end_ms:
            closed += self._open(symbol, interval, opened, now_ms)
        return closed[-window.limit :] if window.newest else closed[: window.limit]

    def settlements(self, symbol: str, window: Window, now_ms: int) -> list[Settlement]:
        """Settled funding in ascending order, nothing later than ``now_ms``."""
        return _windowed(self._recordings.settlements(symbol), window, now_ms)

    def mark(self, symbol: str, now_ms: int) -> Mark | None:
        """The last close as mark and index price, the last settled rate as estimate."""
        last = self._last_candle(symbol, now_ms)
        if last is None:
            return None
        settled = self.settlements(symbol, Window(None, None, 2, newest=True), now_ms)
        step = DEFAULT_FUNDING_HOURS * HOUR_MS
        if len(settled) > 1:
            step = max(HOUR_MS, round((settled[1].time_ms - settled[0].time_ms) / HOUR_MS) * HOUR_MS)
        return Mark(
            mark_price=last.close,
            index_price=last.close,
            settle_price=last.close,
            rate=settled[-1].rate if settled else "",
            next_funding_ms=now_ms - now_ms % step + step if settled else 0,
            funding_hours=step // HOUR_MS,
        )

    def ladder(self, symbol: str, levels: int, now_ms: int) -> Ladder:
        """The recorded depth snapshot, whenever it was taken; empty without one."""
        body = self._recordings.body(f"binance_fapi_v1_depth_{symbol}_")
        return Ladder([], [], 0, 0, now_ms) if body is None else recorded_ladder(body, levels)

    def funding_info(self) -> list[JsonObject]:
        """Recorded rows of fundingInfo."""
        return list(self._recordings.body("binance_fapi_v1_fundingInfo_") or [])

    @cached_property
    def _instruments(self) -> list[JsonObject]:
        recorded = (self._recordings.body("binance_fapi_v1_exchangeInfo_") or {}).get("symbols", [])
        rows = {row["symbol"]: row for row in recorded}
        for symbol in self.symbols():
            known = rows.get(symbol) or self._described(symbol)
            rows[symbol] = {**known, "contractType": "PERPETUAL", "status": "TRADING"}
        return list(rows.values())

    def _described(self, symbol: str) -> JsonObject:
        """An instrument row whose steps are those of the recorded numbers."""
        candle = self._last_candle(symbol, None)
        prices, sizes = (_decimals(candle.close), _decimals(candle.volume)) if candle else (2, 3)
        return instrument_row(symbol, base_of(symbol), prices, sizes)

    def _last_candle(self, symbol: str, now_ms: int | None) -> Candle | None:
        """The newest complete candle of the shortest recorded interval that has one."""
        for market in MARKETS:
            for interval in self._recordings.intervals(symbol, market):
                opens, rows = self._merged(symbol, interval)
                stop = len(opens) if now_ms is None else bisect_right(opens, interval.shift(interval.floor(now_ms), -1))
                if stop:
                    return rows[stop - 1]
        return None

    def _merge(self, symbol: str, interval: Interval) -> tuple[list[int], list[Candle]]:
        """Complete candles by open time, futures before spot."""
        merged: dict[int, Candle] = {}
        for recorded in self._recorded(symbol, interval):
            for opened, row in recorded.complete.items():
                merged.setdefault(opened, row)
        opens = sorted(merged)
        return opens, [merged[opened] for opened in opens]

    def _recorded(self, symbol: str, interval: Interval) -> list[RecordedCandles]:
        return [self._recordings.candles(symbol, market, interval) for market in MARKETS]

    def _open(self, symbol: str, interval: Interval, opened: int, now_ms: int) -> list[Candle]:
        """The candle that is open now, as recorded when it was open, or as far as it had got."""
        recorded = self._recorded(symbol, interval)
        for market in recorded:
            if opened in market.last:
                return [market.last[opened]]
        for market in recorded:
            if opened in market.complete:
                return [self._so_far(symbol, market.complete[opened], now_ms)]
        return []

    def _so_far(self, symbol: str, whole: Candle, now_ms: int) -> Candle:
        """``whole`` up to now, from shorter recorded candles; without any, only its open is known."""
        parts: list[Candle] = []
        for market in MARKETS:
            for interval in self._recordings.intervals(symbol, market):
                opens, rows = self._merged(symbol, interval)
                inside = rows[bisect_left(opens, whole.open_ms) : bisect_right(opens, now_ms)]
                parts = parts or [row for row in inside if row.close_ms < min(now_ms, whole.close_ms)]
        prices = [whole.open, *(price for part in parts for price in (part.high, part.low))]
        return whole._replace(
            high=max(prices, key=float),
            low=min(prices, key=float),
            close=parts[-1].close if parts else whole.open,
            volume=_total([part.volume for part in parts]),
            quote_volume=_total([part.quote_volume for part in parts]),
            trades=sum(part.trades for part in parts),
        )


class ReplayBybit:
    """Bybit's perpetuals as recorded: instruments, tickers, funding; no candles and no books."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    def symbols(self) -> list[str]:
        """Symbols with a recorded ticker or funding history."""
        return sorted({row["symbol"] for row in self._tickers} | {row["symbol"] for row in self._funding})

    def instruments(self) -> list[JsonObject]:
        """Recorded rows of instruments-info."""
        return self._instruments

    def candles(self, symbol: str, interval: Interval, window: Window, now_ms: int) -> list[Candle]:  # noqa: ARG002  the protocol's
        """None are recorded."""
        return []

    def settlements(self, symbol: str, window: Window, now_ms: int) -> list[Settlement]:
        """Settled funding in ascending order, nothing later than ``now_ms``."""
        rows = [
            Settlement(int(row["fundingRateTimestamp"]), row["fundingRate"], "")
            for row in self._funding
            if row["symbol"] == symbol
        ]
        return _windowed(sorted(rows), window, now_ms)

    def mark(self, symbol: str, now_ms: int) -> Mark | None:  # noqa: ARG002  the protocol's
        """Not recorded apart from the ticker."""
        return None

    def ladder(self, symbol: str, levels: int, now_ms: int) -> Ladder:  # noqa: ARG002  the protocol's
        """No book is recorded."""
        return Ladder([], [], 0, 0, now_ms)

    def ticker(self, symbol: str, now_ms: int) -> JsonObject | None:  # noqa: ARG002  the protocol's
        """The recorded ticker, whenever it was taken."""
        return next((row for row in self._tickers if row["symbol"] == symbol), None)

    @cached_property
    def _instruments(self) -> list[JsonObject]:
        rows = self._rows("bybit_v5_instruments-info_linear_", "bybit_v5_market_instruments-info_linear_")
        return list({row["symbol"]: row for row in rows}.values())

    @cached_property
    def _tickers(self) -> list[JsonObject]:
        return list({row["symbol"]: row for row in self._rows("bybit_v5_market_tickers_linear_")}.values())

    @cached_property
    def _funding(self) -> list[JsonObject]:
        rows = self._rows("bybit_v5_market_funding_history_")
        return list({(row["symbol"], row["fundingRateTimestamp"]): row for row in rows}.values())

    def _rows(self, *prefixes: str) -> list[JsonObject]:
        return [row for body in self._recordings.bodies(*prefixes) for row in body["result"]["list"]]


class ReplayCoinGecko:
    """CoinGecko as recorded: the ranking of ``/coins/markets``, and prices from spot closes.

    Points lie at the close of 5-minute candles and, where none are recorded, of hourly ones; daily candles
    are not used. Coins of recorded symbols that the ranking does not name follow it under their symbol as
    id.
    """

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._points = lru_cache(maxsize=None)(self._load_points)

    @cached_property
    def first_ms(self) -> int:
        """Time of the first point of any coin."""
        lines = [self._points(row["id"]) for row in self._coins]
        return min((line[0].time_ms for line in lines if line), default=0)

    def coins(self, now_ms: int) -> list[JsonObject]:  # noqa: ARG002  one ranking is recorded
        """Rows of ``/coins/markets`` in the recorded order."""
        return self._coins

    def chart(self, coin_id: str, start_ms: int, end_ms: int, step_ms: int, now_ms: int) -> list[Point]:
        """Points in ``[start_ms, end_ms]`` at multiples of ``step_ms``, or wider apart as recorded."""
        line = self._points(coin_id)
        times = [point.time_ms for point in line]
        end = min(end_ms, now_ms)
        chosen = line[bisect_left(times, start_ms) : bisect_right(times, end)]
        if step_ms > FIVE_MINUTES_MS:
            chosen = [point for point in chosen if point.time_ms % step_ms == 0]
        known = bisect_right(times, now_ms)
        if end == now_ms and known and start_ms <= now_ms < times[known - 1] + _LAST_POINT_MS:
            chosen = [*(p for p in chosen if p.time_ms < now_ms), line[known - 1]._replace(time_ms=now_ms)]
        return chosen

    @cached_property
    def _coins(self) -> list[JsonObject]:
        rows: list[JsonObject] = list(self._recordings.body("coingecko_coins_markets_usd_") or [])
        named = {str(row["symbol"]).lower() for row in rows}
        bases = sorted({base_of(symbol).lower() for symbol in self._recordings.symbols()})
        for base in bases:
            if base not in named:
                rows.append({"id": base, "symbol": base, "name": base.upper(), "current_price": None,
                             "market_cap": None, "market_cap_rank": len(rows) + 1, "total_volume": None,
                             "last_updated": None})  # fmt: skip
        return rows

    def _load_points(self, coin_id: str) -> list[Point]:
        symbol = next(str(row["symbol"]) for row in self._coins if row["id"] == coin_id)
        first = next(row["id"] for row in self._coins if row["symbol"] == symbol)
        if first != coin_id:  # A symbol is not unique: the recording belongs to the largest coin of that name.
            return []
        pair = f"{symbol.upper()}USDT"
        fine = self._recordings.candles(pair, "spot", INTERVALS["5m"]).complete
        covered = {opened // HOUR_MS for opened in fine}
        hours = self._recordings.candles(pair, "spot", INTERVALS["1h"]).complete
        bars = sorted([*fine.values(), *(row for row in hours.values() if row.open_ms // HOUR_MS not in covered)])
        if not bars:
            return []
        ends = np.array([row.close_ms + 1 for row in bars])
        lengths = ends - np.array([row.open_ms for row in bars])
        sums = np.append(0.0, np.cumsum([float(row.quote_volume) for row in bars]))
        spans = np.append(0, np.cumsum(lengths))
        before = np.searchsorted(ends, ends - DAY_MS, side="right")
        whole = spans[1:] - spans[before] == DAY_MS
        volumes = sums[1:] - sums[before]
        return [
            Point(int(end), float(row.close), None, float(volume) if full else None)
            for end, row, volume, full in zip(ends, bars, volumes, whole, strict=True)
        ]


class ReplayMacro:
    """FRED as recorded: one vintage, the day after the last observation.

    While the simulated time is before that day, the vintage is today and later observations are not there
    yet.
    """

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._load = lru_cache(maxsize=None)(recordings.macro)

    def series(self) -> Mapping[str, Series]:
        """All recorded series by id."""
        return {name: Series(name, name, "") for name in self._recordings.macro_files}

    def releases(self, series_id: str, now_ms: int) -> Releases:
        """What is published of a series at ``now_ms``."""
        days, values = self._load(series_id)
        vintage = min(day_number(central_date(now_ms)), int(days[-1]) + 1) if len(days) else 0
        count = int((days < vintage).sum())
        return Releases(
            day=days[:count],
            vintage=np.full(count, vintage, dtype=np.int64),
            released_ms=np.full(count, min(now_ms, (vintage + 1) * DAY_MS), dtype=np.int64),
            value=[value or MISSING for value in values[:count]],
        )


def base_of(symbol: str) -> str:
    """The base coin of a symbol: ``BTC`` of ``BTCUSDT``."""
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote) and symbol != quote), "")
    return symbol.removesuffix(quote)


def _windowed(rows: list[Settlement], window: Window, now_ms: int) -> list[Settlement]:
    end = now_ms if window.end_ms is None else min(window.end_ms, now_ms)
    kept = [row for row in rows if (window.start_ms or 0) <= row.time_ms <= end]
    return kept[-window.limit :] if window.newest else kept[: window.limit]


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _total(numbers: list[str]) -> str:
    return f"{sum(float(number) for number in numbers):.8f}"
