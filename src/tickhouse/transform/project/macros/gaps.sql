{# What a gap keeps of the event that told it. #}
{% macro gap_facts() -%}
    {{ packed(gap_types()) }}
{%- endmacro %}
{% macro gap_types() %}
    {{ return({
        'session_id': 'varchar', 'session_seq': 'bigint', 'stream': 'varchar',
        'seq_from': 'bigint', 'seq_to': 'bigint', 'symbols': 'varchar', 'cause': 'varchar',
        'told_at': 'timestamp'
    }) }}
{% endmacro %}
{% macro gap_fact(facts, name) -%}
    {{ unpacked(facts, name, gap_types()[name]) }}
{%- endmacro %}

{#
  Ranges that overlap or touch become one: one row a range that is left, with `keys`, `lower` and
  `upper`. What is counted over them is counted once.
#}
{% macro merged_ranges(relation, keys, lower, upper) -%}
    {%- set by_start = 'partition by ' ~ keys ~ ' order by ' ~ lower ~ ', ' ~ upper -%}
    select {{ keys }}, min({{ lower }}) as {{ lower }}, max({{ upper }}) as {{ upper }}
    from (
        select
            *, sum(opens_range) over (
                {{ by_start }} rows between unbounded preceding and current row
            ) as range_number
        from (
            select
                *, case when {{ lower }} <= max({{ upper }}) over (
                    {{ by_start }} rows between unbounded preceding and 1 preceding
                ) then 0 else 1 end as opens_range
            from {{ relation }}
        )
    )
    group by {{ keys }}, range_number
{%- endmacro %}
