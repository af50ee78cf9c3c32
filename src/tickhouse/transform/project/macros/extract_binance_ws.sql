{#
  Binance's combined stream: {"stream":"btcusdt@trade","data":{"e":"trade","T":…,"s":"BTCUSDT",
  "t":3735683259,"p":"61837.64","q":"0.004",…}}. One trade a message; other streams (bookTicker,
  depth), answers to requests and order book snapshots hold no trades. The symbol is written as
  Finnhub writes it, BINANCE:BTCUSDT.
#}
{% macro binance_ws_elements(frames) -%}
    {{ adapter.dispatch('binance_ws_elements')(frames) }}
{%- endmacro %}

{% macro default__binance_ws_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_trade_message then 0 end as trade_index,
        'BINANCE:' || element.s as raw_symbol,
        element.p as raw_price,
        element.q as raw_size,
        element.T as raw_time,
        cast(try_cast(delivered_id as ubigint) as varchar) as trade_id,
        '' as raw_conditions,
        case when not is_trade_message then 'unknown_shape' end as frame_reason
    from (
        select * exclude (elements), unnest(elements) as element
        from (
            select
                * exclude (message, payload),
                coalesce(ends_with(message.stream, '@trade') and message.data.e = 'trade', false)
                    as is_trade_message,
                case
                    when ends_with(message.stream, '@trade') and message.data.e = 'trade'
                        then [message.data]
                    when contains(message.stream, '@') and not ends_with(message.stream, '@trade')
                        then []
                    when message.stream is null
                        and (message.id is not null or message.lastUpdateId is not null) then []
                    else [null]
                end as elements
            from (
                select
                    *,
                    json_transform(
                        payload,
                        '{"stream":"VARCHAR","id":"VARCHAR","lastUpdateId":"VARCHAR","data":{"e":"VARCHAR","T":"VARCHAR","s":"VARCHAR","p":"VARCHAR","q":"VARCHAR"}}'
                    ) as message,
                    {#- Names of struct fields do not tell T from t. #}
                    json_extract_string(payload, '$.data.t') as delivered_id
                from {{ frames }}
                where payload_kind = 'binance.ws' and payload is not null
            )
        )
    )
{%- endmacro %}

{% macro snowflake__binance_ws_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_trade_message then 0 end as trade_index,
        case when is_trade_message then 'BINANCE:' || payload:data:s::varchar end as raw_symbol,
        case when is_trade_message then payload:data:p::varchar end as raw_price,
        case when is_trade_message then payload:data:q::varchar end as raw_size,
        case when is_trade_message then payload:data:T::varchar end as raw_time,
        {{ whole_id('payload:data:t::varchar') }} as trade_id,
        '' as raw_conditions,
        case when not is_trade_message then 'unknown_shape' end as frame_reason
    from (
        select
            *,
            payload:stream::varchar as stream_name,
            coalesce(endswith(payload:stream::varchar, '@trade') and payload:data:e::varchar = 'trade', false)
                as is_trade_message
        from {{ frames }}
        where payload_kind = 'binance.ws' and payload is not null
    )
    where is_trade_message
        or not coalesce(contains(stream_name, '@') and not endswith(stream_name, '@trade'), false)
        and not (
            stream_name is null
            and (payload:id::varchar is not null or payload:"lastUpdateId"::varchar is not null)
        )
{%- endmacro %}
