{# Days and hours in UTC, whatever the session's time zone is. #}

{# The UTC day of a moment. #}
{% macro utc_day(moment) -%}
    cast(timezone('UTC', {{ moment }}) as date)
{%- endmacro %}

{# The moment at which a UTC day begins. #}
{% macro utc_midnight(day) -%}
    timezone('UTC', cast({{ day }} as timestamp))
{%- endmacro %}

{# Whole minutes and hours since 1970: for samples by the second these are ten times faster than calendar times. #}
{% macro epoch_minute(moment) -%}
    epoch_ms({{ moment }}) // 60000
{%- endmacro %}

{% macro epoch_hour(moment) -%}
    epoch_ms({{ moment }}) // 3600000
{%- endmacro %}

{# The full hour that a moment lies in. #}
{% macro utc_hour(moment) -%}
    timezone('UTC', date_trunc('hour', timezone('UTC', {{ moment }})))
{%- endmacro %}
