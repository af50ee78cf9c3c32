{# Extended hours of the US exchanges, as in tickhouse/model/calendar.py. #}
{% macro pre_market_start(session_date) -%}
    {{ utc_time(shift_seconds(start_of_date(session_date), 4 * 3600)) }}
{%- endmacro %}

{% macro post_market_end(close_at) -%}
    {{ shift_seconds(close_at, 4 * 3600) }}
{%- endmacro %}
