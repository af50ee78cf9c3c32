{#
  A page of Binance's old trades, fetched to fill a gap: [{"id":…,"price":"61837.64","qty":"0.004",
  "quoteQty":…,"time":…,"isBuyerMaker":…,"isBestMatch":…}, …]. The body does not name its symbol: the
  frame does ("BTCUSDT"). Written as Finnhub writes it, BINANCE:BTCUSDT.
#}
{% macro binance_trades_elements(frames) -%}
    {{ adapter.dispatch('binance_trades_elements')(frames) }}
{%- endmacro %}

{% macro default__binance_trades_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_page then place - 1 end as trade_index,
        {#- An element without any of these is no trade of any symbol. #}
        case when coalesce(element.price, element.qty, element.time) is not null
            then 'BINANCE:' || symbol end as raw_symbol,
        element.price as raw_price,
        element.qty as raw_size,
        element.time as raw_time,
        cast(try_cast(element.id as ubigint) as varchar) as trade_id,
        '' as raw_conditions,
        case when not is_page then 'unknown_shape' end as frame_reason
    from (
        select
            * exclude (elements),
            unnest(elements) as element,
            generate_subscripts(elements, 1) as place
        from (
            select
                * exclude (page, payload),
                page is not null as is_page,
                case when page is not null then page else [null] end as elements
            from (
                select
                    *,
                    case when json_type(payload) = 'ARRAY' then json_transform(
                        payload,
                        '[{"id":"VARCHAR","price":"VARCHAR","qty":"VARCHAR","time":"VARCHAR"}]'
                    ) end as page
                from {{ frames }}
                where payload_kind = 'binance.trades' and payload is not null
            )
        )
    )
{%- endmacro %}

{% macro snowflake__binance_trades_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_page then f.index end as trade_index,
        case when coalesce(f.value:price::varchar, f.value:qty::varchar, f.value:time::varchar) is not null
            then 'BINANCE:' || t.symbol end as raw_symbol,
        f.value:price::varchar as raw_price,
        f.value:qty::varchar as raw_size,
        f.value:time::varchar as raw_time,
        {{ whole_id('f.value:id::varchar') }} as trade_id,
        '' as raw_conditions,
        case when not is_page then 'unknown_shape' end as frame_reason
    from (
        select
            * exclude (payload),
            is_array(payload) as is_page,
            case when is_array(payload) then payload else parse_json('[null]') end as elements
        from {{ frames }}
        where payload_kind = 'binance.trades' and payload is not null
    ) as t, lateral flatten(input => t.elements) as f
{%- endmacro %}

{# A number without sign of at most 64 bits, as text; null where it is none. #}
{% macro whole_id(text) -%}
    cast(case
        when try_to_decimal(replace({{ text }}, '_', '?'), 38, 0) between 0 and 18446744073709551615
            then try_to_decimal(replace({{ text }}, '_', '?'), 38, 0)
    end as varchar)
{%- endmacro %}
