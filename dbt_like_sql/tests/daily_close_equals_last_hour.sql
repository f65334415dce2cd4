{{ config(severity='warn') }}

select
    daily.coin,
    daily.date,
    daily.source,
    daily.close as daily_close,
    hourly.close as last_hour_close
from {{ ref('ohlcv_daily') }} as daily
inner join {{ ref('crypto_ohlcv') }} as hourly
    on daily.coin = hourly.coin
    and daily.source = hourly.source
    and hourly.close_time = {{ utc_midnight('daily.date + 1') }}
where daily.close <> hourly.close
