{#
  `dbt build` and `dbt run` without `tickhouse build`: hooks pin the run and end it, as builder.py does,
  so that one protocol holds for both. Every model that is selected reads up to the newest load; one
  whose upstream is not selected and not level refuses. Fingerprints are the builder's alone: what was
  built by hand from other SQL, it builds afresh.
#}
{% macro is_by_hand(commands) %}
    {{ return(execute and flags.WHICH in commands and var('build_id', none) is none) }}
{% endmacro %}

{% macro pin_by_hand() %}
    {% if is_by_hand(['build', 'seed']) %}
        {% do mark_seeds("'loading ' || fingerprint", "not like 'loading %'", nodes_of('seed')) %}
    {% endif %}
    {% if is_by_hand(['run', 'build']) %}
        {% set models, tables = nodes_of('model'), tables_by_hand() %}
        {% if 'windows' not in tables %}
            {{ exceptions.raise_compiler_error(
                'schema meta is missing or not this role\'s to see: `tickhouse init` (Snowflake) or the first'
                ~ ' `tickhouse build` makes it'
            ) }}
        {% endif %}
        {% do begin_by_hand() %}
        {% do run_query('update meta.build_lock set build_id = build_id + 1') %}
        {% do add_missing_positions(models.keys() | list + ['tests']) %}
        {% do write_windows(models, stale_by_hand(models, tables)) %}
        {% do commit_by_hand() %}
    {% endif %}
{% endmacro %}

{% macro finish_by_hand(results) %}
    {% set failed = [] %}
    {% set seeded = [] %}
    {% set ended = namespace(at=run_started_at.replace(tzinfo=none)) %}
    {% for result in results %}
        {% for step in result.timing if step.completed_at %}
            {% set ended.at = [ended.at, step.completed_at.replace(tzinfo=none)] | max %}
        {% endfor %}
        {% if result.status in ['error', 'fail', 'runtime error'] %}
            {% do failed.append(result.node.name) %}
        {% elif result.node.resource_type == 'seed' %}
            {% do seeded.append(result.node.name) %}
        {% endif %}
    {% endfor %}
    {% if is_by_hand(['build', 'seed']) and seeded %}
        {% do mark_seeds("substr(fingerprint, 9)", "like 'loading %'", seeded) %}
    {% endif %}
    {% if is_by_hand(['run', 'build']) %}
        {% set failure = "'failed: " ~ failed | join(', ') ~ "'" if failed else 'null' %}
        {% do run_query(
            "update meta.builds set failure = " ~ failure ~ ", finished_at = "
            ~ time_literal(ended.at.strftime('%Y-%m-%d %H:%M:%S.%f'))
            ~ " where finished_at is null and build_id = (select max(build_id) from meta.windows)"
        ) %}
    {% endif %}
{% endmacro %}

{# What a model reads in a run by hand: what was pinned last, by whomever. #}
{% macro pinned_by_hand() %}
    {% set behind = run_query(
        "select w.model from meta.windows as w inner join meta.positions as p on p.model = w.model"
        ~ " where w.model in ('" ~ upstream_by_hand() | join("', '") ~ "')"
        ~ " and (p.load_id < w.upto_load_id or (w.is_full and p.build_id <> w.build_id)) order by w.model"
    ).columns[0].values() %}
    {% if behind %}
        {{ exceptions.raise_compiler_error(
            model.name ~ ' reads ' ~ behind | join(', ') ~ ', which this run does not bring level: select more'
            ~ ' (dbt ' ~ flags.WHICH ~ ' --select +' ~ model.name ~ ')'
        ) }}
    {% endif %}
    {{ return(run_query('select coalesce(max(build_id), 0) from meta.windows').columns[0].values()[0]) }}
{% endmacro %}

{# Models that the one at hand reads; of none, a name that nothing has. #}
{% macro upstream_by_hand() %}
    {% set found = [''] %}
    {% for key in model.depends_on.nodes if key.startswith('model.') %}
        {% do found.append(graph.nodes[key].name) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{% macro nodes_of(type) %}
    {% set found = {} %}
    {% for key, node in graph.nodes.items() if node.resource_type == type %}
        {% do found.update({node.name: node.depends_on.nodes if type == 'model' else []}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{# Tables of meta, silver and gold by name, each with its comment where the warehouse keeps one. #}
{% macro tables_by_hand() %}
    {% set found = {} %}
    {% set rows = run_query(
        "select * from information_schema.tables where lower(table_schema) in ('meta', 'silver', 'gold')"
    ) %}
    {% set names = rows.column_names | map('lower') | list %}
    {% for row in rows.rows %}
        {% set told = row[names.index('comment')] if 'comment' in names else none %}
        {% do found.update({row[names.index('table_name')] | lower: told or ''}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{# Models to build afresh: no table, another one than the position means, or downstream of such a one. #}
{% macro stale_by_hand(models, tables) %}
    {% set stands, stale = {}, [] %}
    {% for row in run_query("select model, load_id, coalesce(made_by, 0) from meta.positions").rows %}
        {% do stands.update({row[0]: [row[1] | int, 'made by build ' ~ (row[2] | int)]}) %}
    {% endfor %}
    {% for name in models %}
        {% set is_another = tables.get(name, '').startswith('made by') and tables[name] != stands[name][1] %}
        {% if flags.FULL_REFRESH or name not in tables or stands[name][0] == 0 or is_another %}
            {% do stale.append(name) %}
        {% endif %}
    {% endfor %}
    {% for _ in models %}
        {% for name, upstream in models.items() if name not in stale %}
            {% for key in upstream if key.split('.')[-1] in stale and name not in stale %}
                {% do stale.append(name) %}
            {% endfor %}
        {% endfor %}
    {% endfor %}
    {{ return(stale) }}
{% endmacro %}

{% macro add_missing_positions(names) %}
    {% set known = run_query('select model from meta.positions').columns[0].values() | list %}
    {% for name in names if name not in known %}
        {% do run_query("insert into meta.positions (model, load_id, build_id) values ('" ~ name ~ "', 0, 0)") %}
    {% endfor %}
{% endmacro %}

{% macro write_windows(models, stale) %}
    {% set names = "('" ~ (models.keys() | list + ['tests']) | join("', '") ~ "')" %}
    {% set full = "model in ('" ~ ([''] + stale) | join("', '") ~ "')" %}
    {% set id = run_query('select build_id from meta.build_lock').columns[0].values()[0] | int %}
    {% set upto = run_query(
        "select greatest((select coalesce(max(load_id), 0) from bronze.load_ledger),"
        ~ " (select max(load_id) from meta.positions where model in " ~ names ~ "))"
    ).columns[0].values()[0] | int %}
    {% set started = time_literal(run_started_at.strftime('%Y-%m-%d %H:%M:%S.%f')) %}
    {% do run_query('delete from meta.windows') %}
    {% do run_query(
        "insert into meta.windows select model, " ~ id ~ ", case when " ~ full ~ " then 0 else load_id end, " ~ upto
        ~ ", " ~ full ~ ", load_id, watermark, fingerprint from meta.positions where model in " ~ names
    ) %}
    {% do run_query(
        "insert into meta.builds select " ~ id ~ ", min(after_load_id), " ~ upto ~ ", " ~ started ~ ", null, null"
        ~ " from meta.windows"
    ) %}
{% endmacro %}

{# A seed is empty while dbt loads it: until that has ended well, nobody may take it for the one that was there. #}
{% macro mark_seeds(fingerprint, marked, names) %}
    {% if 'positions' in tables_by_hand() %}
        {% do run_query(
            "update meta.positions set fingerprint = " ~ fingerprint ~ " where fingerprint " ~ marked
            ~ " and model in ('" ~ names | join("', '") ~ "')"
        ) %}
    {% endif %}
{% endmacro %}

{# DuckDB lets one process in. #}
{% macro begin_by_hand() %}{{ return(adapter.dispatch('begin_by_hand')()) }}{% endmacro %}
{% macro default__begin_by_hand() %}{% endmacro %}
{% macro snowflake__begin_by_hand() %}{% do run_query('begin') %}{% endmacro %}
{% macro commit_by_hand() %}{{ return(adapter.dispatch('commit_by_hand')()) }}{% endmacro %}
{% macro default__commit_by_hand() %}{% endmacro %}
{% macro snowflake__commit_by_hand() %}{% do run_query('commit') %}{% endmacro %}
