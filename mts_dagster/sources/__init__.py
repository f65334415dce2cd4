"""Clients of the outside: CoinGecko, FRED, Binance and Bybit over one resilient HTTP session.

What belongs here: asking a service, understanding its answer, and returning frames that fit the contracts of
``mts_dagster.schemas``. What does not: storage, partitions, decisions about which window to fetch. Nothing here
imports Dagster.
"""
