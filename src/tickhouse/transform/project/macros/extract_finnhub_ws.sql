{#
  Finnhub's WebSocket: {"type":"trade","data":[{"c":["1","12"],"p":164.06,"s":"AAPL","t":…,"v":5},…]}.
  `c` may be null, [] or absent: a regular trade. Everything is read as text, which never fails and
  keeps the number of elements, and is cast afterwards. No filter looks into the message: DuckDB
  would parse it once more for each.
#}
{% macro finnhub_ws_elements(frames) -%}
    {{ adapter.dispatch('finnhub_ws_elements')(frames) }}
{%- endmacro %}

{% macro default__finnhub_ws_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_trade_message then place - 1 end as trade_index,
        element.s as raw_symbol,
        element.p as raw_price,
        element.v as raw_size,
        element.t as raw_time,
        cast(null as varchar) as trade_id,
        coalesce(array_to_string(element.c, ','), '') as raw_conditions,
        case when not is_trade_message then 'unknown_shape' end as frame_reason
    from (
        select
            * exclude (elements),
            unnest(elements) as element,
            generate_subscripts(elements, 1) as place
        from (
            select
                * exclude (message, payload),
                coalesce(message.type = 'trade' and message.data is not null, false)
                    as is_trade_message,
                case
                    when message.type = 'trade' and message.data is not null then message.data
                    when message.type in ('ping', 'pong', 'error', 'subscribe', 'unsubscribe')
                        then []
                    else [null]
                end as elements
            from (
                select
                    *,
                    json_transform(
                        payload,
                        '{"type":"VARCHAR","data":[{"c":["VARCHAR"],"p":"VARCHAR","s":"VARCHAR","t":"VARCHAR","v":"VARCHAR"}]}'
                    ) as message
                from {{ frames }}
                where payload_kind = 'finnhub.ws' and payload is not null
            )
        )
    )
{%- endmacro %}

{% macro snowflake__finnhub_ws_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_trade_message then f.index end as trade_index,
        f.value:s::varchar as raw_symbol,
        f.value:p::varchar as raw_price,
        f.value:v::varchar as raw_size,
        f.value:t::varchar as raw_time,
        cast(null as varchar) as trade_id,
        {{ joined_texts('f.value:c') }} as raw_conditions,
        case when not is_trade_message then 'unknown_shape' end as frame_reason
    from (
        select
            *,
            case
                when is_trade_message then payload:data
                when payload:type::varchar in ('ping', 'pong', 'error', 'subscribe', 'unsubscribe')
                    then parse_json('[]')
                else parse_json('[null]')
            end as elements
        from (
            select
                *,
                coalesce(payload:type::varchar = 'trade' and is_array(payload:data), false)
                    as is_trade_message
            from {{ frames }}
            where payload_kind = 'finnhub.ws' and payload is not null
        )
    ) as t, lateral flatten(input => t.elements) as f
{%- endmacro %}

{# Texts of a list joined by commas, nulls left out; '' where it is no list. #}
{% macro joined_texts(list) -%}
    coalesce(array_to_string(array_compact(case when is_array({{ list }}) then {{ list }} end), ','), '')
{%- endmacro %}
