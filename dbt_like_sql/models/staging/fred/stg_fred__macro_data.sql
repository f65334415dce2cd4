{{ config(materialized='view', event_time='observation_date') }}

with source as (

    select * from {{ source('fred', 'macro_data') }}

)

select
    indicator,
    date as observation_date,
    value,
    vintage_date,
    pit_quality,
    available_at
from source
