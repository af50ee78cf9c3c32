{#
  Frames of a window that count: not delivered before under the same (session, message number).
#}
{% macro accepted_frames(stream, window) -%}
    select f.*, split_part(f.source, ':', -1) as payload_kind
    from {{ source('bronze', stream) }} as f
    left join (
        select topic_id, part, log_offset
        from {{ ref('repeated_frames') }}
        where stream = '{{ stream }}' and {{ in_window(window) }}
    ) as r on f.topic_id = r.topic_id and f.part = r.part and f.log_offset = r.log_offset
    where {{ in_window(window, 'f.load_id') }} and r.log_offset is null
{%- endmacro %}

{#
  One row an element of every frame of the window, with the reason why it is no trade, if any.
  Frames that cannot hold trades (control messages, order books) give none; a frame of unknown shape
  gives one row without a trade_index. Prices and sizes with more than 8 decimals are rounded half
  up to 8, the precision in which they are kept.
#}
{% macro trade_elements(window) -%}
    frames as (
        {{ accepted_frames('trades', window) }}
    ),
    elements as (
        {{ finnhub_ws_elements('frames') }}
        union all
        {{ binance_ws_elements('frames') }}
        union all
        {{ binance_trades_elements('frames') }}
        union all
        {{ finnhub_tick_elements('frames') }}
        union all
        {{ unreadable_elements('frames') }}
    ),
    typed as (
        select
            *,
            {{ kept_number('raw_price') }} as price,
            {{ kept_number('raw_size') }} as trade_size,
            try_cast(replace(raw_time, '_', '?') as bigint) as event_ms
        from elements
    ),
    judged as (
        select
            *,
            case
                when frame_reason is not null then frame_reason
                when raw_symbol is null and raw_price is null and raw_size is null
                    and raw_time is null then 'unknown_shape'
                when raw_symbol is null or raw_symbol = '' then 'missing_symbol'
                when not {{ matches('raw_symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then 'bad_symbol'
                when raw_price is null then 'missing_price'
                when price is null or price <= 0 then 'bad_price'
                when raw_size is null then 'missing_size'
                when trade_size = 0 then 'zero_size'
                when trade_size is null or trade_size < 0 then 'bad_size'
                {#- no print is worth a quadrillion; keeps every sum of values within its type #}
                when cast(price as double) * cast(trade_size as double) >= 1e15 then 'bad_size'
                when raw_time is null then 'missing_time'
                {#- 2000-01-01 to 2100-01-01 #}
                when event_ms is null or event_ms < 946684800000 or event_ms >= 4102444800000
                    then 'bad_time'
            end as reason
        from typed
    )
{%- endmacro %}

{# Frames that no extractor reads: one row each. #}
{% macro unreadable_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind, null as trade_index, null as raw_symbol, null as raw_price, null as raw_size,
        null as raw_time, null as trade_id, '' as raw_conditions,
        case
            when poison is not null then 'poison_record'
            when payload is null then 'not_json'
            else 'unknown_shape'
        end as frame_reason
    from {{ frames }}
    where payload is null or payload_kind is null or payload_kind not in (
        'finnhub.ws', 'binance.ws', 'binance.trades', 'finnhub.tick'
    )
{%- endmacro %}

{# What was rejected, as it was delivered: the element, or the whole frame. #}
{% macro element_text(frame, element) -%}
    {{ adapter.dispatch('element_text')(frame, element) }}
{%- endmacro %}
{% macro default__element_text(frame, element) -%}
    case
        when {{ frame }}.payload is null
            then coalesce({{ frame }}.payload_text, {{ frame }}.payload_b64, {{ frame }}.poison)
        when {{ element }}.payload_kind = 'binance.trades' and {{ element }}.trade_index is not null
            then cast(
                json_extract({{ frame }}.payload, '$[' || {{ element }}.trade_index || ']')
                as varchar
            )
        when {{ element }}.payload_kind = 'finnhub.tick' and {{ element }}.trade_index is not null
            then '{' || concat_ws(','
                {%- for name in ['t', 'p', 'v', 'c'] -%}
                , '"{{ name }}":' || cast(json_extract(
                    {{ frame }}.payload, '$.{{ name }}[' || {{ element }}.trade_index || ']'
                ) as varchar)
                {%- endfor %}) || '}'
        when {{ element }}.trade_index is null or {{ element }}.payload_kind <> 'finnhub.ws'
            then cast({{ frame }}.payload as varchar)
        else cast(
            json_extract({{ frame }}.payload, '$.data[' || {{ element }}.trade_index || ']') as varchar
        )
    end
{%- endmacro %}

{# A VARIANT is written anew: names of an object come in another order than they were delivered. #}
{% macro snowflake__element_text(frame, element) -%}
    {%- set place = element ~ '.trade_index' -%}
    case
        when {{ frame }}.payload is null
            then coalesce({{ frame }}.payload_text, {{ frame }}.payload_b64, {{ frame }}.poison)
        when {{ element }}.payload_kind = 'binance.trades' and {{ place }} is not null
            then to_json(get({{ frame }}.payload, {{ place }}))
        when {{ element }}.payload_kind = 'finnhub.tick' and {{ place }} is not null
            then '{' || substr(
                {%- for name in ['t', 'p', 'v', 'c'] %}
                {{ '|| ' if not loop.first }}coalesce(
                    ',"{{ name }}":' || to_json(get({{ frame }}.payload:{{ name }}, {{ place }})), ''
                )
                {%- endfor %}, 2
            ) || '}'
        when {{ place }} is null or {{ element }}.payload_kind <> 'finnhub.ws'
            then to_json({{ frame }}.payload)
        else to_json(get({{ frame }}.payload:data, {{ place }}))
    end
{%- endmacro %}

{# Elements of a frame that must become a trade or a reject. #}
{% macro element_count() -%}
    {{ adapter.dispatch('element_count')() }}
{%- endmacro %}
{% macro default__element_count() -%}
    case
        when payload_kind = 'finnhub.ws' and json_extract_string(payload, '$.type') = 'trade'
            and json_type(payload, '$.data') = 'ARRAY' then json_array_length(payload, '$.data')
        when payload_kind = 'binance.ws' and json_extract_string(payload, '$.data.e') = 'trade'
            and json_extract_string(payload, '$.stream') like '%@trade' then 1
        when payload_kind = 'binance.trades' and json_type(payload) = 'ARRAY'
            then json_array_length(payload)
        when payload_kind = 'finnhub.tick' and json_type(payload, '$.t') = 'ARRAY'
            and json_type(payload, '$.p') = 'ARRAY' and json_type(payload, '$.v') = 'ARRAY'
            and json_array_length(payload, '$.p') = json_array_length(payload, '$.t')
            and json_array_length(payload, '$.v') = json_array_length(payload, '$.t')
            and (
                coalesce(json_type(payload, '$.c'), 'NULL') <> 'ARRAY'
                or json_array_length(payload, '$.c') = json_array_length(payload, '$.t')
            ) then json_array_length(payload, '$.t')
        else 0
    end
{%- endmacro %}
{% macro snowflake__element_count() -%}
    case
        when payload_kind = 'finnhub.ws' and payload:type::varchar = 'trade' and is_array(payload:data)
            then array_size(payload:data)
        when payload_kind = 'binance.ws' and payload:data:e::varchar = 'trade'
            and payload:stream::varchar like '%@trade' then 1
        when payload_kind = 'binance.trades' and is_array(payload) then array_size(payload)
        when payload_kind = 'finnhub.tick' and is_array(payload:t) and is_array(payload:p)
            and is_array(payload:v) and array_size(payload:p) = array_size(payload:t)
            and array_size(payload:v) = array_size(payload:t)
            and (
                not coalesce(is_array(payload:c), false)
                or array_size(payload:c) = array_size(payload:t)
            ) then array_size(payload:t)
        else 0
    end
{%- endmacro %}
