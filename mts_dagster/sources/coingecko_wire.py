"""CoinGecko's answers: arrays and rows to frames, error bodies to errors.

What belongs here: pure functions over parsed JSON. Who is asked, and for what, is in ``coingecko``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from mts_dagster.schemas import CoinUniverse, PricePoints
from mts_dagster.sources.errors import (
    BlockedByLocationError,
    PlanLimitError,
    SourceError,
    Subject,
    UnauthorisedError,
    UnknownSymbolError,
)
from mts_dagster.sources.frames import conform, from_epoch_ms, utc_times
from mts_dagster.sources.replies import Reply, rate_limited

NAME = "coingecko"
NOT_FOUND, TOO_MANY = 404, 429
PAUSE_AFTER_LIMIT = timedelta(minutes=1)
CODES: dict[int, tuple[type[SourceError], str, str]] = {
    10002: (UnauthorisedError, "a key is needed", "set MTS_COINGECKO_API_KEY and MTS_COINGECKO_PLAN"),
    10005: (PlanLimitError, "the plan does not include this", "use a larger plan"),
    10010: (UnauthorisedError, "the key belongs to a Pro plan", "set MTS_COINGECKO_PLAN=pro"),
    10011: (UnauthorisedError, "the key belongs to the Demo plan", "set MTS_COINGECKO_PLAN=demo"),
    10012: (PlanLimitError, "the plan does not go back that far", "ask for less history, or use a larger plan"),
    1020: (BlockedByLocationError, "refused by its network's firewall", "use another network"),
}

Sample = tuple[int, float, float | None, float | None]
"""Time ms, price, market cap, trailing 24 h volume."""


def read_chart(answer: dict[str, list[list[Any]]]) -> tuple[list[Sample], int]:
    """Samples of ``market_chart``, ascending, and how many had no positive price."""
    caps, volumes = dict(answer["market_caps"]), dict(answer["total_volumes"])
    priced = {int(moment): price for moment, price in answer["prices"] if price is not None and price > 0}
    samples = [
        (moment, float(price), _number(caps.get(moment)), _number(volumes.get(moment)))
        for moment, price in sorted(priced.items())
    ]
    return samples, len(answer["prices"]) - len(samples)


def read_ohlc(rows: list[list[Any]]) -> list[tuple[int, float, float, float, float]]:
    """Rows of ``/ohlc``: close time ms and four prices; rows with a null price are left out."""
    return [
        (int(row[0]), float(row[1]), float(row[2]), float(row[3]), float(row[4])) for row in rows if None not in row
    ]


def read_ranking(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``/coins/markets`` in our words; a coin without a rank is left out."""
    return [
        {
            "coin": str(row["id"]),
            "symbol": str(row["symbol"]).upper(),
            "name": str(row["name"]),
            "rank": int(row["market_cap_rank"]),
            "market_cap_usd": _number(row["market_cap"]),
            "price_usd": _number(row["current_price"]),
            "volume_24h_usd": _number(row["total_volume"]),
        }
        for row in rows
        if row["market_cap_rank"] is not None
    ]


def ranking_frame(rows: list[dict[str, Any]], *, top_n: int, now: datetime, source_tier: str) -> pd.DataFrame:
    """A ranking taken now, as ``schemas.CoinUniverse``."""
    frame = pd.DataFrame(
        rows, columns=["coin", "symbol", "name", "rank", "market_cap_usd", "price_usd", "volume_24h_usd"]
    )
    frame = frame.sort_values("rank", ignore_index=True).assign(
        date=pd.Timestamp(now.astimezone(UTC).date()),
        in_universe=lambda ranked: ranked["rank"] <= top_n,
        ranking_source="live_ranking",
        source_tier=source_tier,
        available_at=pd.Timestamp(now),
    )
    return conform(frame, CoinUniverse, NAME, Subject(f"top {top_n} coins"))


def points_frame(parts: list[tuple[str, list[Sample]]], *, coin: str, delay_s: float) -> pd.DataFrame:
    """Samples with their tiers, as ``schemas.PricePoints``; known ``delay_s`` after the time of the sample."""
    rows = {sample[0]: (*sample, tier) for tier, samples in parts for sample in samples}
    frame = pd.DataFrame(
        sorted(rows.values()), columns=["moment", "price_usd", "market_cap_usd", "volume_24h_usd", "source_tier"]
    )
    sampled_at = utc_times(frame["moment"].tolist())
    frame = frame.assign(coin=coin, sampled_at=sampled_at, available_at=sampled_at + timedelta(seconds=delay_s))
    return conform(frame, PricePoints, NAME, Subject(coin))


def ohlc_frame(
    rows: list[tuple[int, float, float, float, float]],
    *,
    coin: str,
    span: timedelta,
    now: datetime,
    source_tier: str,
    delay_s: float,
) -> pd.DataFrame:
    """Candles of ``/ohlc`` that have closed."""
    closed = sorted(row for row in rows if from_epoch_ms(row[0]) <= now)
    close_time = utc_times([row[0] for row in closed])
    prices = pd.DataFrame([row[1:] for row in closed], columns=["open", "high", "low", "close"], dtype="float64")
    frame = prices.assign(
        coin=coin,
        open_time=close_time - span,
        close_time=close_time,
        source_tier=source_tier,
        available_at=close_time + timedelta(seconds=delay_s),
    )
    order = ["coin", "open_time", "close_time", "open", "high", "low", "close", "source_tier", "available_at"]
    return frame[order]


def _number(value: Any) -> float | None:  # noqa: ANN401 - JSON
    return None if value is None else float(value)


def vendor_code(document: Any) -> int | None:  # noqa: ANN401 - JSON
    """Code of an error body: at the top, under ``status``, or under ``error`` or its ``status``."""
    if not isinstance(document, dict):
        return None
    error = document.get("error")
    nested = error.get("status") if isinstance(error, dict) else None
    places = (document, document.get("status"), error, nested)
    codes = (place.get("error_code") for place in places if isinstance(place, dict))
    return next((int(str(code)) for code in codes if str(code).isdigit()), None)


def judge(reply: Reply, document: Any, now: datetime) -> SourceError | None:  # noqa: ANN401 - JSON
    """Read CoinGecko's codes, wherever the body has put them."""
    code = vendor_code(document)
    if TOO_MANY in (reply.status, code):
        limited = rate_limited(NAME, reply, now, otherwise=now + PAUSE_AFTER_LIMIT)
        limited.advice = "lower MTS_COINGECKO_REQUESTS_PER_MINUTE, or use a Demo key (free) with MTS_COINGECKO_PLAN"
        return limited
    if code in CODES:
        kind, problem, advice = CODES[code]
        return kind(NAME, f"{problem} (error {code})", advice=advice)
    if reply.status == NOT_FOUND:
        return UnknownSymbolError(NAME, "unknown coin", advice="use the coin's id, e.g. binancecoin for BNB")
    return None
