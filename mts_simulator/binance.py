"""Binance USD-M futures REST: ``/fapi/v1/...`` requests in, replies out.

What belongs here: the endpoints, their parameter rules, weights and error bodies, in the exchange's
spelling. The data comes from a ``BinanceData``, seeded or recorded.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS
from mts_simulator.coins import DEFAULT_FUNDING_HOURS
from mts_simulator.intervals import INTERVALS
from mts_simulator.market import FIRST_MS
from mts_simulator.perpetuals import BinanceData, Candle, Ladder, Mark, Window
from mts_simulator.wire import Call, JsonObject, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHT_LIMIT = 2400
_FUNDING_CALLS = 500
_FUNDING_WINDOW_MS = 5 * MINUTE_MS
_BAN_MS = 2 * MINUTE_MS

_KLINE_LIMIT = 1500
_FUNDING_LIMIT = 1000
_DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
_DEPTH_LIMITS = ", ".join(str(limit) for limit in _DEPTH_WEIGHTS)
_FAR_DELIVERY_MS = 4_133_404_800_000
_RATE_LIMITS = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_LIMIT},
    {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
]


class BinanceError(Exception):
    """An answer with an error code.

    Args:
        code: Binance's code, such as -1121.
        message: Its text.
        status: HTTP status.
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Binance:
    """The REST service.

    Args:
        data: What it serves.
        enforce_limits: Answer 429 and then 418 when the weight of a minute is spent, as the exchange does.
        recorded_depth: The depth snapshot that belongs to the recorded frames of a symbol that play now, if
        any.
    """

    name = "binance"
    mount = "/binance"

    def __init__(
        self,
        data: BinanceData,
        *,
        enforce_limits: bool = False,
        recorded_depth: Callable[[str], JsonObject | None] = lambda _symbol: None,
    ) -> None:
        self._data = data
        self._recorded_depth = recorded_depth
        self._enforce = enforce_limits
        self._minute = 0
        self._used = 0
        self._banned_until_ms = 0
        self._funding_window = 0
        self._funding_calls = 0
        self._endpoints: dict[str, Callable[[Call], tuple[object, int]]] = {
            "/fapi/v1/ping": self._ping,
            "/fapi/v1/time": self._time,
            "/fapi/v1/exchangeInfo": self._exchange_info,
            "/fapi/v1/klines": self._klines,
            "/fapi/v1/depth": self._depth,
            "/fapi/v1/premiumIndex": self._premium_index,
            "/fapi/v1/fundingRate": self._funding_rate,
            "/fapi/v1/fundingInfo": self._funding_info,
            "/fapi/v1/ticker/24hr": self._ticker_24h,
        }

    def answer(self, call: Call) -> Reply:
        """The reply to one request, with the weight used this minute in its headers."""
        endpoint = self._endpoints.get(call.path)
        if endpoint is None:
            return Reply("<html><body><h2>404 Not found</h2></body></html>", 404, "text/html")
        try:
            self._check_ban(call.now_ms)
            value, weight = endpoint(call)
            self._spend(call.now_ms, weight)
        except BinanceError as error:
            body = {"code": error.code, "msg": str(error)}
            return json_reply(body, error.status, self._headers(call.now_ms))
        return json_reply(value, headers=self._headers(call.now_ms))

    def _headers(self, now_ms: int) -> dict[str, str]:
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._used)}
        if now_ms < self._banned_until_ms:
            headers["Retry-After"] = str(-(-(self._banned_until_ms - now_ms) // 1000))
        return headers

    def _check_ban(self, now_ms: int) -> None:
        if now_ms < self._banned_until_ms:
            raise BinanceError(-1003, _ban_text(self._banned_until_ms), 418)

    def _spend(self, now_ms: int, weight: int) -> None:
        """Count ``weight`` in the fixed minute of ``now_ms``; over the limit 429, far over it a ban."""
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self._used = now_ms // MINUTE_MS, 0
        self._used += weight
        if not self._enforce or self._used <= WEIGHT_LIMIT:
            return
        if self._used > WEIGHT_LIMIT * 1.25:
            self._banned_until_ms = now_ms + _BAN_MS
            raise BinanceError(-1003, _ban_text(self._banned_until_ms), 418)
        text = f"Too many requests; current limit of IP(127.0.0.1) is {WEIGHT_LIMIT} requests per minute."
        raise BinanceError(-1003, text, 429)

    def _spend_funding(self, now_ms: int) -> None:
        if now_ms // _FUNDING_WINDOW_MS != self._funding_window:
            self._funding_window, self._funding_calls = now_ms // _FUNDING_WINDOW_MS, 0
        self._funding_calls += 1
        if self._enforce and self._funding_calls > _FUNDING_CALLS:
            raise BinanceError(-1003, "Too many requests; the limit is 500 requests per 5 minutes.", 429)

    def _ping(self, _call: Call) -> tuple[object, int]:
        return {}, 1

    def _time(self, call: Call) -> tuple[object, int]:
        return {"serverTime": call.now_ms}, 1

    def _exchange_info(self, call: Call) -> tuple[object, int]:
        info = {
            "timezone": "UTC",
            "serverTime": call.now_ms,
            "futuresType": "U_MARGINED",
            "rateLimits": _RATE_LIMITS,
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": self._data.instruments(),
        }
        return info, 1

    def _klines(self, call: Call) -> tuple[object, int]:
        symbol = self._symbol(call)
        interval = INTERVALS.get(_required(call, "interval"))
        if interval is None:
            raise BinanceError(-1120, "Invalid interval.")
        window = _window(call, default=500, limit=_KLINE_LIMIT)
        rows = self._data.candles(symbol, interval, window, call.now_ms)
        return [kline_row(candle) for candle in rows], _kline_weight(window.limit)

    def _depth(self, call: Call) -> tuple[object, int]:
        symbol = self._symbol(call)
        limit = _whole(call, "limit")
        if limit is None:
            limit = 500
        if limit not in _DEPTH_WEIGHTS:
            raise BinanceError(-4021, f"{limit} is not valid depth limit. Valid limit is in {_DEPTH_LIMITS}.")
        recorded = self._recorded_depth(symbol)
        ladder = recorded_ladder(recorded, limit) if recorded else self._data.ladder(symbol, limit, call.now_ms)
        picture = {
            "lastUpdateId": ladder.update_id,
            "E": call.now_ms,
            "T": ladder.time_ms,
            "bids": ladder.bids,
            "asks": ladder.asks,
        }
        return picture, _DEPTH_WEIGHTS[limit]

    def _premium_index(self, call: Call) -> tuple[object, int]:
        if "symbol" in call.query:
            symbol = self._symbol(call)
            return self._premium(symbol, call.now_ms), 1
        return [self._premium(symbol, call.now_ms) for symbol in self._data.symbols()], 10

    def _premium(self, symbol: str, now_ms: int) -> JsonObject:
        mark = self._data.mark(symbol, now_ms) or Mark("0", "0", "0", "", 0, DEFAULT_FUNDING_HOURS)
        return {
            "symbol": symbol,
            "markPrice": mark.mark_price,
            "indexPrice": mark.index_price,
            "estimatedSettlePrice": mark.settle_price,
            "lastFundingRate": mark.rate,
            "interestRate": "0.00010000",
            "nextFundingTime": mark.next_funding_ms,
            "time": now_ms,
        }

    def _funding_rate(self, call: Call) -> tuple[object, int]:
        self._spend_funding(call.now_ms)
        timed = "startTime" in call.query or "endTime" in call.query
        window = _window(call, default=100 if timed else 200, limit=_FUNDING_LIMIT)
        symbols = [self._symbol(call)] if "symbol" in call.query else self._data.symbols()
        rows: list[JsonObject] = [
            {
                "symbol": symbol,
                "fundingTime": settled.time_ms,
                "fundingRate": settled.rate,
                "markPrice": settled.mark_price,
                "rateType": settled.rate_type,
            }
            for symbol in symbols
            for settled in self._data.settlements(symbol, window, call.now_ms)
        ]
        rows.sort(key=itemgetter("fundingTime"))
        kept = rows[-window.limit :] if window.newest else rows[: window.limit]
        return kept, 0

    def _funding_info(self, call: Call) -> tuple[object, int]:
        self._spend_funding(call.now_ms)
        return self._data.funding_info(), 0

    def _ticker_24h(self, call: Call) -> tuple[object, int]:
        if "symbol" in call.query:
            return self._ticker(self._symbol(call), call.now_ms), 1
        return [self._ticker(symbol, call.now_ms) for symbol in self._data.symbols()], 40

    def _ticker(self, symbol: str, now_ms: int) -> JsonObject:
        window = Window(now_ms - DAY_MS, now_ms, 25, newest=True)
        hours = self._data.candles(symbol, INTERVALS["1h"], window, now_ms)
        return {"symbol": symbol, **statistics_24h(hours, now_ms)}

    def _symbol(self, call: Call) -> str:
        symbol = _required(call, "symbol").upper()
        known = symbol in self._data.symbols() or any(row["symbol"] == symbol for row in self._data.instruments())
        if not known:
            raise BinanceError(-1121, "Invalid symbol.")
        return symbol


def instrument_row(symbol: str, base: str, price_decimals: int, quantity_decimals: int) -> JsonObject:
    """An ``exchangeInfo`` row of a trading USDT perpetual."""
    tick, step = (
        f"{10.0**-price_decimals:.{price_decimals}f}",
        f"{10.0**-quantity_decimals:.{quantity_decimals}f}",
    )
    lot = {"stepSize": step, "maxQty": "1000000", "minQty": step}
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _FAR_DELIVERY_MS,
        "onboardDate": FIRST_MS,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": price_decimals + 1,
        "quantityPrecision": quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": tick, "minPrice": tick, "maxPrice": "10000000"},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def recorded_ladder(body: JsonObject, levels: int) -> Ladder:
    """A recorded body of ``/fapi/v1/depth``, cut to ``levels`` a side."""
    update = int(body["lastUpdateId"])
    return Ladder(body["bids"][:levels], body["asks"][:levels], update, update, int(body.get("T", 0)))


def kline_row(candle: Candle) -> list[int | str]:
    """The twelve columns of ``/fapi/v1/klines``."""
    return [
        candle.open_ms,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.close_ms,
        candle.quote_volume,
        candle.trades,
        candle.taker_volume,
        candle.taker_quote_volume,
        "0",
    ]


def statistics_24h(hours: list[Candle], now_ms: int) -> JsonObject:
    """The members of a 24 h ticker, from the hourly candles of that day."""
    if not hours:
        return {}
    first, last = float(hours[0].open), float(hours[-1].close)
    volume = sum(float(candle.volume) for candle in hours)
    quote = sum(float(candle.quote_volume) for candle in hours)
    trades = sum(candle.trades for candle in hours)
    return {
        "priceChange": f"{last - first:.8g}",
        "priceChangePercent": f"{100 * (last / first - 1):.3f}",
        "weightedAvgPrice": f"{quote / volume:.8g}" if volume else "0",
        "lastPrice": hours[-1].close,
        "lastQty": "0.010",
        "openPrice": hours[0].open,
        "highPrice": max((candle.high for candle in hours), key=float),
        "lowPrice": min((candle.low for candle in hours), key=float),
        "volume": f"{volume:.3f}",
        "quoteVolume": f"{quote:.2f}",
        "openTime": max(hours[0].open_ms, now_ms - DAY_MS) // HOUR_MS * HOUR_MS,
        "closeTime": now_ms,
        "firstId": 1,
        "lastId": 1 + trades,
        "count": trades,
    }


def _ban_text(until_ms: int) -> str:
    return (
        f"Way too many requests; IP(127.0.0.1) banned until {until_ms}. "
        "Please use the websocket for live updates to avoid bans."
    )


def _kline_weight(limit: int) -> int:
    for bound, weight in ((100, 1), (500, 2), (1001, 5)):
        if limit < bound:
            return weight
    return 10


def _required(call: Call, name: str) -> str:
    value = call.query.get(name, "")
    if not value:
        raise BinanceError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def _whole(call: Call, name: str) -> int | None:
    value = call.query.get(name)
    if value is None:
        return None
    if not value.lstrip("-").isdigit():
        raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(value)


def _window(call: Call, default: int, limit: int) -> Window:
    start, end, rows = _whole(call, "startTime"), _whole(call, "endTime"), _whole(call, "limit")
    rows = default if rows is None else rows
    if not 0 < rows <= limit:
        raise BinanceError(-1130, "Data sent for parameter 'limit' is not valid.")
    if start is not None and end is not None and start > end:
        raise BinanceError(-1023, "Start time is greater than end time.")
    return Window(start, end, rows, newest=start is None)
