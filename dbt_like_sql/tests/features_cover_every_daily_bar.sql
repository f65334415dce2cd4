{{ config(severity='warn') }}

select
    bars.coin,
    bars.date
from {{ ref('ohlcv_daily') }} as bars
anti join {{ ref('features_daily') }} as features
    on bars.coin = features.coin
    and bars.date = features.date
