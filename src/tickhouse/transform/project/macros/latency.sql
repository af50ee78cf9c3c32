{# Whole milliseconds rounded away from zero to 5 binary digits: 0..32, 34, 36, … 64, 68, … #}
{% macro rounded_up(value) -%}
    {{ adapter.dispatch('rounded_up')(value) }}
{%- endmacro %}
{% macro default__rounded_up(value) -%}
    case
        when abs({{ value }}) <= 32 then {{ value }}
        else cast(sign({{ value }}) * ceil(
            abs({{ value }}) / power(2, floor(log2(abs({{ value }}))) - 4)
        ) * power(2, floor(log2(abs({{ value }}))) - 4) as bigint)
    end
{%- endmacro %}
