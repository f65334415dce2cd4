"""Recorded files: a folder in the layout of the shared recordings, read into plain values.

What belongs here: finding files by name and parsing them, nothing about services. Every subfolder may be
missing, and any symbols, intervals and dates may be there:

- ``ohlcv/binance_{usdm|spot}_<SYMBOL>_<interval>_*.csv[.gz]``; the time column is ``timestamp`` (a date, or
  milliseconds) or ``date`` (ISO 8601). Files of unnamed venues are not served.
- ``funding/binance_usdm_<SYMBOL>_funding*.csv``; time in ``funding_time`` or ``timestamp``.
- ``macro/<SERIES>.csv`` with the header ``observation_date,<SERIES>``.
- ``rest/<service>_<endpoint>_*.json[.gz]``: response bodies.

The last row of an OHLCV file may have been an open candle when it was recorded; it is kept apart.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mts_simulator.clock import MINUTE_MS
from mts_simulator.errors import SimulatorError
from mts_simulator.intervals import INTERVALS, Interval
from mts_simulator.perpetuals import Candle, Settlement

if TYPE_CHECKING:
    from pathlib import Path

    from mts_simulator.noise import Ints

_FOLDERS = ("ohlcv", "funding", "macro", "rest", "frames")
_OHLCV_NAME = re.compile(r"binance_(usdm|spot)_(.+?)_(\d+[mhdwM])(?:_.*)?\.csv(?:\.gz)?")
_FUNDING_NAME = re.compile(r"binance_usdm_(.+?)_funding.*\.csv(?:\.gz)?")
_PRICES = ("open", "high", "low", "close", "volume")
_MICROSECONDS_FROM = 10**14

MARKETS = ("usdm", "spot")


@dataclass(frozen=True)
class OhlcvFile:
    """One recorded OHLCV file, by what its name says."""

    path: Path
    market: str
    symbol: str
    interval: Interval


@dataclass
class RecordedCandles:
    """Candles of one market by open time.

    Attributes:
        complete: Candles that were certainly closed when recorded.
        last: Last rows of files: they may have been open still.
    """

    complete: dict[int, Candle] = field(default_factory=dict)
    last: dict[int, Candle] = field(default_factory=dict)


class Recordings:
    """A folder of recordings.

    Args:
        folder: Where they are.

    Raises:
        SimulatorError: When the folder does not exist or holds no known subfolder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SimulatorError(f"the folder to replay does not exist: {folder}")
        if not any((folder / name).is_dir() for name in _FOLDERS):
            raise SimulatorError(f"nothing to replay in {folder}: it has none of {', '.join(_FOLDERS)}")
        self.folder = folder
        self.candles = lru_cache(maxsize=None)(self._candles)
        self.settlements = lru_cache(maxsize=None)(self._settlements)
        self._body = lru_cache(maxsize=None)(_json)

    @cached_property
    def ohlcv_files(self) -> list[OhlcvFile]:
        """All OHLCV files whose venue, symbol and interval are known, by name."""
        found = []
        for path in self._files("ohlcv"):
            match = _OHLCV_NAME.fullmatch(path.name)
            if match and match[3] in INTERVALS:
                found.append(OhlcvFile(path, match[1], match[2], INTERVALS[match[3]]))
        return found

    @cached_property
    def funding_files(self) -> dict[str, list[Path]]:
        """Funding files by symbol."""
        found: dict[str, list[Path]] = {}
        for path in self._files("funding"):
            match = _FUNDING_NAME.fullmatch(path.name)
            if match:
                found.setdefault(match[1], []).append(path)
        return found

    @cached_property
    def macro_files(self) -> dict[str, Path]:
        """Macro files by the series their header names."""
        found = {}
        for path in self._files("macro"):
            if path.suffix == ".csv":
                header = path.read_text(encoding="utf-8").split("\n", 1)[0].strip().split(",")
                if len(header) > 1:
                    found[header[1].upper()] = path
        return found

    def symbols(self) -> list[str]:
        """Symbols with OHLCV or funding, sorted."""
        return sorted({file.symbol for file in self.ohlcv_files} | set(self.funding_files))

    def intervals(self, symbol: str, market: str) -> list[Interval]:
        """Recorded intervals of a symbol on a market, the shortest first."""
        found = {file.interval for file in self.ohlcv_files if file.symbol == symbol and file.market == market}
        return sorted(found, key=lambda interval: interval.shift(0, 1))

    def newest_open(self) -> tuple[int, Interval] | None:
        """Open time and interval of the newest last row; of several, the shortest candle."""
        last = [(opened, file.interval) for file in self.ohlcv_files
                for opened in self.candles(file.symbol, file.market, file.interval).last]  # fmt: skip
        return max(last, key=lambda row: (row[0], -row[1].shift(0, 1)), default=None)

    def macro(self, series_id: str) -> tuple[Ints, list[str]]:
        """Observation days (since 1970-01-01) and values as text, empty where missing."""
        path = self.macro_files[series_id]
        table = _table(path)
        days = pd.to_datetime(table.iloc[:, 0], format="%Y-%m-%d").to_numpy()
        return days.astype("datetime64[D]").astype(np.int64), table.iloc[:, 1].tolist()

    def body(self, *prefixes: str) -> Any | None:  # noqa: ANN401  any JSON value may have been recorded
        """The newest response body (by file name) whose name starts with one of ``prefixes``, or None."""
        return next(reversed(self.bodies(*prefixes)), None)

    def bodies(self, *prefixes: str) -> list[Any]:
        """All response bodies whose file names start with one of ``prefixes``, by name."""
        return [
            self._body(path)
            for path in self._files("rest")
            if path.name.startswith(prefixes) and path.name.removesuffix(".gz").endswith(".json")
        ]

    def _files(self, name: str) -> list[Path]:
        folder = self.folder / name
        return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []

    def _candles(self, symbol: str, market: str, interval: Interval) -> RecordedCandles:
        wanted = (symbol, market, interval)
        result = RecordedCandles()
        for file in self.ohlcv_files:
            if (file.symbol, file.market, file.interval) == wanted:
                rows = _ohlcv(file)
                for row in rows[:-1]:
                    result.complete.setdefault(row.open_ms, row)
                for row in rows[-1:]:
                    result.last.setdefault(row.open_ms, row)
        return result

    def _settlements(self, symbol: str) -> list[Settlement]:
        """Funding in ascending order; of two records of one settlement, the one with the exact time."""
        found: dict[int, Settlement] = {}
        for path in self.funding_files.get(symbol, []):
            table = _table(path)
            rates = _column(table, path, "funding_rate", "fundingRate")
            marks = table["mark_price"] if "mark_price" in table else [""] * len(table)
            for ms, rate, mark in zip(_times(table, path, "funding_time").tolist(), rates, marks, strict=True):
                minute = ms // MINUTE_MS
                if minute not in found or ms % MINUTE_MS:
                    found[minute] = Settlement(ms, rate, mark)
        return [found[minute] for minute in sorted(found)]


def _ohlcv(file: OhlcvFile) -> list[Candle]:
    """Rows of one file as candles, oldest first; text as recorded."""
    table = _table(file.path)
    opens = _times(table, file.path, "date")
    o, h, low, c, volume = (_column(table, file.path, name).tolist() for name in _PRICES)
    if "quote_volume" in table:
        quote = table["quote_volume"].tolist()
    else:
        quote = [f"{float(price) * float(size):.8f}" for price, size in zip(c, volume, strict=True)]
    trades = table["trades"].astype(int).tolist() if "trades" in table else [0] * len(table)
    closes = [file.interval.shift(opened, 1) - 1 for opened in opens.tolist()]
    takers = ["0"] * len(table)
    columns = (opens.tolist(), o, h, low, c, volume, closes, quote, trades, takers, takers)
    return sorted(Candle(*row) for row in zip(*columns, strict=True))


def _json(path: Path) -> Any:  # noqa: ANN401  any JSON value may have been recorded
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise SimulatorError(f"{path} is not JSON: {error}") from None


def _text(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")


def _table(path: Path) -> pd.DataFrame:
    """A CSV file as text columns."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise SimulatorError(f"{path} cannot be read as CSV: {error}") from None


def _column(table: pd.DataFrame, path: Path, *names: str) -> pd.Series:
    for name in names:
        if name in table:
            column: pd.Series = table[name]
            return column
    raise SimulatorError(f"{path} has no column {' or '.join(names)}")


def _times(table: pd.DataFrame, path: Path, *names: str) -> Ints:
    """The time column in milliseconds: a number (ms, or us by its magnitude) or a date in UTC."""
    column = _column(table, path, "timestamp", *names)
    try:
        if column.str.fullmatch(r"\d+").all():
            numbers = column.astype("int64").to_numpy()
            return np.where(numbers >= _MICROSECONDS_FROM, numbers // 1000, numbers)
        moments = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise SimulatorError(f"{path} has a time that cannot be read: {error}") from None
    return moments.dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
