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
        'BINANCE:' || message.data.s as raw_symbol,
        message.data.p as raw_price,
        message.data.q as raw_size,
        cased[2] as raw_time,
        cast(try_cast(cased[3] as ubigint) as varchar) as trade_id,
        '' as raw_conditions,
        case when not is_trade_message then 'unknown_shape' end as frame_reason
    from (
        select
            *,
            coalesce(
                ends_with(message.stream, '@trade') and cased[1] = 'trade', false
            ) as is_trade_message,
            {#- an answer to a request, or a snapshot of the order book #}
            message.stream is null and (message.id is not null or message.lastUpdateId is not null)
                as is_answer
        from (
            select
                *,
                json_transform(
                    payload,
                    '{"stream":"VARCHAR","id":"VARCHAR","lastUpdateId":"VARCHAR","data":{"s":"VARCHAR","p":"VARCHAR","q":"VARCHAR"}}'
                ) as message,
                {#- keys that differ only in case (t, T; e, E) collide in a struct #}
                json_extract_string(payload, ['$.data.e', '$.data.T', '$.data.t']) as cased
            from {{ frames }}
            where payload_kind = 'binance.ws' and payload is not null
        )
    )
    where is_trade_message
        or not (is_answer or (message.stream like '%@%' and not ends_with(message.stream, '@trade')))
{%- endmacro %}
