{# What was known of a macro value at a moment. #}

{# When a later vintage took the place of this one; null while none has. #}
{% macro superseded_at() -%}
    min(available_at) over (
        partition by indicator, observation_date
        order by vintage_date
        rows between 1 following and unbounded following
    )
{%- endmacro %}

{# Whether a vintage was the newest one known at a moment. #}
{% macro known_at(vintages, moment) -%}
    {{ vintages }}.available_at <= {{ moment }}
        and coalesce({{ vintages }}.superseded_at > {{ moment }}, true)
{%- endmacro %}

{# The oldest age in days at which an observation of an indicator still stands. #}
{% macro macro_max_age_days(indicator) -%}
    case {{ indicator }}
    {%- for name, days in var('macro_max_age_days').items() if name != 'default' %}
        when '{{ name }}' then {{ days }}
    {%- endfor %}
        else {{ var('macro_max_age_days')['default'] }}
    end
{%- endmacro %}
