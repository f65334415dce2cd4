{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback')
) }}

with klines as (

    select * from {{ ref('stg_exchanges__klines') }}

),

bars as (

    select
        *,
        {{ utc_day('open_time') }} as date
    from {{ ref('crypto_ohlcv') }}

),

samples as (

    select * from {{ ref('stg_coingecko__price_points') }}

),

-- A bar behind the batch proves that the batch's last day is over where its last hour has no bar.
bars_after as (

    select
        coin,
        min(open_time) as open_time,
        min(available_at) as available_at
    from {{ ref('crypto_ohlcv').render() }}
    where {{ after_batch('open_time') }}
    group by coin

),

venue_days as (

    select
        coin,
        {{ utc_day('open_time') }} as date,
        open,
        high,
        low,
        close,
        volume_base,
        volume_quote_usd,
        venue as source,
        available_at
    from klines
    where bar_interval = '1d'
    qualify row_number() over (
        partition by coin, open_time
        order by list_position({{ var('kline_venues') }}, venue) nulls last, venue
    ) = 1

),

hourly_days as (

    select
        coin,
        date,
        {{ utc_midnight('date + 1') }} as day_end,
        arg_min(open, open_time) as open,
        max(high) as high,
        min(low) as low,
        arg_max(close, open_time) as close,
        sum(volume_base order by open_time) as volume_base,
        sum(volume_quote_usd order by open_time) as volume_quote_usd,
        max(volume_24h_usd) filter (where close_time = {{ utc_midnight('date + 1') }}) as volume_24h_usd,
        if(count(distinct source) = 1, any_value(source), 'mixed') as source,
        case
            when not bool_and(ohlc_method = 'exchange') then 'sampled'
            when count(*) = 24 then 'exchange_hourly'
            else 'exchange_hourly_partial'
        end as ohlc_method,
        count(*) as hours_covered,
        max(available_at) as last_available_at
    from bars
    group by coin, date

),

-- No clock: a day is over once its last hour, or any later one, has a bar.
ends as (

    select
        coin,
        open_time,
        min(available_at) over (
            partition by coin
            order by open_time
            rows between current row and unbounded following
        ) as proven_at
    from (
        select coin, open_time, available_at from bars
        union all
        select coin, open_time, available_at from bars_after
    )

),

-- Days with a sampled hour whose own end is not proven yet: its bar is still to come.
waiting_days as (

    select distinct
        samples.coin,
        {{ utc_day('samples.sampled_at') }} as date
    from samples
    anti join bars
        on samples.coin = bars.coin
        and {{ utc_hour('samples.sampled_at') }} = bars.open_time

),

closed_days as (

    select
        hourly_days.*,
        ends.proven_at
    from hourly_days
    asof join ends
        on hourly_days.coin = ends.coin
        and hourly_days.day_end - interval 1 hour <= ends.open_time
    anti join waiting_days
        on hourly_days.coin = waiting_days.coin
        and hourly_days.date = waiting_days.date

)

select
    coin,
    date,
    open,
    high,
    low,
    close,
    volume_base,
    volume_quote_usd,
    cast(null as double) as volume_24h_usd,
    source,
    'exchange' as ohlc_method,
    cast(24 as bigint) as hours_covered,
    available_at
from venue_days

union all

-- Sums over a part of the day, or over bars without volume, are not the day's volume: null.
select
    closed_days.coin,
    closed_days.date,
    closed_days.open,
    closed_days.high,
    closed_days.low,
    closed_days.close,
    if(closed_days.ohlc_method = 'exchange_hourly', closed_days.volume_base, null) as volume_base,
    if(closed_days.ohlc_method = 'exchange_hourly', closed_days.volume_quote_usd, null) as volume_quote_usd,
    closed_days.volume_24h_usd,
    closed_days.source,
    closed_days.ohlc_method,
    closed_days.hours_covered,
    greatest(
        closed_days.day_end + to_seconds({{ var('bar_delay_s') }}),
        closed_days.last_available_at,
        closed_days.proven_at
    ) as available_at
from closed_days
anti join venue_days
    on closed_days.coin = venue_days.coin
    and closed_days.date = venue_days.date
