"""Replay: what is served equals the files, open candles stay open, any folder of the layout works."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mts_simulator import SimulatorConfig, running_simulator
from mts_simulator.binance import Binance
from mts_simulator.bybit import Bybit
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, to_ms
from mts_simulator.coingecko import CoinGecko
from mts_simulator.errors import SimulatorError
from mts_simulator.fred import Fred
from mts_simulator.recordings import Recordings
from mts_simulator.replay import ReplayBinance, ReplayBybit, ReplayCoinGecko, ReplayMacro, default_now

from .conftest import KEY, ask, ask_json

if TYPE_CHECKING:
    from pathlib import Path

PRO = {"x-cg-pro-api-key": "CG-anything"}
KLINES = "/fapi/v1/klines"
OPENED_MS = 1_773_946_800_000
"""2026-03-19 19:00, open time of the last hourly futures row."""
INSIDE_MS = OPENED_MS + 10 * MINUTE_MS
AFTER_MS = OPENED_MS + 5 * DAY_MS


def rows_of(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> Recordings:
    return Recordings(shared_data)


@pytest.fixture(scope="module")
def binance(recordings: Recordings) -> Binance:
    return Binance(ReplayBinance(recordings))


@pytest.fixture(scope="module")
def coingecko(recordings: Recordings) -> CoinGecko:
    return CoinGecko(ReplayCoinGecko(recordings), pro=True)


def all_klines(service: Binance, symbol: str, interval: str, start: int, now_ms: int) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        page = ask_json(service, KLINES, now_ms=now_ms, symbol=symbol, interval=interval, startTime=start, limit=1500)
        found += page
        if len(page) < 1500:
            return found
        start = int(page[-1][0]) + 1


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "BNBUSDT"])
@pytest.mark.parametrize("name", ["1d_2024-2026.csv", "1h_2025-2026.csv.gz"])
def test_futures_klines_equal_the_file(binance: Binance, shared_data: Path, symbol: str, name: str) -> None:
    """Every row but the last comes back digit for digit; the last was still open and is gone."""
    expected = rows_of(shared_data / "ohlcv" / f"binance_usdm_{symbol}_{name}")
    interval = name[:2]
    served = all_klines(binance, symbol, interval, int(expected[0]["timestamp"]), AFTER_MS)
    columns = ("timestamp", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    assert [[str(value) for value in row[:9]] for row in served] == [
        [row[column] for column in columns] for row in expected[:-1]
    ]


def test_spot_fills_in_before_the_futures_begin(binance: Binance, shared_data: Path) -> None:
    """Daily bitcoin before 2024-01-10 is the spot recording, with quote volume close times volume."""
    expected = rows_of(shared_data / "ohlcv" / "binance_spot_BTCUSDT_1d_2017-2025.csv")
    served = all_klines(binance, "BTCUSDT", "1d", 0, AFTER_MS)
    first_future = 1_704_844_800_000
    spot = [row for row in served if int(row[0]) < first_future]
    assert [row[1:6] for row in spot] == [
        [row[name] for name in ("open", "high", "low", "close", "volume")] for row in expected[: len(spot)]
    ]
    assert len(spot) == (first_future - to_ms(datetime(2017, 8, 17, tzinfo=UTC))) // DAY_MS
    assert float(spot[0][7]) == pytest.approx(4285.08 * 795.150377)


def test_five_minute_klines_come_from_spot(binance: Binance, shared_data: Path) -> None:
    """The ISO column style is read as UTC."""
    expected = rows_of(shared_data / "ohlcv" / "binance_spot_ETHUSDT_5m_2025H1.csv.gz")[100:110]
    start = to_ms(datetime(2025, 1, 1, 8, 20, tzinfo=UTC))
    served = ask_json(binance, KLINES, now_ms=AFTER_MS, symbol="ETHUSDT", interval="5m", startTime=start, limit=10)
    assert [row[4] for row in served] == [row["close"] for row in expected]
    assert served[0][0] == start


@pytest.mark.parametrize(("interval", "opened"), [("1h", OPENED_MS), ("1d", OPENED_MS // DAY_MS * DAY_MS)])
def test_the_last_row_is_served_only_while_it_is_open(binance: Binance, interval: str, opened: int) -> None:
    """Inside the last candle it is there as recorded; before it and after it, it is not."""
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": interval, "limit": 1}
    inside = ask_json(binance, KLINES, now_ms=INSIDE_MS, **query)[0]
    assert inside[0] == opened
    assert inside[6] > INSIDE_MS
    assert ask_json(binance, KLINES, now_ms=AFTER_MS, **query)[0][0] < opened
    assert ask_json(binance, KLINES, now_ms=opened - 1, **query)[0][0] < opened


def test_the_default_time_is_inside_the_newest_open_candle(recordings: Recordings) -> None:
    """The replay clock starts just after the newest candle opened."""
    now = default_now(recordings)
    assert now is not None
    assert OPENED_MS < to_ms(now) < OPENED_MS + HOUR_MS


def test_nothing_later_than_now_is_served(binance: Binance) -> None:
    """With the clock set back, later candles and settlements are not there."""
    now = to_ms(datetime(2025, 3, 5, 10, 30, tzinfo=UTC))
    rows = ask_json(binance, KLINES, now_ms=now, symbol="BTCUSDT", interval="1h", limit=5)
    funding = ask_json(binance, "/fapi/v1/fundingRate", now_ms=now, symbol="BTCUSDT", limit=5)
    assert rows[-1][0] == to_ms(datetime(2025, 3, 5, 10, tzinfo=UTC))
    assert funding[-1]["fundingTime"] == to_ms(datetime(2025, 3, 5, 8, tzinfo=UTC))


def test_a_complete_candle_around_now_shows_only_what_had_happened(binance: Binance, shared_data: Path) -> None:
    """At 10:32 the hour from 10:00 is made of its six closed 5-minute candles."""
    now = to_ms(datetime(2025, 3, 5, 10, 32, tzinfo=UTC))
    (row,) = ask_json(binance, KLINES, now_ms=now, symbol="BTCUSDT", interval="1h", limit=1)
    fine = rows_of(shared_data / "ohlcv" / "binance_spot_BTCUSDT_5m_2025H1.csv.gz")
    first = next(i for i, bar in enumerate(fine) if bar["date"] == "2025-03-05T10:00:00Z")
    parts = fine[first : first + 6]
    assert row[1] == parts[0]["open"]
    assert float(row[2]) == max(float(bar["high"]) for bar in parts)
    assert float(row[3]) == min(float(bar["low"]) for bar in parts)
    assert row[4] == parts[-1]["close"]
    assert float(row[5]) == pytest.approx(sum(float(bar["volume"]) for bar in parts), abs=1e-6)


def test_funding_keeps_the_exact_time(binance: Binance, shared_data: Path) -> None:
    """Where both recordings have a settlement, the time with its milliseconds and its text is served."""
    raw = rows_of(shared_data / "funding" / "binance_usdm_BTCUSDT_fundingRate_raw_2026Q1.csv")
    rounded = rows_of(shared_data / "funding" / "binance_usdm_BTCUSDT_funding_2025-2026.csv")
    query: dict[str, Any] = {"symbol": "BTCUSDT", "limit": 1000}
    served = ask_json(binance, "/fapi/v1/fundingRate", now_ms=AFTER_MS, startTime=0, **query)
    start = served[-1]["fundingTime"] + 1
    served += ask_json(binance, "/fapi/v1/fundingRate", now_ms=AFTER_MS, startTime=start, **query)
    by_minute = {row["fundingTime"] // MINUTE_MS: row for row in served}
    assert len(served) == len(by_minute)
    assert len(by_minute) == len(rounded) + len(raw) - 114
    for row in raw:
        found = by_minute[int(row["timestamp"]) // MINUTE_MS]
        assert (found["fundingTime"], found["fundingRate"]) == (int(row["timestamp"]), row["funding_rate"])


def test_every_symbol_of_the_files_is_a_trading_perpetual(binance: Binance) -> None:
    """ExchangeInfo is the recorded one plus the symbols of the files."""
    rows = {row["symbol"]: row for row in ask_json(binance, "/fapi/v1/exchangeInfo", now_ms=AFTER_MS)["symbols"]}
    assert len(rows) >= 122
    for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT"):
        assert (rows[symbol]["contractType"], rows[symbol]["status"]) == ("PERPETUAL", "TRADING")


def test_macro_values_equal_the_file(recordings: Recordings, shared_data: Path) -> None:
    """All observations in order, an empty cell as a point, one vintage the day after the last."""
    fred = Fred(ReplayMacro(recordings))
    expected = rows_of(shared_data / "macro" / "DTWEXBGS.csv")
    query: dict[str, Any] = {"series_id": "DTWEXBGS", "api_key": KEY, "file_type": "json"}
    body = ask_json(fred, "/series/observations", now_ms=AFTER_MS, **query)
    vintages = ask_json(fred, "/series/vintagedates", now_ms=AFTER_MS, **query)
    assert [(row["date"], row["value"]) for row in body["observations"]] == [
        (row["observation_date"], row["DTWEXBGS"] or ".") for row in expected
    ]
    assert body["observations"][0]["realtime_start"] == "2026-03-24"
    assert vintages["vintage_dates"] == ["2025-09-27"]


def test_macro_hides_what_was_not_observed_yet(recordings: Recordings) -> None:
    """With the clock set back, observations of that day and later are missing."""
    now = to_ms(datetime(2024, 5, 15, 18, tzinfo=UTC))
    body = ask_json(
        Fred(ReplayMacro(recordings)), "/series/observations", now_ms=now, series_id="VIXCLS", api_key=KEY,
        file_type="json",
    )  # fmt: skip
    assert body["observations"][-1]["date"] == "2024-05-14"


def test_coingecko_points_are_spot_closes(coingecko: CoinGecko, shared_data: Path) -> None:
    """An hourly point lies at the close of its hour; the volume is that of the 24 hours before."""
    hours = rows_of(shared_data / "ohlcv" / "binance_spot_ETHUSDT_1h_2024-2025.csv.gz")
    first = next(i for i, bar in enumerate(hours) if bar["date"] == "2024-11-01T00:00:00Z")
    start = to_ms(datetime(2024, 11, 1, 1, tzinfo=UTC))
    body = ask_json(
        coingecko, "/coins/ethereum/market_chart/range", now_ms=AFTER_MS, headers=PRO,
        **{"vs_currency": "usd", "from": start // 1000, "to": start // 1000 + 47 * 3600},
    )  # fmt: skip
    assert body["prices"] == [
        [start + i * HOUR_MS, float(bar["close"])] for i, bar in enumerate(hours[first : first + 48])
    ]
    day = hours[first - 23 : first + 1]
    volume = sum(float(bar["close"]) * float(bar["volume"]) for bar in day)
    assert body["total_volumes"][0][1] == pytest.approx(volume)
    assert body["market_caps"][0][1] is None


def test_coingecko_uses_five_minutes_where_recorded(coingecko: CoinGecko) -> None:
    """A day up to the simulated time inside the 5-minute recording has 5-minute points and ends with now."""
    now = to_ms(datetime(2025, 3, 5, 10, 32, tzinfo=UTC))
    body = ask_json(coingecko, "/coins/bitcoin/market_chart", now_ms=now, headers=PRO, vs_currency="usd", days=1)
    times = [time for time, _ in body["prices"]]
    assert len(times) == 289
    assert times[-1] == now
    assert times[-2] == now - 2 * MINUTE_MS
    assert all(volume for _, volume in body["total_volumes"])


def test_volume_is_unknown_in_the_first_day(coingecko: CoinGecko, shared_data: Path) -> None:
    """Until 24 hours are recorded the trailing volume is null."""
    hourly = ask_json(
        coingecko, "/coins/binancecoin/market_chart/range", now_ms=AFTER_MS, headers=PRO,
        **{"vs_currency": "usd", "from": "2024-09-14", "to": "2024-09-16T00:00:00Z"},
    )  # fmt: skip
    unknown = [volume is None for _, volume in hourly["total_volumes"]]
    assert unknown == [True] * 23 + [False] * 25
    hours = rows_of(shared_data / "ohlcv" / "binance_spot_BNBUSDT_1h_2024-2025.csv.gz")[:24]
    volume = sum(float(bar["close"]) * float(bar["volume"]) for bar in hours)
    assert hourly["total_volumes"][23] == [to_ms(datetime(2024, 9, 15, tzinfo=UTC)), pytest.approx(volume)]


def test_the_ranking_is_the_recorded_one(coingecko: CoinGecko) -> None:
    """Coins come in the recorded order with their recorded figures."""
    rows = ask_json(coingecko, "/coins/markets", now_ms=AFTER_MS, headers=PRO, vs_currency="usd", per_page=4)
    assert [row["id"] for row in rows] == ["bitcoin", "ethereum", "tether", "ripple"]
    assert rows[0]["market_cap"] == 569778313238


def test_a_coin_without_a_recording_has_an_empty_chart(coingecko: CoinGecko) -> None:
    """Tether is known, and has no points."""
    body = ask_json(coingecko, "/coins/tether/market_chart", now_ms=AFTER_MS, headers=PRO, vs_currency="usd", days=30)
    assert body == {"prices": [], "market_caps": [], "total_volumes": []}


def test_bybit_serves_what_is_recorded(recordings: Recordings) -> None:
    """No candles for known symbols, an error for unknown ones, recorded tickers and funding up to now."""
    service = Bybit(ReplayBybit(recordings))
    now = to_ms(datetime(2026, 9, 8, 12, tzinfo=UTC))
    kline = ask_json(service, "/v5/market/kline", now_ms=now, category="linear", symbol="BTCUSDT", interval="60")
    wrong = ask(service, "/v5/market/kline", now_ms=now, category="linear", symbol="NOPE", interval="60")
    ticker = ask_json(service, "/v5/market/tickers", now_ms=now, category="linear", symbol="BTCUSDT")
    funding = ask_json(service, "/v5/market/funding/history", now_ms=now, category="linear", symbol="BTCUSDT")
    assert kline["result"]["list"] == []
    assert json.loads(wrong.body)["retCode"] == 10001
    assert ticker["result"]["list"][0]["fundingRate"] == "0.0000523"
    times = [int(row["fundingRateTimestamp"]) for row in funding["result"]["list"]]
    assert times == sorted(times, reverse=True)
    assert times[0] == to_ms(datetime(2026, 9, 8, 8, tzinfo=UTC))


def test_any_folder_of_the_layout_works(tmp_path: Path) -> None:
    """Other symbols, intervals, dates and series, with all other folders missing."""
    ohlcv = tmp_path / "ohlcv"
    ohlcv.mkdir()
    (ohlcv / "binance_usdm_WIFUSDT_15m_2030.csv").write_text(
        "timestamp,open,high,low,close,volume,quote_volume,trades,close_time\n"
        "1893456000000,2.5,2.6,2.4,2.55,100,250,7,1893456899999\n"
        "1893456900000,2.55,2.7,2.5,2.6,50,130,3,1893457799999\n"
    )
    (ohlcv / "binance_spot_WIFUSDT_1h_2029.csv").write_text(
        "date,open,high,low,close,volume\n"
        "2029-12-31T22:00:00Z,2.4,2.5,2.3,2.45,10\n"
        "2029-12-31T23:00:00Z,2.45,2.5,2.4,2.5,20\n"
    )
    macro = tmp_path / "macro"
    macro.mkdir()
    (macro / "anything.csv").write_text("observation_date,T10Y2Y\n2029-12-27,0.5\n2029-12-28,\n")
    recordings = Recordings(tmp_path)
    now = default_now(recordings)
    assert now == datetime(2030, 1, 1, 0, 16, tzinfo=UTC)
    now_ms = to_ms(now)
    binance = Binance(ReplayBinance(recordings))
    rows = ask_json(binance, KLINES, now_ms=now_ms, symbol="WIFUSDT", interval="15m")
    (row,) = ask_json(binance, "/fapi/v1/exchangeInfo", now_ms=now_ms)["symbols"]
    coins = CoinGecko(ReplayCoinGecko(recordings))
    chart = ask_json(coins, "/coins/wif/market_chart", now_ms=now_ms, vs_currency="usd", days=2)
    fred = ask_json(
        Fred(ReplayMacro(recordings)), "/series/observations", now_ms=now_ms, series_id="T10Y2Y", api_key=KEY,
        file_type="json",
    )  # fmt: skip
    assert [r[4] for r in rows] == ["2.55", "2.6"]
    assert (row["baseAsset"], row["pricePrecision"]) == ("WIF", 3)
    assert chart["prices"] == [[to_ms(datetime(2029, 12, 31, 23, tzinfo=UTC)), 2.45], [now_ms, 2.45]]
    assert [o["value"] for o in fred["observations"]] == ["0.5", "."]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The error says which folder."""
    with pytest.raises(SimulatorError, match=r"does not exist: .*nowhere"):
        Recordings(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """A folder without any known subfolder is most likely the wrong one."""
    with pytest.raises(SimulatorError, match="nothing to replay"):
        Recordings(tmp_path)


def test_a_broken_body_is_an_answer(tmp_path: Path) -> None:
    """A recording that cannot be read shows when it is asked for, as a 500 with the file's name."""
    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / "binance_fapi_v1_fundingInfo_x.json").write_text("{")
    with running_simulator(SimulatorConfig(replay=tmp_path)) as simulator:
        reply = requests.get(f"{simulator.urls['binance']}/fapi/v1/fundingInfo", timeout=20)
    assert reply.status_code == 500
    assert "binance_fapi_v1_fundingInfo_x.json is not JSON" in reply.text


def test_a_file_with_a_missing_column_is_named(tmp_path: Path) -> None:
    """The error names file and column."""
    (tmp_path / "ohlcv").mkdir()
    (tmp_path / "ohlcv" / "binance_spot_XUSDT_1h_2029.csv").write_text("date,open\n2029-12-31T22:00:00Z,1\n")
    with pytest.raises(SimulatorError, match=r"binance_spot_XUSDT_1h_2029\.csv has no column high"):
        default_now(Recordings(tmp_path))
