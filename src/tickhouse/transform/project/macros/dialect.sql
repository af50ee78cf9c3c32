{# Dialect differences live here and in the extractors: `default__` is DuckDB, `snowflake__` beside it. #}

{% macro epoch_ms_to_timestamp(milliseconds) -%}
    {{ adapter.dispatch('epoch_ms_to_timestamp')(milliseconds) }}
{%- endmacro %}
{% macro default__epoch_ms_to_timestamp(milliseconds) -%}
    make_timestamp({{ milliseconds }} * 1000)
{%- endmacro %}
{% macro snowflake__epoch_ms_to_timestamp(milliseconds) -%}
    to_timestamp_ntz({{ milliseconds }}, 3)
{%- endmacro %}

{% macro epoch_ns_to_timestamp(nanoseconds) -%}
    {{ adapter.dispatch('epoch_ns_to_timestamp')(nanoseconds) }}
{%- endmacro %}
{% macro default__epoch_ns_to_timestamp(nanoseconds) -%}
    make_timestamp({{ nanoseconds }} // 1000)
{%- endmacro %}
{% macro snowflake__epoch_ns_to_timestamp(nanoseconds) -%}
    to_timestamp_ntz({{ nanoseconds }} - mod({{ nanoseconds }}, 1000), 9)
{%- endmacro %}

{% macro epoch_s_to_timestamp(seconds) -%}
    {{ adapter.dispatch('epoch_s_to_timestamp')(seconds) }}
{%- endmacro %}
{% macro default__epoch_s_to_timestamp(seconds) -%}
    make_timestamp({{ seconds }} * 1000000)
{%- endmacro %}
{% macro snowflake__epoch_s_to_timestamp(seconds) -%}
    to_timestamp_ntz({{ seconds }}, 0)
{%- endmacro %}

{# A time that time_text told, as a constant: a scan skips what lies outside. #}
{% macro time_literal(text) -%}
    {{ adapter.dispatch('time_literal')(text) }}
{%- endmacro %}
{% macro default__time_literal(text) -%}
    timestamp '{{ text }}'
{%- endmacro %}
{% macro snowflake__time_literal(text) -%}
    cast('{{ text }}' as timestamp_ntz(6))
{%- endmacro %}

{# A time as text that sorts the same way and that time_literal takes. #}
{% macro time_text(column) -%}
    {{ adapter.dispatch('time_text')(column) }}
{%- endmacro %}
{% macro default__time_text(column) -%}
    cast({{ column }} as varchar)
{%- endmacro %}
{% macro snowflake__time_text(column) -%}
    to_varchar({{ column }}, 'YYYY-MM-DD HH24:MI:SS.FF6')
{%- endmacro %}

{# The name of a type; `timestamp` alone means on Snowflake what the account says. #}
{% macro type_of(type) -%}
    {{ adapter.dispatch('type_of')(type) }}
{%- endmacro %}
{% macro default__type_of(type) -%}
    {{ type }}
{%- endmacro %}
{% macro snowflake__type_of(type) -%}
    {{ 'timestamp_ntz(6)' if type == 'timestamp' else type }}
{%- endmacro %}

{# 00:00 of a date. #}
{% macro start_of_date(date) -%}
    cast({{ date }} as {{ type_of('timestamp') }})
{%- endmacro %}

{% macro time_bucket(seconds, column) -%}
    {{ adapter.dispatch('time_bucket')(seconds, column) }}
{%- endmacro %}
{% macro default__time_bucket(seconds, column) -%}
    {%- set units = {1: 'second', 60: 'minute', 3600: 'hour'} -%}
    {%- if seconds in units -%}
        date_trunc('{{ units[seconds] }}', {{ column }})
    {%- else -%}
        time_bucket(interval '{{ seconds }} seconds', {{ column }}, timestamp '2000-01-01 00:00:00')
    {%- endif -%}
{%- endmacro %}
{# Both count from a midnight: steps that divide a day agree. #}
{% macro snowflake__time_bucket(seconds, column) -%}
    {%- set units = {1: 'second', 60: 'minute', 3600: 'hour', 86400: 'day'} -%}
    {%- if seconds in units -%}
        date_trunc('{{ units[seconds] }}', {{ column }})
    {%- else -%}
        time_slice({{ column }}, {{ seconds // 60 }}, 'minute')
    {%- endif -%}
{%- endmacro %}

{% macro shift_seconds(column, seconds) -%}
    {{ adapter.dispatch('shift_seconds')(column, seconds) }}
{%- endmacro %}
{% macro default__shift_seconds(column, seconds) -%}
    ({{ column }} + interval '{{ seconds }} seconds')
{%- endmacro %}
{% macro snowflake__shift_seconds(column, seconds) -%}
    dateadd('second', {{ seconds }}, {{ column }})
{%- endmacro %}

{# Whole milliseconds, towards zero. #}
{% macro milliseconds_between(earlier, later) -%}
    {{ adapter.dispatch('milliseconds_between')(earlier, later) }}
{%- endmacro %}
{% macro default__milliseconds_between(earlier, later) -%}
    ((epoch_us({{ later }}) - epoch_us({{ earlier }})) // 1000)
{%- endmacro %}
{% macro snowflake__milliseconds_between(earlier, later) -%}
    cast(trunc(datediff('microsecond', {{ earlier }}, {{ later }}) / 1000) as bigint)
{%- endmacro %}

{# Wall-clock time of the US exchanges at a UTC time. #}
{% macro exchange_time(column) -%}
    {{ adapter.dispatch('exchange_time')(column) }}
{%- endmacro %}
{% macro default__exchange_time(column) -%}
    timezone('America/New_York', timezone('UTC', {{ column }}))
{%- endmacro %}
{% macro snowflake__exchange_time(column) -%}
    convert_timezone('UTC', 'America/New_York', {{ column }})
{%- endmacro %}

{# UTC time of a wall-clock time of the US exchanges. #}
{% macro utc_time(exchange_time) -%}
    {{ adapter.dispatch('utc_time')(exchange_time) }}
{%- endmacro %}
{% macro default__utc_time(exchange_time) -%}
    timezone('UTC', timezone('America/New_York', {{ exchange_time }}))
{%- endmacro %}
{% macro snowflake__utc_time(exchange_time) -%}
    convert_timezone('America/New_York', 'UTC', {{ exchange_time }})
{%- endmacro %}

{# The greatest / least of the values that are not null. #}
{% macro greatest_of(values) -%}
    {{ adapter.dispatch('greatest_of')(values) }}
{%- endmacro %}
{% macro default__greatest_of(values) -%}
    greatest({{ values }})
{%- endmacro %}
{% macro snowflake__greatest_of(values) -%}
    greatest_ignore_nulls({{ values }})
{%- endmacro %}

{% macro least_of(values) -%}
    {{ adapter.dispatch('least_of')(values) }}
{%- endmacro %}
{% macro default__least_of(values) -%}
    least({{ values }})
{%- endmacro %}
{% macro snowflake__least_of(values) -%}
    least_ignore_nulls({{ values }})
{%- endmacro %}

{# Whether a condition holds in every / in any row of a group. #}
{% macro all_true(condition) -%}
    {{ adapter.dispatch('all_true')(condition) }}
{%- endmacro %}
{% macro default__all_true(condition) -%}
    bool_and({{ condition }})
{%- endmacro %}
{% macro snowflake__all_true(condition) -%}
    booland_agg({{ condition }})
{%- endmacro %}

{% macro any_true(condition) -%}
    {{ adapter.dispatch('any_true')(condition) }}
{%- endmacro %}
{% macro default__any_true(condition) -%}
    bool_or({{ condition }})
{%- endmacro %}
{% macro snowflake__any_true(condition) -%}
    boolor_agg({{ condition }})
{%- endmacro %}

{# The value of `column` in the row where `order_by` is least / greatest; null values are left out. #}
{% macro first_by(column, order_by, where='true') -%}
    {{ adapter.dispatch('first_by')(column, order_by, where) }}
{%- endmacro %}
{% macro default__first_by(column, order_by, where) -%}
    arg_min({{ column }}, {{ order_by }}) filter (where {{ where }})
{%- endmacro %}
{% macro snowflake__first_by(column, order_by, where) -%}
    min_by({{ column }}, case when {{ where }} and {{ column }} is not null then {{ order_by }} end)
{%- endmacro %}

{% macro last_by(column, order_by, where='true') -%}
    {{ adapter.dispatch('last_by')(column, order_by, where) }}
{%- endmacro %}
{% macro default__last_by(column, order_by, where) -%}
    arg_max({{ column }}, {{ order_by }}) filter (where {{ where }})
{%- endmacro %}
{% macro snowflake__last_by(column, order_by, where) -%}
    max_by({{ column }}, case when {{ where }} and {{ column }} is not null then {{ order_by }} end)
{%- endmacro %}

{#
  Several columns in one value, for first_by and last_by: [kind, column]…, where kind is `time`, `number` or `place` (neither
  negative), `text` or `flag`. Snowflake orders by one value only: text that sorts the same way.
#}
{% macro row_order(columns) -%}
    {{ adapter.dispatch('row_order')(columns) }}
{%- endmacro %}
{% macro default__row_order(columns) -%}
    ({{ columns | map(attribute=1) | join(', ') }})
{%- endmacro %}
{% macro snowflake__row_order(columns) -%}
    {{ order_text(columns) }}
{%- endmacro %}

{# The same as text; a space sorts before every other character, a missing value after all. #}
{% macro order_text(columns) -%}
    {%- for kind, column in columns -%}
        {{ " || ' ' || " if not loop.first }}coalesce(
            {%- if kind == 'time' %}lpad(cast({{ epoch_us(column) }} as varchar), 17, '0')
            {%- elif kind == 'number' %}lpad(cast({{ column }} as varchar), 19, '0')
            {%- elif kind == 'place' %}lpad(cast({{ column }} as varchar), 10, '0')
            {%- elif kind == 'flag' %}case when {{ column }} then '1' else '0' end
            {%- else %}{{ column }}{% endif %}, '~')
    {%- endfor -%}
{%- endmacro %}

{% macro epoch_us(column) -%}
    {{ adapter.dispatch('epoch_us')(column) }}
{%- endmacro %}
{% macro default__epoch_us(column) -%}
    epoch_us({{ column }})
{%- endmacro %}
{% macro snowflake__epoch_us(column) -%}
    date_part(epoch_microsecond, {{ column }})
{%- endmacro %}

{# Columns of a row as one value: {name: type}, or {name: [type, expression]}; unpacked gives one back. #}
{% macro packed(facts) -%}
    {{ adapter.dispatch('packed')(facts) }}
{%- endmacro %}
{% macro default__packed(facts) -%}
    struct_pack({% for name, fact in facts.items() -%}
        {{ name }} := {{ name if fact is string else fact[1] }}{{ ', ' if not loop.last }}
    {%- endfor %})
{%- endmacro %}
{# As text: a VARIANT's own numbers and times are not to be relied on to the last digit. #}
{% macro snowflake__packed(facts) -%}
    object_construct({% for name, fact in facts.items() -%}
        {%- set type = fact if fact is string else fact[0] -%}
        {%- set value = name if fact is string else fact[1] -%}
        '{{ name }}', {{ time_text(value) if type == 'timestamp' else 'cast(' ~ value ~ ' as varchar)' }}{{ ', ' if not loop.last }}
    {%- endfor %})
{%- endmacro %}

{% macro unpacked(value, name, fact) -%}
    {{ adapter.dispatch('unpacked')(value, name, fact if fact is string else fact[0]) }}
{%- endmacro %}
{% macro default__unpacked(value, name, type) -%}
    {{ value }}.{{ name }}
{%- endmacro %}
{% macro snowflake__unpacked(value, name, type) -%}
    cast({{ value }}:{{ name }}::varchar as {{ type_of(type) }})
{%- endmacro %}

{#
  Quotient of a DECIMAL(38,16) by a DECIMAL(38,8), both not negative, rounded half up to 8 decimals; null where it
  does not fit a DECIMAL(18,8).
  DuckDB divides decimals as doubles and Snowflake keeps few decimals, so the division is done in integers: exact on
  every machine.
#}
{% macro exact_quotient(dividend, divisor) -%}
    {{ adapter.dispatch('exact_quotient')(dividend, divisor) }}
{%- endmacro %}
{% macro default__exact_quotient(dividend, divisor) -%}
    {%- set a = "cast(replace(cast(" ~ dividend ~ " as varchar), '.', '') as hugeint)" -%}
    {%- set b = "cast(replace(cast(" ~ divisor ~ " as varchar), '.', '') as hugeint)" -%}
    cast(
        try_cast(({{ a }} + {{ b }} // 2) // nullif({{ b }}, 0) as decimal(18, 0))
        * cast(0.00000001 as decimal(8, 8)) as decimal(18, 8)
    )
{%- endmacro %}
{#
  In units of the last decimal. What the divisor leaves over is taken off first, so that what remains
  divides without a rest.
#}
{% macro snowflake__exact_quotient(dividend, divisor) -%}
    {%- set unit = "cast(nullif(" ~ divisor ~ ", 0) as decimal(38, 16)) * cast(0.00000001 as decimal(8, 8))" -%}
    {%- set x, y = "(2 * " ~ dividend ~ " + " ~ unit ~ ")", "(2 * " ~ unit ~ ")" -%}
    case when cast({{ dividend }} as double) < 9999999999.999999 * cast({{ divisor }} as double)
        then cast(
            cast(round(({{ x }} - mod({{ x }}, {{ y }})) / {{ y }}) as decimal(18, 0))
            * cast(0.00000001 as decimal(8, 8)) as decimal(18, 8)
        )
    end
{%- endmacro %}

{% macro matches(column, pattern) -%}
    {{ adapter.dispatch('matches')(column, pattern) }}
{%- endmacro %}
{% macro default__matches(column, pattern) -%}
    regexp_full_match({{ column }}, '{{ pattern }}')
{%- endmacro %}
{# Takes the whole text or nothing, as DuckDB's regexp_full_match. #}
{% macro snowflake__matches(column, pattern) -%}
    regexp_like({{ column }}, '{{ pattern }}')
{%- endmacro %}

{# Text without the characters that match. #}
{% macro without(column, pattern) -%}
    {{ adapter.dispatch('without')(column, pattern) }}
{%- endmacro %}
{% macro default__without(column, pattern) -%}
    regexp_replace({{ column }}, '{{ pattern }}', '', 'g')
{%- endmacro %}
{% macro snowflake__without(column, pattern) -%}
    regexp_replace({{ column }}, '{{ pattern }}', '')
{%- endmacro %}

{# A message as text. #}
{% macro json_text(column) -%}
    {{ adapter.dispatch('json_text')(column) }}
{%- endmacro %}
{% macro default__json_text(column) -%}
    cast({{ column }} as varchar)
{%- endmacro %}
{% macro snowflake__json_text(column) -%}
    to_json({{ column }})
{%- endmacro %}

{# A relation with one row a part of a text between commas. #}
{% macro split_rows(relation, column, name) -%}
    {{ adapter.dispatch('split_rows')(relation, column, name) }}
{%- endmacro %}
{% macro default__split_rows(relation, column, name) -%}
    (select *, unnest(string_split({{ column }}, ',')) as {{ name }} from {{ relation }})
{%- endmacro %}
{% macro snowflake__split_rows(relation, column, name) -%}
    (
        select t.*, cast(f.value as varchar) as {{ name }}
        from {{ relation }} as t, lateral flatten(input => split(t.{{ column }}, ',')) as f
    )
{%- endmacro %}

{# A relation with one row an item of a list of texts. #}
{% macro list_rows(relation, column, name) -%}
    {{ adapter.dispatch('list_rows')(relation, column, name) }}
{%- endmacro %}
{% macro default__list_rows(relation, column, name) -%}
    (select *, unnest({{ column }}) as {{ name }} from {{ relation }})
{%- endmacro %}
{% macro snowflake__list_rows(relation, column, name) -%}
    (
        select t.*, cast(f.value as varchar) as {{ name }}
        from {{ relation }} as t, lateral flatten(input => t.{{ column }}) as f
    )
{%- endmacro %}

{# A relation with one row a date, both ends included. #}
{% macro date_rows(relation, first_date, last_date, name) -%}
    {{ adapter.dispatch('date_rows')(relation, first_date, last_date, name) }}
{%- endmacro %}
{% macro default__date_rows(relation, first_date, last_date, name) -%}
    (
        select
            *, cast(unnest(generate_series(
                cast({{ first_date }} as timestamp), cast({{ last_date }} as timestamp), interval '1 day'
            )) as date) as {{ name }}
        from {{ relation }}
    )
{%- endmacro %}
{% macro snowflake__date_rows(relation, first_date, last_date, name) -%}
    (
        select t.*, cast(dateadd('day', cast(f.value as integer), {{ first_date }}) as date) as {{ name }}
        from {{ relation }} as t, lateral flatten(
            input => array_generate_range(0, datediff('day', {{ first_date }}, {{ last_date }}) + 1)
        ) as f
    )
{%- endmacro %}

{#
  Tick order: event time, received time, session, message number, index; never the log position.
  `leading` is a condition: where it holds, a tick comes after all others.
#}
{% macro tick_order(leading='') -%}
    {{ row_order(([['flag', leading]] if leading else []) + tick_place()) }}
{%- endmacro %}
{% macro tick_place() %}
    {{ return([
        ['time', 'event_at'], ['time', 'received_at'], ['text', 'session_id'],
        ['number', 'session_seq'], ['place', 'trade_index']
    ]) }}
{% endmacro %}

{# What is kept of a first or last trade: its price and its place in tick order. #}
{% macro tick_facts() -%}
    {{ packed(tick_types()) }}
{%- endmacro %}
{% macro tick_types() %}
    {{ return({
        'price': 'decimal(18, 8)', 'event_at': 'timestamp', 'received_at': 'timestamp',
        'session_id': 'varchar', 'session_seq': 'bigint', 'trade_index': 'integer',
        'source': 'varchar', 'is_opening_print': 'boolean', 'is_closing_print': 'boolean'
    }) }}
{% endmacro %}
{% macro tick_fact(facts, name) -%}
    {{ unpacked(facts, name, tick_types()[name]) }}
{%- endmacro %}

{# Tick order as text that sorts the same way. #}
{% macro tick_order_text(facts) -%}
    {%- set place = [] -%}
    {%- for kind, name in tick_place() -%}{% do place.append([kind, tick_fact(facts, name)]) %}{%- endfor -%}
    case when {{ facts }} is not null then {{ order_text(place) }} end
{%- endmacro %}

{# Order of frames by receipt, as text that sorts the same way. #}
{% macro frame_order_text() -%}
    {{ order_text(frame_place()) }}
{%- endmacro %}
{% macro frame_place() %}
    {{ return([['time', 'received_at'], ['text', 'session_id'], ['number', 'session_seq']]) }}
{% endmacro %}

{# What is kept of a quote: its values and its place among the symbol's quotes. #}
{% macro quote_facts() -%}
    {{ packed(quote_types()) }}
{%- endmacro %}
{% macro quote_types() %}
    {{ return({
        'quote_price': ['decimal(18, 8)', 'price'], 'quoted_at': 'timestamp',
        'quote_date': ['date', 'session_date'], 'quote_source': ['varchar', 'source'],
        'source_open': ['decimal(18, 8)', 'day_open'], 'source_high': ['decimal(18, 8)', 'day_high'],
        'source_low': ['decimal(18, 8)', 'day_low'],
        'source_previous_close': ['decimal(18, 8)', 'previous_close'],
        'source_change': ['decimal(18, 8)', 'change'],
        'source_change_percent': ['decimal(18, 8)', 'change_percent'],
        'quote_order': ['varchar', order_text([['time', 'quoted_at']] + frame_place())]
    }) }}
{% endmacro %}
{% macro quote_fact(facts, name) -%}
    {{ unpacked(facts, name, quote_types()[name]) }}
{%- endmacro %}
{% macro quote_order() -%}
    {{ row_order([['time', 'quoted_at']] + frame_place()) }}
{%- endmacro %}

{# A text as the literal that a statement may hold; in Snowflake a backslash begins an escape, too. #}
{% macro literal_of(column) -%}
    {{ adapter.dispatch('literal_of')(column) }}
{%- endmacro %}
{% macro default__literal_of(column) -%}
    '''' || replace({{ column }}, '''', '''''') || ''''
{%- endmacro %}
{% macro snowflake__literal_of(column) -%}
    '''' || replace(replace({{ column }}, '\\', '\\\\'), '''', '''''') || ''''
{%- endmacro %}
