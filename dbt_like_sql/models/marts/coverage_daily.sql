{{ config(materialized='view') }}

with hourly_bars as (

    select
        coin,
        open_time,
        close_time,
        ohlc_method,
        {{ utc_day('open_time') }} as date
    from {{ ref('crypto_ohlcv') }}

),

daily_bars as (

    select
        coin,
        date,
        ohlc_method,
        {{ utc_midnight('date') }} as open_time,
        {{ utc_midnight('date + 1') }} as close_time
    from {{ ref('ohlcv_daily') }}

),

all_bars as (

    select coin, open_time, close_time from hourly_bars
    union all
    select coin, open_time, close_time from daily_bars where ohlc_method = 'exchange'

),

-- A coin is expected from its own first bar up to the newest bar of any coin: one that stops is a gap.
spans as (

    select
        coin,
        min(open_time) as first_open_time,
        max(max(close_time)) over () as newest_close_time
    from all_bars
    group by coin

),

calendar as (

    select
        coin,
        first_open_time,
        newest_close_time,
        cast(unnest(generate_series(
            {{ utc_day('first_open_time') }},
            {{ utc_day('newest_close_time - interval 1 microsecond') }},
            interval 1 day
        )) as date) as date
    from spans

),

hours as (

    select
        coin,
        date,
        count(*) as hours_covered,
        count(*) filter (where ohlc_method = 'exchange') as hours_exchange
    from hourly_bars
    group by coin, date

),

expected as (

    select
        calendar.coin,
        calendar.date,
        cast((
            epoch(least(calendar.newest_close_time, {{ utc_midnight('calendar.date + 1') }}))
            - epoch(greatest(calendar.first_open_time, {{ utc_midnight('calendar.date') }}))
        ) / 3600 as bigint) as hours_expected,
        coalesce(hours.hours_covered, 0) as hours_covered,
        coalesce(hours.hours_exchange, 0) as hours_exchange,
        daily_bars.ohlc_method as daily_ohlc_method
    from calendar
    left join hours
        on calendar.coin = hours.coin
        and calendar.date = hours.date
    left join daily_bars
        on calendar.coin = daily_bars.coin
        and calendar.date = daily_bars.date

)

select
    coin,
    date,
    hours_expected,
    hours_covered,
    hours_exchange,
    hours_covered - hours_exchange as hours_sampled,
    hours_expected - hours_covered as hours_missing,
    daily_ohlc_method
from expected
