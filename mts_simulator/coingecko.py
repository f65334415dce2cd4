"""CoinGecko v3: requests in, replies out, with the rules of the plans.

What belongs here: the endpoints on the public host (keyless, Demo) and on the Pro host, key checks, the
365-day limit, automatic granularity, error bodies in the three shapes the service uses. The data comes from
a ``CoinGeckoData``, seeded or recorded.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mts_simulator.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, from_ms
from mts_simulator.wire import Call, JsonObject, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

FIVE_MINUTES_MS = 5 * MINUTE_MS

_PUBLIC_DAYS = 365
_HOURLY_DAYS = 90
_HOURLY_DAYS_ASKED = 100
_CALLS_A_MINUTE = 100
_OHLC_DAYS = ("1", "7", "14", "30", "90", "180", "365", "max")
_HALF_HOUR_MS = 30 * MINUTE_MS
_COIN_PATH = re.compile(r"/coins/(?P<id>[^/]+)(?:/(?P<endpoint>.+))?")
_PRICING = "https://www.coingecko.com/en/api/pricing"


class Point(NamedTuple):
    """One point of a chart; cap and volume are None where the data mode knows none."""

    time_ms: int
    price: float
    market_cap: float | None
    volume_24h: float | None


class CoinGeckoData(Protocol):
    """The data behind CoinGecko."""

    @property
    def first_ms(self) -> int:
        """Time of the first point of any coin."""

    def coins(self, now_ms: int) -> list[JsonObject]:
        """Rows of ``/coins/markets``, the largest market cap first."""

    def chart(self, coin_id: str, start_ms: int, end_ms: int, step_ms: int, now_ms: int) -> list[Point]:
        """Points in ``[start_ms, end_ms]`` about every ``step_ms``; one that reaches now ends with now."""


class CoinGeckoError(Exception):
    """An answer that is an error, with its whole body."""

    def __init__(self, status: int, body: JsonObject, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(body))
        self.reply = json_reply(body, status, headers)


class CoinGecko:
    """The service on one of its two hosts.

    Args:
        data: What it serves.
        pro: Whether this is the Pro host.
        enforce_limits: Answer 429 after 100 calls in a minute.
    """

    def __init__(self, data: CoinGeckoData, *, pro: bool = False, enforce_limits: bool = False) -> None:
        self.name = "coingecko_pro" if pro else "coingecko"
        self.mount = "/coingecko-pro/api/v3" if pro else "/coingecko/api/v3"
        self._data = data
        self._pro = pro
        self._enforce = enforce_limits
        self._recent: deque[int] = deque()
        self._calls = 0
        self._endpoints: dict[str, Callable[[Call], object]] = {
            "/ping": lambda _call: {"gecko_says": "(V3) To the Moon!"},
            "/key": self._key,
            "/coins/list": self._list,
            "/coins/markets": self._markets,
        }
        self._coin_endpoints: dict[str, Callable[[Call, JsonObject], object]] = {
            "": self._coin,
            "market_chart": self._market_chart,
            "market_chart/range": self._market_chart_range,
            "ohlc": self._ohlc,
        }

    def answer(self, call: Call) -> Reply:
        """The reply to one request."""
        try:
            self._check_key(call)
            self._check_rate(call.now_ms)
            value = self._value(call)
        except CoinGeckoError as error:
            return error.reply
        self._calls += 1
        return json_reply(value)

    def _value(self, call: Call) -> object:
        if call.path in self._endpoints:
            return self._endpoints[call.path](call)
        coin = _COIN_PATH.fullmatch(call.path)
        if coin and (coin["endpoint"] or "") in self._coin_endpoints:
            return self._coin_endpoints[coin["endpoint"] or ""](call, self._known(call, coin["id"]))
        raise CoinGeckoError(404, {"error": "Incorrect path. Please check https://docs.coingecko.com"})

    def _check_key(self, call: Call) -> None:
        pro = call.headers.get("x-cg-pro-api-key") or call.query.get("x_cg_pro_api_key")
        demo = call.headers.get("x-cg-demo-api-key") or call.query.get("x_cg_demo_api_key")
        advice = "If you are using {} API key, please change your root URL from {} to {}"
        public, paid = "api.coingecko.com", "pro-api.coingecko.com"
        if self._pro and demo:
            raise CoinGeckoError(400, _error(call, 10011, advice.format("Demo", paid, public)))
        if self._pro and not pro:
            raise CoinGeckoError(401, _error(call, 10002, "API Key Missing"))
        if not self._pro and pro:
            raise CoinGeckoError(400, _error(call, 10010, advice.format("Pro", public, paid)))

    def _check_rate(self, now_ms: int) -> None:
        if not self._enforce:
            return
        while self._recent and self._recent[0] <= now_ms - MINUTE_MS:
            self._recent.popleft()
        if len(self._recent) >= _CALLS_A_MINUTE:
            text = (
                f"You've exceeded the Rate Limit. Please visit {_PRICING} "
                "to subscribe to our API plans for higher rate limits."
            )
            body = {"status": {"error_code": 429, "error_message": text}}
            wait_s = -(-(self._recent[0] + MINUTE_MS - now_ms) // SECOND_MS)
            raise CoinGeckoError(429, body, {"Retry-After": str(wait_s)})
        self._recent.append(now_ms)

    def _known(self, call: Call, coin_id: str) -> JsonObject:
        for row in self._data.coins(call.now_ms):
            if row["id"] == coin_id:
                return row
        raise CoinGeckoError(404, {"error": "coin not found"})

    def _key(self, call: Call) -> object:
        if not self._pro:
            raise CoinGeckoError(401, _error(call, 10005, "This request is limited to PRO API subscribers."))
        credit = 500_000
        return {
            "plan": "Analyst",
            "rate_limit_request_per_minute": 500,
            "monthly_call_credit": credit,
            "current_total_monthly_calls": self._calls,
            "current_remaining_monthly_calls": credit - self._calls,
        }

    def _list(self, call: Call) -> object:
        return [{name: row[name] for name in ("id", "symbol", "name")} for row in self._data.coins(call.now_ms)]

    def _markets(self, call: Call) -> object:
        _check_currency(call)
        rows = self._data.coins(call.now_ms)
        for parameter, name in (("ids", "id"), ("symbols", "symbol")):
            if call.query.get(parameter):
                wanted = call.query[parameter].lower().split(",")
                rows = [row for row in rows if str(row[name]).lower() in wanted]
        if call.query.get("order") == "market_cap_asc":
            rows = rows[::-1]
        size, page = _whole(call, "per_page", 100), _whole(call, "page", 1)
        size = min(max(size, 1), 250)
        return rows[(page - 1) * size : page * size]

    def _coin(self, _call: Call, row: JsonObject) -> object:
        names = ("current_price", "market_cap", "total_volume", "high_24h", "low_24h")
        figures = {name: {"usd": row.get(name)} for name in names}
        supply = {name: row.get(name) for name in ("circulating_supply", "total_supply", "max_supply")}
        return {
            "id": row["id"],
            "symbol": row["symbol"],
            "name": row["name"],
            "market_cap_rank": row.get("market_cap_rank"),
            "market_data": {**figures, **supply, "last_updated": row.get("last_updated")},
            "last_updated": row.get("last_updated"),
        }

    def _market_chart(self, call: Call, row: JsonObject) -> object:
        _check_currency(call)
        days = call.query.get("days", "")
        if days == "max":
            start = self._data.first_ms
            self._check_range(call, start)
        elif days.replace(".", "", 1).isdigit() and float(days) > 0:
            start = call.now_ms - int(float(days) * DAY_MS)
            if float(days) > _PUBLIC_DAYS:
                self._check_range(call, start)
        else:
            raise CoinGeckoError(422, {"error": "Missing parameter days" if not days else "invalid days"})
        return self._chart(call, row, start, call.now_ms)

    def _market_chart_range(self, call: Call, row: JsonObject) -> object:
        _check_currency(call)
        start, end = _moment(call, "from"), _moment(call, "to")
        if end < start:
            raise CoinGeckoError(400, {"error": "invalid range: 'from' is after 'to'"})
        self._check_range(call, start)
        return self._chart(call, row, start, min(end, call.now_ms))

    def _check_range(self, call: Call, start_ms: int) -> None:
        """Public users see the past 365 days, counted in whole days."""
        oldest = (call.now_ms // DAY_MS - _PUBLIC_DAYS) * DAY_MS
        if self._pro or start_ms >= oldest:
            return
        text = (
            "Your request exceeds the allowed time range. Public API users are limited to querying "
            "historical data within the past 365 days. Upgrade to a paid plan to enjoy full historical data "
            f"access: {_PRICING}. "
        )
        status = {"timestamp": _iso(call.now_ms), "error_code": 10012, "error_message": text}
        raise CoinGeckoError(401, {"error": {"status": status}})

    def _chart(self, call: Call, row: JsonObject, start: int, end: int) -> JsonObject:
        step = self._step(call, start, end)
        points = self._data.chart(row["id"], start, end, step, call.now_ms)
        return {
            "prices": [[point.time_ms, point.price] for point in points],
            "market_caps": [[point.time_ms, point.market_cap] for point in points],
            "total_volumes": [[point.time_ms, point.volume_24h] for point in points],
        }

    def _step(self, call: Call, start: int, end: int) -> int:
        """Spacing of the points: as asked, else by the length of the range."""
        asked = call.query.get("interval", "")
        if asked == "daily":
            return DAY_MS
        if asked == "hourly":
            if end - start > _HOURLY_DAYS_ASKED * DAY_MS:
                raise CoinGeckoError(400, {"error": "interval=hourly covers at most 100 days per request"})
            return HOUR_MS
        if asked == "5m":
            raise CoinGeckoError(401, _error(call, 10005, "interval=5m is limited to Enterprise plan subscribers."))
        if asked:
            raise CoinGeckoError(400, {"error": "invalid interval"})
        if end - start > _HOURLY_DAYS * DAY_MS:
            return DAY_MS
        of_today = end >= call.now_ms - call.now_ms % DAY_MS
        return FIVE_MINUTES_MS if of_today and end - start <= DAY_MS else HOUR_MS

    def _ohlc(self, call: Call, row: JsonObject) -> object:
        _check_currency(call)
        days = call.query.get("days", "")
        if days not in _OHLC_DAYS:
            raise CoinGeckoError(422, {"error": "invalid days, must be one of " + ", ".join(_OHLC_DAYS)})
        if days == "max":
            self._check_range(call, self._data.first_ms)
        start = self._data.first_ms if days == "max" else call.now_ms - int(days) * DAY_MS
        length = self._candle_ms(call, days)
        first = -(-start // length) * length
        sampled = FIVE_MINUTES_MS if length == _HALF_HOUR_MS else HOUR_MS
        points = self._data.chart(row["id"], first, call.now_ms, sampled, call.now_ms)
        return _candles(points, length, call.now_ms)

    def _candle_ms(self, call: Call, days: str) -> int:
        asked = call.query.get("interval", "")
        if asked in ("daily", "hourly"):
            if not self._pro:
                text = "The interval parameter is limited to paid plan subscribers."
                raise CoinGeckoError(401, _error(call, 10005, text))
            return DAY_MS if asked == "daily" else HOUR_MS
        if asked:
            raise CoinGeckoError(400, {"error": "invalid interval"})
        if days == "1":
            return _HALF_HOUR_MS
        return 4 * HOUR_MS if days in ("7", "14", "30") else 4 * DAY_MS


def _candles(points: list[Point], length_ms: int, now_ms: int) -> list[list[float]]:
    """Complete candles of sampled points, stamped with their close."""
    prices: dict[int, list[float]] = {}
    for point in points:
        prices.setdefault(point.time_ms // length_ms, []).append(point.price)
    return [
        [(slot + 1) * length_ms, line[0], max(line), min(line), line[-1]]
        for slot, line in sorted(prices.items())
        if (slot + 1) * length_ms <= now_ms
    ]


def _error(call: Call, code: int, text: str) -> JsonObject:
    """The shape with the code at the top and the text inside ``status``."""
    return {"timestamp": _iso(call.now_ms), "error_code": code, "status": {"error_message": text}}


def _iso(ms: int) -> str:
    return from_ms(ms).isoformat(timespec="milliseconds")


def _check_currency(call: Call) -> None:
    currency = call.query.get("vs_currency", "")
    if not currency:
        raise CoinGeckoError(422, {"error": "Missing parameter vs_currency"})
    if currency.lower() != "usd":
        raise CoinGeckoError(400, {"error": "invalid vs_currency"})


def _whole(call: Call, name: str, default: int) -> int:
    value = call.query.get(name, "")
    if not value:
        return default
    if not value.isdigit() or int(value) < 1:
        raise CoinGeckoError(400, {"error": f"invalid {name}"})
    return int(value)


def _moment(call: Call, name: str) -> int:
    """A bound of a range: Unix seconds (milliseconds are not understood) or an ISO date."""
    value = call.query.get(name, "")
    if not value:
        raise CoinGeckoError(422, {"error": f"Missing parameter {name}"})
    if value.replace(".", "", 1).isdigit():
        return int(float(value) * SECOND_MS)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise CoinGeckoError(400, {"error": f"invalid {name}"}) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * SECOND_MS)
