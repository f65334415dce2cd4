"""REST calls to the exchanges: within their budgets, with their verdicts on errors.

What belongs here: one GET with budget, timeout and classification. Retrying is the callers' business, since they
know what the answer is for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from pyrate_limiter import Limiter, Rate

from mts_realtime.errors import ExchangeError

if TYPE_CHECKING:
    from mts_realtime.clock import Clock
    from mts_realtime.exchanges.base import Exchange, RestCall


class RestClient:
    """GET calls to all exchanges over one HTTP session.

    After a refusal that names a pause, no call goes to that exchange before the pause is over: continuing turns a
    short ban into a long one.
    """

    def __init__(self, http: aiohttp.ClientSession, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._budgets: dict[str, Limiter] = {}
        self._blocked_until_ns: dict[str, int] = {}

    async def get(self, exchange: Exchange, call: RestCall) -> bytes:
        """Carry out one call.

        Raises:
            ExchangeError: When the exchange refuses, is not reachable, or has asked for a pause.
        """
        self._check_pause(exchange.name)
        if call.weight:
            await self._budget(exchange).try_acquire_async(exchange.name, weight=call.weight)
            self._check_pause(exchange.name)
        try:
            async with self._http.get(exchange.rest_root.rstrip("/") + call.path, params=dict(call.query)) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"GET {call.path} failed: {str(error) or type(error).__name__}"
            raise ExchangeError(exchange.name, problem) from error
        now_ns = self._clock.now_ns()
        refused = exchange.classify(answer.status, answer.headers, body, now_ns // 1_000_000)
        if refused is None:
            return body
        if refused.wait_s is not None:
            self._blocked_until_ns[exchange.name] = now_ns + round(refused.wait_s * 1e9)
        raise refused.error(exchange.name)

    def _check_pause(self, exchange: str) -> None:
        left_ns = self._blocked_until_ns.get(exchange, 0) - self._clock.now_ns()
        if left_ns > 0:
            raise ExchangeError(exchange, "a pause it asked for is not over yet", wait_s=left_ns / 1e9)

    def _budget(self, exchange: Exchange) -> Limiter:
        budget = self._budgets.get(exchange.name)
        if budget is None:
            weight, period_s = exchange.rest_budget
            budget = self._budgets[exchange.name] = Limiter(Rate(weight, round(period_s * 1000)))
        return budget

    async def close(self) -> None:
        """Stop the limiters and close the HTTP session."""
        for budget in self._budgets.values():
            await asyncio.to_thread(budget.close)
        await self._http.close()
