{#
  A price, size or other figure given as text, in the precision in which it is kept; null where it is
  none. DuckDB takes 1_000 for a number, which no feed and no other warehouse does; and it rounds
  what is far below the last decimal by its first digit alone (9e-124 becomes 0.00000001).
#}
{% macro kept_number(text) -%}
    {{ adapter.dispatch('kept_number')(text) }}
{%- endmacro %}
{% macro default__kept_number(text) -%}
    {%- set strict = "replace(" ~ text ~ ", '_', '?')" -%}
    try_cast(
        case
            when (contains({{ text }}, 'e-') or contains({{ text }}, 'E-'))
                and abs(try_cast({{ strict }} as double)) < 0.000000005 then '0'
            else {{ strict }}
        end as decimal(18, 8)
    )
{%- endmacro %}
{# Rounds half up, as DuckDB; null where it has more than 10 digits before the point. #}
{% macro snowflake__kept_number(text) -%}
    {%- set strict = "replace(" ~ text ~ ", '_', '?')" -%}
    try_to_decimal(
        case
            when (contains({{ text }}, 'e-') or contains({{ text }}, 'E-'))
                and abs(try_to_double({{ strict }})) < 0.000000005 then '0'
            else {{ strict }}
        end, 18, 8
    )
{%- endmacro %}
