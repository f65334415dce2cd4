{{ config(materialized='view', event_time='sampled_at') }}

with source as (

    select * from {{ source('coingecko', 'price_points') }}

)

select
    coin,
    sampled_at,
    price_usd,
    market_cap_usd,
    volume_24h_usd,
    source_tier,
    available_at
from source
