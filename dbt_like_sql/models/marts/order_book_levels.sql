{{ config(materialized='view', event_time='timestamp') }}

{# The books are named twice on purpose: what stands once, in a "with", is computed whole before it is filtered. -#}
with sides as (

    select exchange, symbol, "timestamp", 'bid' as side, bid_prices as prices, bid_sizes as sizes, available_at
    from {{ source('live', 'order_book') }}

    union all

    select exchange, symbol, "timestamp", 'ask' as side, ask_prices as prices, ask_sizes as sizes, available_at
    from {{ source('live', 'order_book') }}

)

-- Lists that are unnested side by side go on together: price and quantity of a level stay in one row.
select
    exchange,
    symbol,
    "timestamp",
    side,
    unnest(range(1, len(prices) + 1)) as level,
    unnest(prices) as price,
    unnest(sizes) as quantity,
    available_at
from sides
