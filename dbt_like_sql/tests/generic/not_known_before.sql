{# Nothing is known before the moment at which what it describes is over. #}
{% test not_known_before(model, moment) %}
select *
from {{ model }}
where available_at < {{ moment }}
{% endtest %}
