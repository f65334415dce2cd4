"""Hours computed from stored books and funding, on numbers computed by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mts_dagster.lake.shared import session
from mts_dagster.live.derive import ONE_EXCHANGE, Derived

from .conftest import HOUR, ONE_HOUR, Rows, World, at, book_row, funding_row, ticker_row

pytestmark = pytest.mark.xdist_group("realtime_ingest")

Sides = tuple[list[tuple[float, float]], list[tuple[float, float]]]
Pair = tuple[Sides | None, Sides | None]
NO_FEES = {"MTS_BINANCE_TAKER_FEE_BPS": "0", "MTS_BYBIT_TAKER_FEE_BPS": "0"}
CHEAP, DEAR = ([(99.0, 2.0)], [(100.0, 1.0), (100.5, 2.0)]), ([(101.0, 1.5), (100.2, 9.0)], [(103.0, 1.0)])
EVEN = ([(99.0, 2.0)], [(101.0, 1.0)])


@pytest.fixture
def free(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Exchanges without fees: edges can be read off the prices."""
    for name, value in NO_FEES.items():
        monkeypatch.setenv(name, value)
    return world


def arbitrage(world: World, *columns: str) -> Rows:
    return world.rows(f"select {', '.join(columns)} from live.arbitrage_opportunities order by opened_at, symbol, kind")


def land_pair(world: World, samples: dict[float, Pair], symbol: str = "BTCUSDT") -> None:
    """Books of both exchanges at grid times: (binance, bybit), None where a book is not known."""
    for place, exchange in enumerate(("binance", "bybit")):
        rows = [
            book_row(second, exchange, *sides, symbol=symbol)
            for second, pair in samples.items()
            if (sides := pair[place]) is not None
        ]
        if rows:
            world.land("order_book", rows)


def test_the_spread_of_a_book(world: World) -> None:
    """Bid 99 x 2, ask 101 x 3: mid 100, spread 2 = 200 bps. A book without asks has none."""
    world.land("order_book", [book_row(1, "binance", [(99, 2)], [(101, 3)]), book_row(2, "binance", [(99, 2)], [])])
    world.bring_in("order_book", "bid_ask_spreads")
    assert world.rows("select * from live.bid_ask_spreads") == [
        (at(1), "binance", "BTCUSDT", "bitcoin", 99.0, 101.0, 2.0, 3.0, 100.0, 2.0, 200.0, at(1))
    ]


def test_the_structure_of_a_market(world: World) -> None:
    """Bids 99.95 x 60 and 99 x 40, asks 100.05 x 20 and 101 x 180: mid 100.

    Micro price (99.95 * 20 + 100.05 * 60) / 80 = 100.025. Within 10 bps of the mid lie 99.95 x 60 = 5,997 and
    100.05 x 20 = 2,001 USD. Imbalance (100 - 200) / 300 = -1/3. Buying 10,000 USD takes 2,001 at 100.05 and 7,999 at
    101; selling takes 5,997 at 99.95 and 4,003 of the 3,960 at 99, which are not there: unknown.
    """
    world.land("order_book", [book_row(1, "binance", [(99.95, 60), (99, 40)], [(100.05, 20), (101, 180)])])
    world.bring_in("order_book", "market_structure")
    (row,) = world.rows(
        "select mid, micro_price, bid_depth_10bps_usd, ask_depth_10bps_usd, imbalance, impact_buy_10k_bps, "
        "impact_sell_10k_bps, liquidity_score, spread_zscore, spread_trend_bps_per_minute, volume_zscore, available_at "
        "from live.market_structure"
    )
    paid = 10_000 / (2001 / 100.05 + 7999 / 101)
    assert row[:5] == pytest.approx((100.0, 100.025, 5997.0, 2001.0, -1 / 3))
    assert row[5] == pytest.approx((paid / 100 - 1) * 10_000)
    assert row[6] is None
    assert row[7] == pytest.approx(100 * 2001 / 102_001 / (1 + 10))
    assert row[8:] == (None, None, None, at(1))


def test_statistics_see_the_samples_before_the_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window 10: nine samples of 100 and 102 bps in turn end at the hour, whose first sample has 110 bps.

    Their mean is 100.89, their deviation 1.054: z = 8.64. The slope of all ten by least squares, per minute, is not 0.
    Turnover grows by 10 and 12 in turn and then by 60. Nothing of the hour before is stored again.
    """
    monkeypatch.setenv("MTS_SIGNAL_WINDOW", "10")
    spreads = [100.0, 102.0] * 4 + [100.0, 110.0]
    books = [
        book_row(second, "binance", [(1 - bps / 20_000, 1)], [(1 + bps / 20_000, 1)])
        for second, bps in zip(range(-9, 1), spreads, strict=True)
    ]
    growth = [10.0, 12.0] * 4 + [10.0, 60.0]
    tickers = [
        ticker_row(second, "binance", 1000.0 + sum(growth[: step + 1])) for step, second in enumerate(range(-9, 1))
    ]
    world.land("order_book", books)
    world.land("tickers", tickers)
    for hour in (HOUR - ONE_HOUR, HOUR):
        world.bring_in("order_book", "live_tickers", hour=hour)
    world.bring_in("market_structure")
    (row,) = world.rows(
        "select timestamp, spread_zscore, spread_trend_bps_per_minute, volume_zscore from live.market_structure"
    )
    slope = sum((step - 4.5) * bps for step, bps in enumerate(spreads)) / sum((step - 4.5) ** 2 for step in range(10))
    flows = growth[1:9]
    mean = sum(flows) / 8
    deviation = (sum((flow - mean) ** 2 for flow in flows) / 7) ** 0.5
    assert row[0] == HOUR
    assert row[1] == pytest.approx((110 - 908 / 9) / 1.0540925, rel=1e-6)
    assert row[2] == pytest.approx(slope * 60)
    assert row[3] == pytest.approx((60 - mean) / deviation)


def test_an_opportunity_opens_peaks_and_ends(free: World) -> None:
    """At 10 s and 11 s 100 can be bought and 101 be had: 1 at 1 %, then 0.5 at 50 bps while both pay; gone at 12 s.

    Walk: 1.0 bought at 100 for 101, 0.5 at 100.5 for 101; 150.25 paid, 151.5 received, 1.25 USD.
    """
    land_pair(free, {9: (EVEN, EVEN), 10: (CHEAP, DEAR), 11: (CHEAP, DEAR), 12: (EVEN, EVEN)})
    free.bring_in("order_book", "arbitrage_opportunities")
    ((identity, *facts),) = arbitrage(
        free,
        "opportunity_id",
        "kind, symbol, coin, buy_exchange, sell_exchange, opened_at, expired_at, lifetime_ms, update_count",
        "expired_reason, feasible, differential_pct_per_year, break_even_hours, available_at",
    )
    assert identity == f"spread-BTCUSDT-binance-bybit-{int(at(10).timestamp())}000000000"
    assert facts == [
        *("spread", "BTCUSDT", "bitcoin", "binance", "bybit", at(10), at(12), 2000.0, 2),
        *("edge_gone", True, None, None, at(12)),
    ]
    (numbers,) = arbitrage(
        free,
        "peak_net_usd, peak_net_bps, peak_gross_bps, peak_size_base, peak_buy_price, peak_sell_price",
        "net_bps_after_1000ms",
    )
    bps = 1.25 / 150.25 * 10_000
    assert numbers == pytest.approx((1.25, bps, bps, 1.5, 150.25 / 1.5, 101.0, bps))


def test_fees_close_an_edge(world: World) -> None:
    """100.10 against 100: 10 bps do not pay 5 and 5.5 bps; 100.11 would leave half a basis point."""
    bids = [(100.10, 1.0)]
    land_pair(world, {1: (CHEAP, (bids, [(103, 1)])), 5: (CHEAP, ([(100.12, 1.0)], [(103, 1)]))})
    world.bring_in("order_book", "arbitrage_opportunities")
    assert arbitrage(world, "opened_at") == [(at(5),)]


@pytest.mark.parametrize(
    ("after", "reason", "ended"),
    [
        ((EVEN, EVEN), "edge_gone", 11.0),
        ((EVEN, None), "book_lost", 11.0),
        ((None, None), "book_lost", 11.0),
    ],
)
def test_why_an_opportunity_ended(free: World, after: Pair, reason: str, ended: float) -> None:
    """No edge any more, or one of the books, or both, not known at the next grid time."""
    land_pair(free, {10: (CHEAP, DEAR), 11: after, 12: (EVEN, EVEN)})
    free.bring_in("order_book", "arbitrage_opportunities")
    assert arbitrage(free, "expired_reason", "expired_at") == [(reason, at(ended))]


def test_a_book_that_is_too_old_ends_it(free: World) -> None:
    """Sampled every second, but not updated for 2 s: the live limit of 1.5 s holds here too."""
    for second, age_ms in ((10, 100.0), (11, 2000.0)):
        free.land("order_book", [book_row(second, "binance", *CHEAP, age_ms=age_ms)])
        free.land("order_book", [book_row(second, "bybit", *DEAR, age_ms=age_ms)])
    free.bring_in("order_book", "arbitrage_opportunities")
    assert arbitrage(free, "expired_reason", "update_count") == [("book_too_old", 1)]


def test_the_end_of_the_hour_ends_what_is_alive(free: World) -> None:
    """Alive at 13:59:59: expired at 14:00:00, and found again by the next hour."""
    land_pair(free, dict.fromkeys((3598, 3599, 3600), (CHEAP, DEAR)))
    for hour in (HOUR, HOUR + ONE_HOUR):
        free.bring_in("order_book", "arbitrage_opportunities", hour=hour)
    assert arbitrage(free, "opened_at", "expired_at", "expired_reason") == [
        (at(3598), at(3600), "hour_ended"),
        (at(3600), at(3601), "book_lost"),
    ]


def test_what_is_alive_in_the_running_hour_has_not_ended(free: World) -> None:
    """At 13:00:20 nothing is known of its end; it is stored by a later run."""
    land_pair(free, dict.fromkeys((10, 11, 12), (CHEAP, DEAR)))
    free.bring_in("order_book", "arbitrage_opportunities", now=HOUR + timedelta(seconds=20))
    assert arbitrage(free, "opened_at") == []
    free.bring_in("order_book", "arbitrage_opportunities")
    assert arbitrage(free, "opened_at", "expired_reason") == [(at(10), "book_lost")]


def test_books_of_one_exchange_give_no_rows_and_say_so(world: World) -> None:
    """Not an error, and not silent."""
    world.land("order_book", [book_row(second, "binance", *CHEAP) for second in range(3)])
    _, done = world.bring_in("order_book", "arbitrage_opportunities")
    assert isinstance(done, Derived)
    assert (done.rows_stored, done.note) == (0, f"{ONE_EXCHANGE} (binance)")


def test_unequal_funding_is_an_opportunity(world: World) -> None:
    """0.06 % against 0.01 % every 8 hours: 0.05 % * 1095 = 54.75 % a year, from the second rate on.

    Held for 24 hours it settles at 16:00, 00:00 and 08:00: 3 * 5 bps, less 2 * (5 + 5.5) bps of fees = -6 bps. The
    fees are paid after 21 bps / (5475 bps / 8760 h) = 33.6 hours. At 20 s the rates are equal.
    """
    world.land("funding", [funding_row(1, "binance", 0.0001), funding_row(20, "binance", 0.0006)])
    world.land("funding", [funding_row(2, "bybit", 0.0006, mark=101.0), funding_row(15, "bybit", 0.0006, mark=101.0)])
    world.bring_in("live_funding", "arbitrage_opportunities")
    (row,) = arbitrage(
        world,
        "kind, buy_exchange, sell_exchange, opened_at, expired_at, expired_reason, update_count, feasible",
        "peak_net_bps, peak_gross_bps, peak_net_usd, peak_size_base, differential_pct_per_year, break_even_hours",
    )
    assert row[:8] == ("funding", "binance", "bybit", at(2), at(20), "edge_gone", 2, False)
    assert row[8:] == pytest.approx((-6.0, 15.0, -60.0, 1000.0, 54.75, 33.6))


def test_funding_that_falls_silent_is_no_longer_known(world: World) -> None:
    """One exchange is not heard of for 30 s: the opportunity ends then, not when somebody notices."""
    world.land("funding", [funding_row(1, "binance", 0.0001)])
    world.land("funding", [funding_row(second, "bybit", 0.0006) for second in range(2, 60)])
    world.bring_in("live_funding", "arbitrage_opportunities")
    assert arbitrage(world, "expired_reason", "expired_at") == [("funding_lost", at(31))]


def test_symbols_are_compared_with_themselves_only(free: World) -> None:
    """A cheap coin here and a dear coin there are no opportunity; each pair has its own."""
    land_pair(free, {1: (CHEAP, None)}, "ETHUSDT")
    land_pair(free, {1: (None, DEAR)}, "BNBUSDT")
    land_pair(free, {1: (CHEAP, DEAR)}, "BTCUSDT")
    land_pair(free, {1: (DEAR, CHEAP)}, "XRPUSDT")
    free.bring_in("order_book", "arbitrage_opportunities")
    assert arbitrage(free, "symbol", "buy_exchange") == [("BTCUSDT", "binance"), ("XRPUSDT", "bybit")]


def test_a_change_of_fees_may_leave_an_hour_without_opportunities(free: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed again with fees of 1 %, the hour has none: its inputs are there, so nothing old stays."""
    land_pair(free, {10: (CHEAP, DEAR), 11: (EVEN, EVEN)})
    free.bring_in("order_book", "arbitrage_opportunities")
    assert len(arbitrage(free, "symbol")) == 1
    monkeypatch.setenv("MTS_BINANCE_TAKER_FEE_BPS", "100")
    free.bring_in("arbitrage_opportunities")
    assert arbitrage(free, "symbol") == []


def test_a_computed_hour_without_inputs_is_left_alone(free: World) -> None:
    """Somebody emptied the books: what was computed from them is all that is left."""
    land_pair(free, {10: (CHEAP, DEAR), 11: (EVEN, EVEN)})
    free.bring_in("order_book", "bid_ask_spreads", "market_structure", "arbitrage_opportunities")
    with session(free.settings, read_only=False) as con:
        con.execute("delete from live.order_book")
    before = free.stored()
    free.bring_in("bid_ask_spreads", "market_structure", "arbitrage_opportunities")
    assert free.stored() == before
    assert len(before["arbitrage_opportunities"]) == 1
