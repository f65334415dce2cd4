{{ config(materialized='view', event_time='open_time') }}

with source as (

    select * from {{ source('exchanges', 'klines') }}

)

select
    coin,
    venue,
    symbol,
    "interval" as bar_interval,
    open_time,
    close_time,
    open,
    high,
    low,
    close,
    volume_base,
    volume_quote_usd,
    trades,
    available_at
from source
