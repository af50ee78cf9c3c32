{#
  The materialization of every model: delete+insert of what a build's window touched, with the
  model's position in the same transaction. dbt's own `incremental` does the same in twice the
  statements, and cannot tie position and rows together.

  A model is built afresh where the builder says so (its fingerprint changed, or its table is
  missing). `config(unique_key=…)` names the rows that new rows replace: without it rows are only
  added. `config(meta={'prune_by': column})` names a time column that the delete is confined by,
  `config(meta={'removed_by': column})` a boolean: true where a row only takes the old one away.
  `config(meta={'streams': […]})` says that only frames of these streams change the model's rows: the
  builder leaves it out where none arrived.

  The model's row in meta.positions is locked first and read again: a build that another one has
  overtaken waits, sees the position moved, and changes nothing. What is slow is done before.
  On Snowflake a statement that creates a table commits at once. So a table that is built afresh is
  there before its position says so; it tells in its comment which build made it, and a table made
  by another build than its position tells is built afresh once more. Snowflake may also end the
  transaction of a client that sleeps while others wait: so what follows does not commit by itself,
  and the position must be where this build put it before it commits.
#}
{% materialization windowed, default %}
    {%- set window = compiled_window() -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set fresh = api.Relation.create(identifier=this.identifier ~ '__build_' ~ window.build_id) -%}
    {%- set source = rows_before_lock(window, target_relation, fresh) -%}
    {%- set ranges = replaced_ranges(window, fresh) -%}

    {% set facts = locked_position(window) %}
    {% if source is not none %}
        {% call statement('main') %}
            {{ changed_rows(window, target_relation, source, ranges) }}
        {% endcall %}
    {% endif %}
    {% call statement('advance_position') %}
        {{ advance_position(window, facts, newest_times(window)) }}
    {% endcall %}
    {{ commit_build(window) }}
    {% if source == fresh %}
        {% call statement('drop_fresh', auto_begin=false) %}drop table {{ fresh }}{% endcall %}
    {% endif %}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{# Do what need not wait for the lock; returns the relation, or the query, of the rows that are still to be written. #}
{% macro rows_before_lock(window, target, fresh) %}
    {{ return(adapter.dispatch('rows_before_lock')(window, target, fresh)) }}
{% endmacro %}
{% macro default__rows_before_lock(window, target, fresh) %}
    {% if window.is_full or not config.get('unique_key') %}
        {{ return('(' ~ compiled_code ~ ')') }}
    {% endif %}
    {% call statement('fresh', auto_begin=false) %}
        create or replace temporary table {{ fresh }} as {{ compiled_code }}
    {% endcall %}
    {{ return(fresh) }}
{% endmacro %}
{% macro snowflake__rows_before_lock(window, target, fresh) %}
    {% call statement('session', auto_begin=false) %}
        alter session set transaction_abort_on_error = true;
        alter session set lock_timeout = 600;
        alter session set timezone = 'UTC';
    {% endcall %}
    {% if window.is_full %}
        {% set cluster_by = config.get('cluster_by') %}
        {% call statement('main', auto_begin=false) %}
            create or replace transient table {{ target }}
            {% if cluster_by %}cluster by ({{ ([cluster_by] if cluster_by is string else cluster_by) | join(', ') }}){% endif %}
            comment = '{{ made_by_comment(window) }}'
            as {{ kept_rows('(' ~ compiled_code ~ ')') }}
        {% endcall %}
        {{ return(none) }}
    {% endif %}
    {% call statement('fresh', auto_begin=false) %}
        create or replace temporary table {{ fresh }} as {{ compiled_code }}
    {% endcall %}
    {{ return(fresh) }}
{% endmacro %}

{# How a table tells which build made it; read by positions.py. #}
{% macro made_by_comment(window) -%}
    made by build {{ window.build_id }}
{%- endmacro %}

{# Times of the new rows: a delete reads only what holds them, and costs the same however long history is. #}
{% macro replaced_ranges(window, fresh) %}
    {% set prune_by = config.get('meta', {}).get('prune_by') %}
    {% if window.is_full or not config.get('unique_key') %}{{ return([]) }}{% endif %}
    {{ return(time_ranges(fresh, prune_by) if prune_by else [none]) }}
{% endmacro %}

{# Begin, lock the model's position, and abort where another build moved it since this one was pinned. #}
{% macro locked_position(window) %}
    {{ begin_build(window) }}
    {% call statement('position', fetch_result=True) %}
        select
            p.load_id, w.fingerprint, {{ time_text('p.received_at_max') }} as received_at_max,
            {{ time_text('p.event_at_max') }} as event_at_max, {{ time_text('t.watermark') }} as watermark
        from meta.positions as p
        inner join meta.windows as w on p.model = w.model and w.build_id = {{ window.build_id }}
        left join meta.positions as t on t.model = 'trades'
        where p.model = '{{ model.name }}'
    {% endcall %}
    {% set rows = load_result('position')['data'] %}
    {% if rows | length != 1 or rows[0][0] | int != window.position %}
        {{ abandon_build() }}
    {% endif %}
    {{ return({
        'fingerprint': rows[0][1], 'received_at_max': rows[0][2], 'event_at_max': rows[0][3],
        'watermark': rows[0][4]
    }) }}
{% endmacro %}

{# DuckDB lets one process in, so there is nobody to wait for; dbt begins with the first statement. #}
{% macro begin_build(window) %}
    {{ return(adapter.dispatch('begin_build')(window)) }}
{% endmacro %}
{% macro default__begin_build(window) %}{% endmacro %}
{% macro snowflake__begin_build(window) %}
    {% call statement('lock') %}
        alter session set autocommit = false;
        begin;
        update meta.positions set build_id = {{ window.build_id }} where model = '{{ model.name }}';
    {% endcall %}
{% endmacro %}

{% macro commit_build(window) %}
    {{ return(adapter.dispatch('commit_build')(window)) }}
{% endmacro %}
{% macro default__commit_build(window) %}
    {% do adapter.commit() %}
{% endmacro %}
{% macro snowflake__commit_build(window) %}
    {% set stands = run_query(
        "select 1 from meta.positions where model = '" ~ model.name ~ "' and load_id = " ~ window.upto
        ~ " and build_id = " ~ window.build_id
    ).rows %}
    {% if stands | length != 1 %}
        {{ abandon_build() }}
    {% endif %}
    {% do run_query('commit') %}
{% endmacro %}

{% macro abandon_build() %}
    {{ roll_back() }}
    {{ exceptions.raise_compiler_error(
        'the position of ' ~ model.name ~ ' was moved by another build: the next one goes on from there'
    ) }}
{% endmacro %}

{# dbt rolls DuckDB back by itself. #}
{% macro roll_back() %}
    {{ return(adapter.dispatch('roll_back')()) }}
{% endmacro %}
{% macro default__roll_back() %}{% endmacro %}
{% macro snowflake__roll_back() %}
    {% do run_query('rollback') %}
{% endmacro %}

{% macro changed_rows(window, target, source, ranges) -%}
    {%- if window.is_full -%}
        create or replace table {{ target }} as {{ kept_rows(source) }}
    {%- else -%}
        {%- for range in ranges -%}
        delete from {{ target }} as stored using {{ source }} as fresh
        where {% for key in config.require('unique_key') -%}
                fresh.{{ key }} = stored.{{ key }}{{ ' and ' if not loop.last }}
              {%- endfor %}
            {%- if range %} and {{ in_range('stored.' ~ config.get('meta').prune_by, range) }}{% endif %};
        {% endfor -%}
        insert into {{ target }} {{ kept_rows(source) }}
    {%- endif -%}
{%- endmacro %}

{# Rows of a result that are there to stay. #}
{% macro kept_rows(result) -%}
    {%- set removed_by = config.get('meta', {}).get('removed_by') -%}
    {%- if removed_by -%}
        select * exclude ({{ removed_by }}) from {{ result }} where not {{ removed_by }}
    {%- else -%}
        select * from {{ result }}
    {%- endif -%}
{%- endmacro %}

{# Newest receipt and event among the trades of this window. #}
{% macro newest_times(window) %}
    {% if model.name != 'trades' %}{{ return(none) }}{% endif %}
    {{ return(run_query(
        "select " ~ time_text('max(received_at)') ~ ", " ~ time_text('max(event_at)') ~ " from " ~ this
        ~ " where " ~ in_window(window)
    ).rows[0]) }}
{% endmacro %}

{% macro advance_position(window, facts, newest) -%}
    {%- set told = {'watermark': facts.watermark} -%}
    {%- if newest is not none -%}
        {%- for name in ['received_at_max', 'event_at_max'] -%}
            {#- As text, which sorts as the times do. #}
            {%- set earlier = facts[name] if window.after > 0 else none -%}
            {%- do told.update({name: [earlier or '', newest[loop.index0] or ''] | max or none}) -%}
        {%- endfor -%}
        {%- do told.update({'watermark': [told.received_at_max or '', told.event_at_max or ''] | min or none}) -%}
    {%- endif -%}
    update meta.positions set
        load_id = {{ window.upto }},
        build_id = {{ window.build_id }},
        {% if window.is_full %}made_by = {{ window.build_id }},{% endif %}
        fingerprint = '{{ facts.fingerprint }}'
        {%- for name, time in told.items() %},
        {{ name }} = {{ time_literal(time) if time else 'null' }}
        {%- endfor %}
    where model = '{{ model.name }}' and load_id = {{ window.position }}
{%- endmacro %}
