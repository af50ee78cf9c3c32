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
#}
{% materialization windowed, default %}
    {%- set window = compiled_window() -%}
    {%- set target_relation = this.incorporate(type='table') -%}

    {% if window.is_full %}
        {% call statement('main') %}
            create or replace table {{ target_relation }} as {{ kept_rows('(' ~ compiled_code ~ ')') }}
        {% endcall %}
    {% elif not config.get('unique_key') %}
        {% call statement('main') %}
            insert into {{ target_relation }} {{ compiled_code }}
        {% endcall %}
    {% else %}
        {%- set fresh = api.Relation.create(
            identifier=this.identifier ~ '__build_' ~ window.build_id
        ) -%}
        {% call statement('fresh', auto_begin=false) %}
            create or replace temporary table {{ fresh }} as {{ compiled_code }}
        {% endcall %}
        {% call statement('main') %}
            {{ replace_rows(target_relation, fresh) }}
        {% endcall %}
        {% call statement('drop_fresh') %}
            drop table {{ fresh }}
        {% endcall %}
    {% endif %}

    {% call statement('check_position') %}{{ check_position(window) }}{% endcall %}
    {% call statement('advance_position') %}{{ advance_position(window) }}{% endcall %}
    {% do adapter.commit() %}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#
  Replace rows by key. The delete reads only the row groups that hold the new rows' times, given as
  literals: its cost does not grow with history.
#}
{% macro replace_rows(target, fresh) -%}
    {%- set prune_by = config.get('meta', {}).get('prune_by') -%}
    {%- for range in (time_ranges(fresh, prune_by) if prune_by else [none]) -%}
        delete from {{ target }} as stored using {{ fresh }} as fresh
        where {% for key in config.require('unique_key') -%}
                fresh.{{ key }} = stored.{{ key }}{{ ' and ' if not loop.last }}
              {%- endfor %}
            {%- if range %} and {{ in_range('stored.' ~ prune_by, range) }}{% endif %};
    {% endfor -%}
    insert into {{ target }} {{ kept_rows(fresh) }}
{%- endmacro %}

{# Rows of a result that are there to stay. #}
{% macro kept_rows(result) -%}
    {{ adapter.dispatch('kept_rows')(result, config.get('meta', {}).get('removed_by')) }}
{%- endmacro %}
{% macro default__kept_rows(result, removed_by) -%}
    {%- if removed_by -%}
        select * exclude ({{ removed_by }}) from {{ result }} where not {{ removed_by }}
    {%- else -%}
        select * from {{ result }}
    {%- endif -%}
{%- endmacro %}

{# Abort where another build moved the position since this one was pinned. #}
{% macro check_position(window) -%}
    select {{ raise_error("'the position of " ~ model.name ~ " was moved by another build'") }}
    where coalesce(
        (select load_id from meta.positions where model = '{{ model.name }}'), 0
    ) <> {{ window.position }}
{%- endmacro %}

{% macro advance_position(window) -%}
    update meta.positions set
        load_id = {{ window.upto }},
        build_id = {{ window.build_id }},
        fingerprint = (
            select w.fingerprint from meta.windows as w
            where w.model = '{{ model.name }}' and w.build_id = {{ window.build_id }}
        ),
        {% if model.name == 'trades' -%}
        received_at_max = {{ newest('received_at', window) }},
        event_at_max = {{ newest('event_at', window) }},
        watermark = least({{ newest('received_at', window) }}, {{ newest('event_at', window) }})
        {%- else -%}
        watermark = (select w.watermark from meta.positions as w where w.model = 'trades')
        {%- endif %}
    where model = '{{ model.name }}'
{%- endmacro %}

{# The newest time among all trades so far; scans this window's trades only. #}
{% macro newest(column, window) -%}
    greatest(
        {% if window.after > 0 %}{{ column }}_max{% else %}null{% endif %},
        (select max(t.{{ column }}) from {{ this }} as t where {{ in_window(window, 't.load_id') }})
    )
{%- endmacro %}
