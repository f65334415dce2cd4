{{ config(materialized='view', event_time='settled_at') }}

with source as (

    select * from {{ source('exchanges', 'funding_rates') }}

)

select
    coin,
    venue,
    symbol,
    settled_at,
    funding_rate,
    mark_price,
    interval_hours,
    kind,
    available_at
from source
