{{ config(severity='warn') }}

select *
from {{ ref('coverage_daily') }}
where hours_missing > 0
