{# No price of a bar is above its high or below its low, and none is zero or less. #}
{% test bar_bounds_hold(model) %}
select *
from {{ model }}
where high < greatest(open, close, low)
    or low > least(open, close)
    or low <= 0
{% endtest %}
