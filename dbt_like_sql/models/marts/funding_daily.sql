{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback'),
    meta={'ended_days_only': true}
) }}

with settlements as (

    select
        *,
        {{ utc_day('settled_at') }} as date
    from {{ ref('stg_exchanges__funding_rates') }}
    where kind = 'regular'
        and interval_hours is not null

),

-- The carry of a day: what its settlements were together, over the hours that they were for.
venue_days as (

    select
        coin,
        venue,
        date,
        count(*) as settlements,
        sum(interval_hours order by settled_at) as hours_covered,
        sum(funding_rate order by settled_at) / sum(interval_hours order by settled_at) * 8760 * 100
            as rate_pct_per_year,
        max(available_at) as available_at
    from settlements
    group by coin, venue, date

),

-- Long where the rate is lower. Equal rates go by the name, so that each pair has one row.
pairs as (

    select
        longs.coin,
        longs.date,
        longs.venue as long_venue,
        shorts.venue as short_venue,
        longs.rate_pct_per_year as long_rate_pct_per_year,
        shorts.rate_pct_per_year as short_rate_pct_per_year,
        shorts.rate_pct_per_year - longs.rate_pct_per_year as differential_pct_per_year,
        longs.settlements as long_settlements,
        shorts.settlements as short_settlements,
        longs.hours_covered as long_hours_covered,
        shorts.hours_covered as short_hours_covered,
        2 * ({{ taker_fee_bps('longs.venue') }} + {{ taker_fee_bps('shorts.venue') }}) as fees_bps,
        greatest(
            {{ utc_midnight('longs.date + 1') }} + to_seconds({{ var('bar_delay_s') }}),
            longs.available_at,
            shorts.available_at
        ) as available_at
    from venue_days as longs
    inner join venue_days as shorts
        on longs.coin = shorts.coin
        and longs.date = shorts.date
        and (
            longs.rate_pct_per_year < shorts.rate_pct_per_year
            or (longs.rate_pct_per_year = shorts.rate_pct_per_year and longs.venue < shorts.venue)
        )

),

hourly as (

    select
        *,
        differential_pct_per_year / 100 * 10000 / 8760 as bps_per_hour
    from pairs

)

select
    coin,
    date,
    long_venue,
    short_venue,
    long_rate_pct_per_year,
    short_rate_pct_per_year,
    differential_pct_per_year,
    long_settlements,
    short_settlements,
    long_hours_covered,
    short_hours_covered,
    fees_bps,
    cast({{ var('funding_holding_hours') }} as double) as holding_hours,
    bps_per_hour * {{ var('funding_holding_hours') }} - fees_bps as expected_net_bps,
    case when bps_per_hour > 0 then fees_bps / bps_per_hour end as break_even_hours,
    available_at
from hourly
