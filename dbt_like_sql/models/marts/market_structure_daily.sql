{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback'),
    meta={'ended_days_only': true}
) }}

-- By hours first: that an imbalance lasts shows in how many of them have its sign.
with hours as (

    select
        coin,
        exchange,
        {{ epoch_hour('timestamp') }} as hour,
        count(*) as samples,
        -- A bit for each minute of the hour.
        bit_count(bit_or(1::bigint << ({{ epoch_minute('timestamp') }} % 60))) as minutes,
        sum(imbalance) as imbalance_sum,
        sum(liquidity_score) as liquidity_score_sum,
        sum(bid_depth_10bps_usd) as bid_depth_sum_usd,
        sum(ask_depth_10bps_usd) as ask_depth_sum_usd,
        sum((impact_buy_10k_bps + impact_sell_10k_bps) / 2) as impact_sum_bps,
        count(impact_buy_10k_bps + impact_sell_10k_bps) as impact_samples,
        max(available_at) as available_at
    from {{ source('live', 'market_structure') }}
    where coin is not null
    group by coin, exchange, {{ epoch_hour('timestamp') }}

),

book_days as (

    select
        coin,
        exchange,
        {{ utc_day('make_timestamptz(hour * 3600000000)') }} as date,
        cast(sum(samples) as bigint) as samples,
        cast(sum(minutes) as double) / 60 as hours_covered,
        count(*) as hours_sampled,
        count(*) filter (where imbalance_sum > 0) as hours_bid_heavy,
        count(*) filter (where imbalance_sum < 0) as hours_ask_heavy,
        sum(imbalance_sum order by hour) / sum(samples) as imbalance_mean,
        sum(liquidity_score_sum order by hour) / sum(samples) as liquidity_score_mean,
        sum(bid_depth_sum_usd order by hour) / sum(samples) as bid_depth_10bps_mean_usd,
        sum(ask_depth_sum_usd order by hour) / sum(samples) as ask_depth_10bps_mean_usd,
        sum(impact_sum_bps order by hour) / nullif(sum(impact_samples), 0) as impact_10k_mean_bps,
        max(available_at) as available_at
    from hours
    group by coin, exchange, date

),

spread_hours as (

    select
        coin,
        exchange,
        {{ epoch_hour('timestamp') }} as hour,
        sum(spread_bps) as spread_sum_bps,
        count(*) as samples
    from {{ source('live', 'bid_ask_spreads') }}
    where coin is not null
    group by coin, exchange, {{ epoch_hour('timestamp') }}

),

spread_days as (

    select
        coin,
        exchange,
        {{ utc_day('make_timestamptz(hour * 3600000000)') }} as date,
        sum(spread_sum_bps order by hour) / sum(samples) as spread_mean_bps
    from spread_hours
    group by coin, exchange, date

)

select
    book_days.coin,
    book_days.exchange,
    book_days.date,
    book_days.samples,
    book_days.hours_covered,
    book_days.hours_sampled,
    book_days.hours_bid_heavy,
    book_days.hours_ask_heavy,
    greatest(-1.0, least(1.0, book_days.imbalance_mean)) as imbalance_mean,
    spread_days.spread_mean_bps,
    book_days.impact_10k_mean_bps,
    book_days.bid_depth_10bps_mean_usd,
    book_days.ask_depth_10bps_mean_usd,
    book_days.liquidity_score_mean,
    greatest(
        {{ utc_midnight('book_days.date + 1') }} + to_seconds({{ var('bar_delay_s') }}),
        book_days.available_at
    ) as available_at
from book_days
left join spread_days
    on book_days.coin = spread_days.coin
    and book_days.exchange = spread_days.exchange
    and book_days.date = spread_days.date
