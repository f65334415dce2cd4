{# Conditions on a batch's bounds, for inputs that are read wider than the batch. Outside a batch (unit tests,
   compiling) they read everything. #}

{# Days that lie in the batch or in the days before it that the model asks for with meta.input_lookback_days. #}
{% macro day_in_lookback(day) -%}
    {%- if model.batch -%}
    {{ day }} >= date '{{ model.batch.event_time_start.strftime("%Y-%m-%d") }}' - {{ model.config.meta.input_lookback_days }}
    and {{ day }} < date '{{ model.batch.event_time_end.strftime("%Y-%m-%d") }}'
    {%- else -%}
    true
    {%- endif -%}
{%- endmacro %}

{# Moments at or after the end of the batch. #}
{% macro after_batch(moment) -%}
    {%- if model.batch -%}
    {{ moment }} >= timestamptz '{{ model.batch.event_time_end }}'
    {%- else -%}
    false
    {%- endif -%}
{%- endmacro %}

{# Every day of the batch. Outside a batch: from the first to the last day in a column of a relation. #}
{% macro batch_days(relation, column) -%}
    {%- if model.batch -%}
    select cast(unnest(generate_series(
        date '{{ model.batch.event_time_start.strftime("%Y-%m-%d") }}',
        date '{{ model.batch.event_time_end.strftime("%Y-%m-%d") }}' - 1,
        interval 1 day
    )) as date) as date
    {%- else -%}
    select cast(unnest(generate_series(min({{ column }}), max({{ column }}), interval 1 day)) as date) as date
    from {{ relation }}
    {%- endif -%}
{%- endmacro %}
