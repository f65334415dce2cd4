{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback'),
    meta={'ended_days_only': true}
) }}

with opportunities as (

    select
        *,
        {{ utc_day('opened_at') }} as date
    from {{ source('live', 'arbitrage_opportunities') }}
    where coin is not null

),

-- Minutes in which two exchanges or more were seen: only there an opportunity can show.
book_minutes as (

    select
        'spread' as kind,
        coin,
        {{ epoch_minute('timestamp') }} as minute,
        max(available_at) as available_at
    from {{ source('live', 'market_structure') }}
    where coin is not null
    group by coin, {{ epoch_minute('timestamp') }}
    having min(exchange) <> max(exchange)

),

funding_minutes as (

    select
        'funding' as kind,
        coin,
        {{ epoch_minute('timestamp') }} as minute,
        max(available_at) as available_at
    from {{ source('live', 'live_funding') }}
    where coin is not null
    group by coin, {{ epoch_minute('timestamp') }}
    having min(exchange) <> max(exchange)

),

coverage as (

    select
        coin,
        {{ utc_day('make_timestamptz(minute * 60000000)') }} as date,
        kind,
        count(*) / 60 as hours_covered,
        max(available_at) as available_at
    from (
        select * from book_minutes
        union all
        select * from funding_minutes
    )
    group by coin, date, kind

),

pair_days as (

    select
        coin,
        date,
        kind,
        buy_exchange,
        sell_exchange,
        coalesce(sum(peak_net_usd order by opened_at, opportunity_id) filter (where feasible), 0) as net_usd
    from opportunities
    group by coin, date, kind, buy_exchange, sell_exchange

),

best_pairs as (

    select *
    from pair_days
    qualify row_number() over (
        partition by coin, date, kind
        order by net_usd desc, buy_exchange, sell_exchange
    ) = 1

),

summaries as (

    select
        coin,
        date,
        kind,
        count(*) as opportunities,
        count(*) filter (where feasible) as feasible_opportunities,
        count(*) filter (where feasible and net_bps_after_1000ms > 0) as lasting_opportunities,
        median(lifetime_ms) as lifetime_median_ms,
        median(peak_net_bps) as peak_net_median_bps,
        quantile_cont(peak_net_bps, 0.9) as peak_net_p90_bps,
        max(peak_net_bps) as peak_net_max_bps,
        coalesce(sum(peak_net_usd order by opened_at, opportunity_id) filter (where feasible), 0) as net_sum_usd,
        max(available_at) as available_at
    from opportunities
    group by coin, date, kind

),

days as (

    select coin, date, kind from coverage
    union
    select coin, date, kind from summaries

)

select
    days.coin,
    days.date,
    days.kind,
    coalesce(coverage.hours_covered, 0) as hours_covered,
    coalesce(summaries.opportunities, 0) as opportunities,
    coalesce(summaries.feasible_opportunities, 0) as feasible_opportunities,
    coalesce(summaries.lasting_opportunities, 0) as lasting_opportunities,
    summaries.lifetime_median_ms,
    summaries.peak_net_median_bps,
    summaries.peak_net_p90_bps,
    summaries.peak_net_max_bps,
    coalesce(summaries.net_sum_usd, 0) as net_sum_usd,
    best_pairs.buy_exchange as best_buy_exchange,
    best_pairs.sell_exchange as best_sell_exchange,
    greatest(
        {{ utc_midnight('days.date + 1') }} + to_seconds({{ var('bar_delay_s') }}),
        coverage.available_at,
        summaries.available_at
    ) as available_at
from days
left join coverage
    on days.coin = coverage.coin
    and days.date = coverage.date
    and days.kind = coverage.kind
left join summaries
    on days.coin = summaries.coin
    and days.date = summaries.date
    and days.kind = summaries.kind
left join best_pairs
    on days.coin = best_pairs.coin
    and days.date = best_pairs.date
    and days.kind = best_pairs.kind
