{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback'),
    meta={'input_lookback_days': 120, 'ended_days_only': true}
) }}

with vintages as (

    select
        *,
        {{ superseded_at() }} as superseded_at
    from {{ ref('stg_fred__macro_data').render() }}
    where {{ day_in_lookback('observation_date') }}

),

-- An indicator has a row for every day from the first one at whose end anything of it was known.
indicators as (

    select
        indicator,
        min(available_at) as first_known_at
    from {{ ref('stg_fred__macro_data').render() }}
    group by indicator

),

days as (

    {{ batch_days('vintages', 'observation_date') }}

),

indicator_days as (

    select
        indicators.indicator,
        days.date,
        {{ utc_midnight('days.date') }} as day_start,
        {{ utc_midnight('days.date + 1') }} as day_end
    from days
    inner join indicators
        on indicators.first_known_at <= {{ utc_midnight('days.date + 1') }}

),

latest_known as (

    select
        indicator_days.indicator,
        indicator_days.date,
        vintages.observation_date,
        vintages.value,
        vintages.vintage_date,
        vintages.pit_quality,
        indicator_days.date - vintages.observation_date as days_since_observation,
        vintages.available_at <= indicator_days.day_start as was_known_before
    from indicator_days
    inner join vintages
        on indicator_days.indicator = vintages.indicator
        and vintages.observation_date <= indicator_days.date
        and vintages.observation_date >= indicator_days.date - {{ model.config.meta.input_lookback_days }}
        and {{ known_at('vintages', 'indicator_days.day_end') }}
    where vintages.value is not null
    qualify row_number() over (
        partition by indicator_days.indicator, indicator_days.date
        order by vintages.observation_date desc
    ) = 1

),

judged as (

    select
        indicator_days.*,
        latest_known.* exclude (indicator, date),
        coalesce(
            latest_known.days_since_observation > {{ macro_max_age_days('indicator_days.indicator') }},
            true
        ) as is_stale
    from indicator_days
    left join latest_known
        on indicator_days.indicator = latest_known.indicator
        and indicator_days.date = latest_known.date

)

select
    indicator,
    date,
    if(is_stale, null, value) as value,
    observation_date,
    days_since_observation,
    not is_stale and was_known_before as is_filled,
    is_stale,
    isodow(date) >= 6 as is_weekend,
    vintage_date,
    pit_quality,
    day_end as available_at
from judged
