{{ config(severity='warn') }}

with days as (

    select
        indicator,
        date,
        lead(date) over (partition by indicator order by date) as next_date
    from {{ ref('macro_daily').render() }}

)

select *
from days
where next_date <> date + 1
