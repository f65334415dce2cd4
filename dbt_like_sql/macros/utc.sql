{# Days and hours in UTC, whatever the session's time zone is. #}

{# The UTC day of a moment. #}
{% macro utc_day(moment) -%}
    cast(timezone('UTC', {{ moment }}) as date)
{%- endmacro %}

{# The moment at which a UTC day begins. #}
{% macro utc_midnight(day) -%}
    timezone('UTC', cast({{ day }} as timestamp))
{%- endmacro %}

{# The full hour that a moment lies in. #}
{% macro utc_hour(moment) -%}
    timezone('UTC', date_trunc('hour', timezone('UTC', {{ moment }})))
{%- endmacro %}
