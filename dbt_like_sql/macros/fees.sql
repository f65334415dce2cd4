{# What exchanges charge. #}

{# Taker fee of an exchange in basis points; null for one without an entry. #}
{% macro taker_fee_bps(exchange) -%}
    cast(case {{ exchange }}
    {%- for name, fee_bps in var('taker_fee_bps').items() %}
        when '{{ name }}' then {{ fee_bps }}
    {%- endfor %}
    end as double)
{%- endmacro %}
