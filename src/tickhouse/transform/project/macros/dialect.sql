{# Dialect differences live here and in the extractors; a twin `snowflake__…` goes beside each. #}

{% macro epoch_ms_to_timestamp(milliseconds) -%}
    {{ adapter.dispatch('epoch_ms_to_timestamp')(milliseconds) }}
{%- endmacro %}
{% macro default__epoch_ms_to_timestamp(milliseconds) -%}
    make_timestamp({{ milliseconds }} * 1000)
{%- endmacro %}

{% macro epoch_ns_to_timestamp(nanoseconds) -%}
    {{ adapter.dispatch('epoch_ns_to_timestamp')(nanoseconds) }}
{%- endmacro %}
{% macro default__epoch_ns_to_timestamp(nanoseconds) -%}
    make_timestamp({{ nanoseconds }} // 1000)
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

{% macro shift_seconds(column, seconds) -%}
    {{ adapter.dispatch('shift_seconds')(column, seconds) }}
{%- endmacro %}
{% macro default__shift_seconds(column, seconds) -%}
    ({{ column }} + interval '{{ seconds }} seconds')
{%- endmacro %}

{% macro milliseconds_between(earlier, later) -%}
    {{ adapter.dispatch('milliseconds_between')(earlier, later) }}
{%- endmacro %}
{% macro default__milliseconds_between(earlier, later) -%}
    ((epoch_us({{ later }}) - epoch_us({{ earlier }})) // 1000)
{%- endmacro %}

{# Wall-clock time of the US exchanges at a UTC time. #}
{% macro exchange_time(column) -%}
    {{ adapter.dispatch('exchange_time')(column) }}
{%- endmacro %}
{% macro default__exchange_time(column) -%}
    timezone('America/New_York', timezone('UTC', {{ column }}))
{%- endmacro %}

{# UTC time of a wall-clock time of the US exchanges. #}
{% macro utc_time(exchange_time) -%}
    {{ adapter.dispatch('utc_time')(exchange_time) }}
{%- endmacro %}
{% macro default__utc_time(exchange_time) -%}
    timezone('UTC', timezone('America/New_York', {{ exchange_time }}))
{%- endmacro %}

{% macro epoch_s_to_timestamp(seconds) -%}
    {{ adapter.dispatch('epoch_s_to_timestamp')(seconds) }}
{%- endmacro %}
{% macro default__epoch_s_to_timestamp(seconds) -%}
    make_timestamp({{ seconds }} * 1000000)
{%- endmacro %}

{# The value of `column` in the row where `order_by` is least / greatest; null values are left out. #}
{% macro first_by(column, order_by, where='true') -%}
    {{ adapter.dispatch('first_by')(column, order_by, where) }}
{%- endmacro %}
{% macro default__first_by(column, order_by, where) -%}
    arg_min({{ column }}, {{ order_by }}) filter (where {{ where }})
{%- endmacro %}

{% macro last_by(column, order_by, where='true') -%}
    {{ adapter.dispatch('last_by')(column, order_by, where) }}
{%- endmacro %}
{% macro default__last_by(column, order_by, where) -%}
    arg_max({{ column }}, {{ order_by }}) filter (where {{ where }})
{%- endmacro %}

{#
  Tick order: event time, received time, session, message number, index; never the log position.
  `leading` sorts before all of them.
#}
{% macro tick_order(leading='') -%}
    {{ adapter.dispatch('tick_order')(leading) }}
{%- endmacro %}
{% macro default__tick_order(leading) -%}
    ({{ leading ~ ', ' if leading }}event_at, received_at, session_id, session_seq, trade_index)
{%- endmacro %}

{# What is kept of a first or last trade: its price and its place in tick order. #}
{% macro tick_facts() -%}
    {{ adapter.dispatch('tick_facts')() }}
{%- endmacro %}
{% macro default__tick_facts() -%}
    struct_pack(
        price := price, event_at := event_at, received_at := received_at, session_id := session_id,
        session_seq := session_seq, trade_index := trade_index, source := source,
        is_opening_print := is_opening_print, is_closing_print := is_closing_print
    )
{%- endmacro %}

{# Tick order as text that sorts the same way; a space sorts before every other character. #}
{% macro tick_order_text(facts) -%}
    {{ adapter.dispatch('tick_order_text')(facts) }}
{%- endmacro %}
{% macro default__tick_order_text(facts) -%}
    case when {{ facts }} is not null then concat_ws(
        ' ', lpad(cast(epoch_us({{ facts }}.event_at) as varchar), 17, '0'),
        lpad(cast(epoch_us({{ facts }}.received_at) as varchar), 17, '0'), {{ facts }}.session_id,
        lpad(cast({{ facts }}.session_seq as varchar), 19, '0'),
        lpad(cast({{ facts }}.trade_index as varchar), 10, '0')
    ) end
{%- endmacro %}

{#
  Quotient of a DECIMAL(38,16) by a DECIMAL(38,8), both not negative, rounded half up to 8 decimals; null where it
  does not fit a DECIMAL(18,8).
  DuckDB divides decimals as doubles, so the division is done in integers: exact on every machine.
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

{% macro split_codes(column) -%}
    {{ adapter.dispatch('split_codes')(column) }}
{%- endmacro %}
{% macro default__split_codes(column) -%}
    unnest(string_split({{ column }}, ','))
{%- endmacro %}

{% macro matches(column, pattern) -%}
    {{ adapter.dispatch('matches')(column, pattern) }}
{%- endmacro %}
{% macro default__matches(column, pattern) -%}
    regexp_full_match({{ column }}, '{{ pattern }}')
{%- endmacro %}

{% macro raise_error(message) -%}
    {{ adapter.dispatch('raise_error')(message) }}
{%- endmacro %}
{% macro default__raise_error(message) -%}
    error({{ message }})
{%- endmacro %}

{# One row an item of a list. #}
{% macro each_of(list) -%}
    {{ adapter.dispatch('each_of')(list) }}
{%- endmacro %}
{% macro default__each_of(list) -%}
    unnest({{ list }})
{%- endmacro %}

{# One row a date, both ends included; a list of dates in a select. #}
{% macro each_date(first_date, last_date) -%}
    {{ adapter.dispatch('each_date')(first_date, last_date) }}
{%- endmacro %}
{% macro default__each_date(first_date, last_date) -%}
    cast(unnest(generate_series(
        cast({{ first_date }} as timestamp), cast({{ last_date }} as timestamp), interval '1 day'
    )) as date)
{%- endmacro %}

{# Order of frames by receipt, as text that sorts the same way. #}
{% macro frame_order_text() -%}
    {{ adapter.dispatch('frame_order_text')() }}
{%- endmacro %}
{% macro default__frame_order_text() -%}
    concat_ws(
        ' ', lpad(cast(epoch_us(received_at) as varchar), 17, '0'), session_id,
        lpad(cast(session_seq as varchar), 19, '0')
    )
{%- endmacro %}

{# What is kept of a quote: its values and its place among the symbol's quotes. #}
{% macro quote_facts() -%}
    {{ adapter.dispatch('quote_facts')() }}
{%- endmacro %}
{% macro default__quote_facts() -%}
    struct_pack(
        quote_price := price, quoted_at := quoted_at, quote_date := session_date,
        quote_source := source, source_open := day_open, source_high := day_high,
        source_low := day_low, source_previous_close := previous_close, source_change := change,
        source_change_percent := change_percent,
        quote_order := concat_ws(
            ' ', lpad(cast(epoch_us(quoted_at) as varchar), 17, '0'), {{ frame_order_text() }}
        )
    )
{%- endmacro %}
