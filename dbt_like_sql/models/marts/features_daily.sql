{% set statistic_days = 30 %}
{% set drawdown_days = 90 %}

{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='date',
    batch_size='day',
    begin=var('history_start'),
    lookback=var('batch_lookback'),
    meta={'input_lookback_days': drawdown_days}
) }}

with days as (

    select
        *,
        available_at as decided_at
    from {{ ref('ohlcv_daily') }}

),

history as (

    select
        coin,
        date as known_date,
        close,
        volume_quote_usd,
        source,
        available_at
    from {{ ref('ohlcv_daily').render() }}
    where {{ day_in_lookback('date') }}

),

vix_vintages as (

    select
        *,
        {{ superseded_at() }} as superseded_at
    from {{ ref('stg_fred__macro_data').render() }}
    where indicator = 'VIXCLS'
        and {{ day_in_lookback('observation_date') }}

),

-- For each decision, the days behind it as they were known then. Everything about prices comes from here, so
-- that nothing later than the decision can enter.
known_days as (

    select
        days.coin,
        days.date,
        history.known_date,
        history.close,
        if(history.source = days.source, history.volume_quote_usd, null) as volume_quote_usd
    from days
    inner join history
        on days.coin = history.coin
        and history.known_date >= days.date - {{ model.config.meta.input_lookback_days }}
        and history.known_date <= days.date
        and history.available_at <= days.decided_at

),

-- A return spans one day; over a missing day it is null, not a longer return.
known_returns as (

    select
        *,
        if(lag(known_date) over day_order = known_date - 1, lag(close) over day_order, null) as previous_close
    from known_days
    window day_order as (partition by coin, date order by known_date)

),

price_features as (

    select
        coin,
        date,
        max(previous_close) filter (where known_date = date) as previous_close,
        stddev_samp(ln(close / previous_close) order by known_date)
            filter (where known_date > date - {{ statistic_days }}) as log_return_std,
        count(previous_close) filter (where known_date > date - {{ statistic_days }}) as volatility_days,
        max(close) filter (where known_date > date - {{ drawdown_days }}) as highest_close,
        count(*) filter (where known_date > date - {{ drawdown_days }}) as drawdown_days,
        avg(volume_quote_usd order by known_date)
            filter (where known_date > date - {{ statistic_days }}) as volume_mean,
        stddev_samp(volume_quote_usd order by known_date)
            filter (where known_date > date - {{ statistic_days }}) as volume_std,
        count(volume_quote_usd) filter (where known_date > date - {{ statistic_days }}) as volume_days
    from known_returns
    group by coin, date

),

known_vix as (

    select
        days.coin,
        days.date,
        vix_vintages.observation_date,
        vix_vintages.value,
        vix_vintages.pit_quality
    from days
    inner join vix_vintages
        on vix_vintages.observation_date >= days.date - {{ model.config.meta.input_lookback_days }}
        and vix_vintages.observation_date <= days.date
        and {{ known_at('vix_vintages', 'days.decided_at') }}
    where vix_vintages.value is not null

),

latest_vix as (

    select
        coin,
        date,
        max(observation_date) as vix_date,
        arg_max(value, observation_date) as vix,
        arg_max(pit_quality, observation_date) as vix_pit_quality,
        date - max(observation_date) <= {{ macro_max_age_days("'VIXCLS'") }} as vix_is_fresh
    from known_vix
    group by coin, date

),

vix_steps as (

    select
        *,
        lag(observation_date) over observation_order as previous_date,
        lag(value) over observation_order as previous_value
    from known_vix
    window observation_order as (partition by coin, date order by observation_date)

),

-- Both series over the same step, from one VIX observation to the next. A step with a missing close is no pair.
pairs as (

    select
        vix_steps.coin,
        vix_steps.date,
        vix_steps.observation_date,
        ln(vix_steps.value / vix_steps.previous_value) as vix_change,
        ln(later.close / earlier.close) as coin_change
    from vix_steps
    inner join known_days as later
        on vix_steps.coin = later.coin
        and vix_steps.date = later.date
        and vix_steps.observation_date = later.known_date
    inner join known_days as earlier
        on vix_steps.coin = earlier.coin
        and vix_steps.date = earlier.date
        and vix_steps.previous_date = earlier.known_date
    qualify row_number() over (
        partition by vix_steps.coin, vix_steps.date
        order by vix_steps.observation_date desc
    ) <= {{ statistic_days }}

),

vix_correlations as (

    select
        coin,
        date,
        corr(coin_change, vix_change order by observation_date) as vix_correlation,
        count(*) as vix_correlation_pairs
    from pairs
    group by coin, date

)

select
    days.coin,
    days.date,
    days.close as close_usd,
    (days.close / price_features.previous_close - 1) * 100 as return_pct,
    ln(days.close / price_features.previous_close) as log_return,
    case
        when price_features.volatility_days = {{ statistic_days }}
            then price_features.log_return_std * sqrt(365) * 100
    end as volatility_30d_ann_pct,
    price_features.volatility_days,
    (1 - days.close / price_features.highest_close) * 100 as drawdown_90d_pct,
    price_features.drawdown_days,
    if(latest_vix.vix_is_fresh, latest_vix.vix, null) as vix,
    latest_vix.vix_date,
    latest_vix.vix_pit_quality,
    case
        when latest_vix.vix_is_fresh
            and vix_correlations.vix_correlation_pairs = {{ statistic_days }}
            and isfinite(vix_correlations.vix_correlation)
            then greatest(-1.0, least(1.0, vix_correlations.vix_correlation))
    end as vix_correlation,
    coalesce(vix_correlations.vix_correlation_pairs, 0) as vix_correlation_pairs,
    case
        when price_features.volume_days = {{ statistic_days }} and price_features.volume_std > 0
            then (days.volume_quote_usd - price_features.volume_mean) / price_features.volume_std
    end as volume_zscore_30d,
    price_features.volume_days,
    days.source,
    days.ohlc_method,
    days.hours_covered,
    days.decided_at as available_at
from days
inner join price_features
    on days.coin = price_features.coin
    and days.date = price_features.date
left join latest_vix
    on days.coin = latest_vix.coin
    and days.date = latest_vix.date
left join vix_correlations
    on days.coin = vix_correlations.coin
    and days.date = vix_correlations.date
