{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='open_time',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback')
) }}

with klines as (

    select * from {{ ref('stg_exchanges__klines') }}

),

samples as (

    select * from {{ ref('stg_coingecko__price_points') }}

),

-- A sample behind the batch proves that the batch's last sampled hour is over.
samples_after as (

    select
        coin,
        min(available_at) as first_available_at
    from {{ ref('stg_coingecko__price_points').render() }}
    where {{ after_batch('sampled_at') }}
    group by coin

),

exchange_bars as (

    select
        coin,
        open_time,
        close_time,
        open,
        high,
        low,
        close,
        volume_base,
        volume_quote_usd,
        trades,
        venue as source,
        available_at
    from klines
    where bar_interval = '1h'
    qualify row_number() over (
        partition by coin, open_time
        order by list_position({{ var('kline_venues') }}, venue) nulls last, venue
    ) = 1

),

sampled_hours as (

    select
        coin,
        {{ utc_hour('sampled_at') }} as open_time,
        arg_min(price_usd, sampled_at) as open,
        max(price_usd) as high,
        min(price_usd) as low,
        arg_max(price_usd, sampled_at) as close,
        arg_max(volume_24h_usd, sampled_at) as volume_24h_usd,
        min(available_at) as first_available_at,
        max(available_at) as last_available_at
    from samples
    group by all

),

-- No clock: an hour is over once a sample at or after its end is known, and not before.
proven_hours as (

    select
        sampled_hours.*,
        least(
            min(sampled_hours.first_available_at) over (
                partition by sampled_hours.coin
                order by sampled_hours.open_time
                rows between 1 following and unbounded following
            ),
            samples_after.first_available_at
        ) as proven_at
    from sampled_hours
    left join samples_after
        on sampled_hours.coin = samples_after.coin

),

sampled_bars as (

    select
        proven_hours.coin,
        proven_hours.open_time,
        proven_hours.open_time + interval 1 hour as close_time,
        proven_hours.open,
        proven_hours.high,
        proven_hours.low,
        proven_hours.close,
        proven_hours.volume_24h_usd,
        greatest(
            proven_hours.open_time + interval 1 hour + to_seconds({{ var('bar_delay_s') }}),
            proven_hours.last_available_at,
            proven_hours.proven_at
        ) as available_at
    from proven_hours
    anti join exchange_bars
        on proven_hours.coin = exchange_bars.coin
        and proven_hours.open_time = exchange_bars.open_time
    where proven_hours.proven_at is not null

)

select
    coin,
    open_time,
    close_time,
    open,
    high,
    low,
    close,
    volume_base,
    volume_quote_usd,
    cast(null as double) as volume_24h_usd,
    trades,
    source,
    'exchange' as ohlc_method,
    available_at
from exchange_bars

union all

select
    coin,
    open_time,
    close_time,
    open,
    high,
    low,
    close,
    cast(null as double) as volume_base,
    cast(null as double) as volume_quote_usd,
    volume_24h_usd,
    cast(null as bigint) as trades,
    'coingecko' as source,
    'sampled' as ohlc_method,
    available_at
from sampled_bars
