{# Whether a source's frames were received by somebody else, or before: their receipts say nothing. #}
{% macro is_of_the_past(source) -%}
    ({{ source }} like 'replay:%' or {{ source }} like 'import:%')
{%- endmacro %}
