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
{# Half is added so that a logarithm a hair too small does not take a power of two for less. #}
{% macro snowflake__rounded_up(value) -%}
    {%- set unit = "power(2, floor(ln(abs(" ~ value ~ ") + 0.5) / ln(2)) - 4)" -%}
    case
        when abs({{ value }}) <= 32 then {{ value }}
        else cast(sign({{ value }}) * ceil(abs({{ value }}) / {{ unit }}) * {{ unit }} as bigint)
    end
{%- endmacro %}
