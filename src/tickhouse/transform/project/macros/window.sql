{#
  A build is pinned: the builder writes one row a model into meta.windows before dbt starts. A model
  reads bronze and silver rows with `load_id > after and load_id <= upto`, as literals, so that a
  scan skips everything older. Only the build that was pinned last may read windows. The window a
  model was compiled with is kept in its SQL as a comment, which the materialization reads back: rows
  and position always belong together. Without a build, what only reads sees everything.
#}
{% macro build_window(name=none) %}
    {% if not execute %}
        {{ return({'build_id': 0, 'after': 0, 'upto': 0, 'is_full': true, 'position': 0,
                   'watermark': none}) }}
    {% endif %}
    {% set build_id = var('build_id', none) %}
    {% if build_id is none and flags.WHICH not in ['run', 'build'] %}
        {{ return({'build_id': 0, 'after': 0, 'upto': 9000000000000000000, 'is_full': true, 'position': 0,
                   'watermark': none}) }}
    {% endif %}
    {% if build_id is none %}
        {% set build_id = pinned_by_hand() %}
    {% endif %}
    {% set found = run_query(
        "select build_id, after_load_id, upto_load_id, is_full, position, " ~ time_text('watermark')
        ~ " from meta.windows where build_id = " ~ build_id ~ " and model = '" ~ (name or model.name) ~ "'"
    ).rows %}
    {% if found | length == 0 %}
        {{ exceptions.raise_compiler_error(
            (name or model.name) ~ " has no window in build " ~ build_id ~ ": another build was pinned since"
        ) }}
    {% endif %}
    {% set row = found[0] %}
    {{ return({
        'build_id': row[0] | int, 'after': row[1] | int, 'upto': row[2] | int, 'is_full': row[3],
        'position': row[4] | int, 'watermark': row[5]
    }) }}
{% endmacro %}

{% macro window_comment(window) -%}
    /* window build={{ window.build_id }} after={{ window.after }} upto={{ window.upto }} position={{ window.position }} full={{ window.is_full | string | lower }} */
{%- endmacro %}

{% macro compiled_window() %}
    {% set found = modules.re.search(
        'window build=([0-9]+) after=([0-9]+) upto=([0-9]+) position=([0-9]+) full=([a-z]+)', compiled_code or ''
    ) %}
    {% if not found %}
        {{ exceptions.raise_compiler_error(model.name ~ " was compiled without its window") }}
    {% endif %}
    {{ return({
        'build_id': found[1] | int, 'after': found[2] | int, 'upto': found[3] | int,
        'position': found[4] | int, 'is_full': found[5] == 'true'
    }) }}
{% endmacro %}

{% macro in_window(window, column='load_id') -%}
    {{ column }} > {{ window.after }} and {{ column }} <= {{ window.upto }}
{%- endmacro %}
