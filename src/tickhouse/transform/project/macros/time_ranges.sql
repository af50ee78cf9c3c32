{#
  Half-open time ranges that cover `column` in `relation`, oldest first, in whole steps of `step`
  seconds. What lies more than ten minutes apart gets ranges of its own: a late trade does not widen
  the range to all that lies between. `before` and `after` widen every range by as many seconds.
#}
{% macro time_ranges(relation, column, where='true', step=1, before=0, after=0) %}
    {% set ranges = [] %}
    {% if execute %}
        {% set first = shift_seconds(time_bucket(step, 'min(' ~ column ~ ')'), -before) %}
        {% set last = shift_seconds(time_bucket(step, 'max(' ~ column ~ ')'), step + after) %}
        {% set found = run_query(
            "select " ~ time_text(first) ~ ", " ~ time_text(last) ~ ", "
            ~ time_text(shift_seconds(first, -600)) ~ " from " ~ relation ~ " where " ~ where
            ~ " group by " ~ time_bucket(600, column) ~ " order by min(" ~ column ~ ")"
        ).rows %}
        {% for row in found %}
            {% if ranges and row[2] <= ranges[-1][1] %}
                {% set previous = ranges.pop() %}
                {% do ranges.append([previous[0], row[1]]) %}
            {% else %}
                {% do ranges.append([row[0], row[1]]) %}
            {% endif %}
        {% endfor %}
    {% endif %}
    {{ return(ranges) }}
{% endmacro %}

{% macro in_range(column, range) -%}
    {{ column }} >= {{ time_literal(range[0]) }} and {{ column }} < {{ time_literal(range[1]) }}
{%- endmacro %}

{# The rows of `relation` within `ranges`: one scan a range, each skipping what lies outside. #}
{% macro rows_in(relation, column, ranges, columns='*') -%}
    {% for range in ranges -%}
        select {{ columns }} from {{ relation }} where {{ in_range(column, range) }}
        {{ 'union all ' if not loop.last }}
    {%- else -%}
        select {{ columns }} from {{ relation }} where false
    {%- endfor %}
{%- endmacro %}
