"""Bybit v5 REST, category linear: ``/v5/market/...`` requests in, replies out.

What belongs here: the endpoints, their parameter rules and return codes, in the exchange's spelling. Every
answer is HTTP 200 with a ``retCode``, except the block after too many requests, which is HTTP 403.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mts_simulator.books import STEP_MS
from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from mts_simulator.coins import COINS, Coin
from mts_simulator.intervals import BYBIT_INTERVALS, INTERVALS
from mts_simulator.market import FIRST_MS
from mts_simulator.perpetuals import BybitData, Ladder, Window
from mts_simulator.seeded import SeededPerpetuals
from mts_simulator.wire import Call, JsonObject, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

_CALLS = 600
_CALLS_WINDOW_MS = 5 * SECOND_MS
_BLOCK_MS = 10 * MINUTE_MS

_KLINE_LIMIT = 1000
_FUNDING_LIMIT = 200
_BOOK_LIMIT = 1000
_INSTRUMENT_LIMIT = 1000
_REST_BOOK_PERIOD_MS = 200

PARAMETER_ERROR = 10001


class BybitError(Exception):
    """An answer whose return code is not 0.

    Args:
        code: Bybit's code, such as 10001.
        message: Its text.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Bybit:
    """The REST service.

    Args:
        data: What it serves.
        enforce_limits: Answer 403 for ten minutes after more than 600 requests in 5 seconds.
    """

    name = "bybit"
    mount = "/bybit"

    def __init__(self, data: BybitData, *, enforce_limits: bool = False) -> None:
        self._data = data
        self._enforce = enforce_limits
        self._recent: deque[int] = deque()
        self._blocked_until_ms = 0
        self._endpoints: dict[str, Callable[[Call], JsonObject]] = {
            "/v5/market/time": self._time,
            "/v5/market/kline": self._kline,
            "/v5/market/tickers": self._tickers,
            "/v5/market/orderbook": self._orderbook,
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/funding/history": self._funding,
        }

    def answer(self, call: Call) -> Reply:
        """The reply to one request."""
        if self._blocked(call.now_ms):
            return json_reply({"retCode": 403, "retMsg": "access too frequent"}, 403)
        endpoint = self._endpoints.get(call.path)
        if endpoint is None:
            return Reply("404 page not found", 404, "text/plain")
        try:
            return _envelope(0, "OK", endpoint(call), call.now_ms)
        except BybitError as error:
            return _envelope(error.code, str(error), {}, call.now_ms)

    def _blocked(self, now_ms: int) -> bool:
        if not self._enforce:
            return False
        while self._recent and self._recent[0] <= now_ms - _CALLS_WINDOW_MS:
            self._recent.popleft()
        self._recent.append(now_ms)
        if len(self._recent) > _CALLS:
            self._blocked_until_ms = now_ms + _BLOCK_MS
        return now_ms < self._blocked_until_ms

    def _time(self, call: Call) -> JsonObject:
        return {"timeSecond": str(call.now_ms // SECOND_MS), "timeNano": str(call.now_ms * 1_000_000)}

    def _kline(self, call: Call) -> JsonObject:
        symbol = self._symbol(call)
        interval = BYBIT_INTERVALS.get(_required(call, "interval"))
        if interval is None:
            raise BybitError(PARAMETER_ERROR, "Invalid period!")
        start, end = _whole(call, "start"), _whole(call, "end")
        _check_order(start, end)
        window = Window(start, end, _limit(call, 200, _KLINE_LIMIT), newest=start is None or end is not None)
        rows = self._data.candles(symbol, interval, window, call.now_ms)
        return {
            "symbol": symbol,
            "category": "linear",
            "list": [
                [str(row.open_ms), row.open, row.high, row.low, row.close, row.volume, row.quote_volume]
                for row in reversed(rows)
            ],
        }

    def _tickers(self, call: Call) -> JsonObject:
        _category(call)
        symbols = [self._symbol(call)] if "symbol" in call.query else self._data.symbols()
        rows = [self._data.ticker(symbol, call.now_ms) for symbol in symbols]
        return {"category": "linear", "list": [row for row in rows if row is not None]}

    def _orderbook(self, call: Call) -> JsonObject:
        symbol = self._symbol(call)
        ladder = self._data.ladder(symbol, _limit(call, 25, _BOOK_LIMIT), call.now_ms)
        return {
            "s": symbol,
            "b": ladder.bids,
            "a": ladder.asks,
            "ts": call.now_ms,
            "u": ladder.update_id,
            "seq": ladder.sequence,
            "cts": ladder.time_ms,
        }

    def _instruments(self, call: Call) -> JsonObject:
        _category(call)
        rows = self._data.instruments()
        if "symbol" in call.query:
            symbol = self._symbol(call)
            rows = [row for row in rows if row["symbol"] == symbol]
        elif not call.query.get("status"):
            rows = [row for row in rows if row.get("status") == "Trading"]
        else:
            rows = [row for row in rows if row.get("status") == call.query["status"]]
        rows = sorted(rows, key=lambda row: str(row["symbol"]))
        limit, cursor = _limit(call, 500, _INSTRUMENT_LIMIT), call.query.get("cursor", "")
        first = _cursor_position(rows, cursor)
        page = rows[first : first + limit]
        more = first + limit < len(rows)
        return {
            "category": "linear",
            "list": page,
            "nextPageCursor": f"after={page[-1]['symbol']}" if more else "",
        }

    def _funding(self, call: Call) -> JsonObject:
        symbol = self._symbol(call)
        start, end = _whole(call, "startTime"), _whole(call, "endTime")
        if start is not None and end is None:
            raise BybitError(PARAMETER_ERROR, "params error: endTime is required when startTime is given")
        _check_order(start, end)
        window = Window(start, end, _limit(call, 200, _FUNDING_LIMIT), newest=True)
        rows = self._data.settlements(symbol, window, call.now_ms)
        return {
            "category": "linear",
            "list": [
                {"symbol": symbol, "fundingRate": row.rate, "fundingRateTimestamp": str(row.time_ms)}
                for row in reversed(rows)
            ],
        }

    def _symbol(self, call: Call) -> str:
        _category(call)
        symbol = _required(call, "symbol")
        known = symbol in self._data.symbols() or any(row["symbol"] == symbol for row in self._data.instruments())
        if not known:
            raise BybitError(PARAMETER_ERROR, "params error: Symbol Invalid")
        return symbol


class SeededBybit(SeededPerpetuals):
    """Seeded perpetuals with Bybit's instrument list and tickers."""

    def instruments(self) -> list[JsonObject]:
        """All perpetuals and one that was closed."""
        rows = [perpetual_row(coin) for coin in COINS if coin.has_perpetual]
        closed = {**rows[-1], "symbol": "RNDRUSDT", "baseCoin": "RNDR", "status": "Closed"}
        return [*rows, closed]

    def ladder(self, symbol: str, levels: int, now_ms: int) -> Ladder:
        """The book with the update id of the 1000-level stream, which other depths do not share."""
        moment = now_ms // _REST_BOOK_PERIOD_MS * _REST_BOOK_PERIOD_MS
        ladder = super().ladder(symbol, levels, moment)
        return ladder._replace(update_id=moment // _REST_BOOK_PERIOD_MS, sequence=cross_sequence(moment))

    def ticker(self, symbol: str, now_ms: int) -> JsonObject | None:
        """A row of ``/v5/market/tickers``."""
        mark, ladder = self.mark(symbol, now_ms), self.ladder(symbol, 1, now_ms)
        window = Window(now_ms - DAY_MS, now_ms, 25, newest=True)
        hours = self.candles(symbol, INTERVALS["1h"], window, now_ms)
        if mark is None or not hours:
            return None
        last, first = hours[-1].close, hours[0].open
        volume = sum(float(hour.volume) for hour in hours)
        turnover = sum(float(hour.quote_volume) for hour in hours)
        interest = volume * 1.1
        return {
            "symbol": symbol,
            "lastPrice": last,
            "indexPrice": f"{float(mark.index_price):.4f}",
            "markPrice": f"{float(mark.mark_price):.4f}",
            "prevPrice24h": first,
            "price24hPcnt": f"{float(last) / float(first) - 1:.6f}",
            "highPrice24h": max((hour.high for hour in hours), key=float),
            "lowPrice24h": min((hour.low for hour in hours), key=float),
            "prevPrice1h": hours[-1].open,
            "openInterest": f"{interest:.3f}",
            "openInterestValue": f"{interest * float(last):.2f}",
            "singleOpenInterest": f"{interest / 2:.3f}",
            "singleOpenInterestValue": f"{interest * float(last) / 2:.2f}",
            "turnover24h": f"{turnover:.4f}",
            "volume24h": f"{volume:.4f}",
            "fundingRate": _plain(mark.rate),
            "nextFundingTime": str(mark.next_funding_ms),
            "predictedDeliveryPrice": "",
            "basisRate": "",
            "deliveryFeeRate": "",
            "deliveryTime": "0",
            "ask1Size": ladder.asks[0][1],
            "bid1Price": ladder.bids[0][0],
            "ask1Price": ladder.asks[0][0],
            "bid1Size": ladder.bids[0][1],
            "basis": "",
            "preOpenPrice": "",
            "preQty": "",
            "curPreListingPhase": "",
            "fundingIntervalHour": str(mark.funding_hours),
            "basisRateYear": "",
            "fundingCap": "0.00333",
        }


def cross_sequence(ms: int) -> int:
    """A number that grows with time and can be compared between depths of a symbol."""
    return ms // STEP_MS * 11


def perpetual_row(coin: Coin) -> JsonObject:
    """The ``instruments-info`` row of a coin's perpetual."""
    tick = f"{10.0**-coin.price_decimals:.{coin.price_decimals}f}"
    step = f"{10.0**-coin.quantity_decimals:.{coin.quantity_decimals}f}"
    return {
        "symbol": coin.perpetual,
        "contractType": "LinearPerpetual",
        "status": "Trading",
        "baseCoin": coin.symbol,
        "quoteCoin": "USDT",
        "launchTime": str(FIRST_MS),
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(coin.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "50.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
        "lotSizeFilter": {
            "maxOrderQty": "1000000",
            "minOrderQty": step,
            "qtyStep": step,
            "postOnlyMaxOrderQty": "1000000",
            "maxMktOrderQty": "500000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": coin.bybit_funding_hours * HOUR_MS // MINUTE_MS,
        "settleCoin": "USDT",
        "copyTrading": "both",
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": False,
        "preListingInfo": None,
        "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
        "displayName": "",
        "symbolType": "",
        "forbidUplWithdrawal": False,
        "symbolId": 1,
    }


def _envelope(code: int, message: str, result: JsonObject, now_ms: int) -> Reply:
    body = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
    return json_reply(body)


def _plain(number: str) -> str:
    """A number without trailing zeros, as Bybit writes funding rates."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def _category(call: Call) -> None:
    if _required(call, "category") != "linear":
        raise BybitError(PARAMETER_ERROR, "params error: only category=linear is simulated")


def _required(call: Call, name: str) -> str:
    value = call.query.get(name, "")
    if not value:
        raise BybitError(PARAMETER_ERROR, f"params error: {name} is required")
    return value


def _whole(call: Call, name: str) -> int | None:
    value = call.query.get(name)
    if value is None or not value:
        return None
    if not value.isdigit():
        raise BybitError(PARAMETER_ERROR, f"params error: {name} must be a number")
    return int(value)


def _limit(call: Call, default: int, most: int) -> int:
    value = _whole(call, "limit")
    if value is None:
        return default
    if not 1 <= value <= most:
        raise BybitError(PARAMETER_ERROR, f"params error: limit must be in [1, {most}]")
    return value


def _check_order(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and start > end:
        raise BybitError(PARAMETER_ERROR, "params error: the start time is after the end time")


def _cursor_position(rows: list[JsonObject], cursor: str) -> int:
    if not cursor:
        return 0
    symbols = [f"after={row['symbol']}" for row in rows]
    if cursor not in symbols:
        raise BybitError(PARAMETER_ERROR, "params error: cursor is not valid")
    return symbols.index(cursor) + 1
