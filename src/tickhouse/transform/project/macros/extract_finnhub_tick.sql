{#
  A page of Finnhub's /stock/tick, fetched to fill a gap: {"s":"AAPL","skip":0,"count":2,"total":9,
  "t":[1575968404217,…],"p":[…],"v":[…],"x":["P",…],"c":[["1","24"],…]}, one column a figure. The
  frame names the symbol. Columns of different lengths give one row that is no trade.
#}
{% macro finnhub_tick_elements(frames) -%}
    {{ adapter.dispatch('finnhub_tick_elements')(frames) }}
{%- endmacro %}

{% macro default__finnhub_tick_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_page then place - 1 end as trade_index,
        {#- An element without any of these is no trade of any symbol. #}
        case when coalesce(element_p, element_v, element_t) is not null then symbol end
            as raw_symbol,
        element_p as raw_price,
        element_v as raw_size,
        element_t as raw_time,
        cast(null as varchar) as trade_id,
        coalesce(array_to_string(element_c, ','), '') as raw_conditions,
        case when not is_page then 'unknown_shape' end as frame_reason
    from (
        select
            * exclude (page, places),
            unnest(places) as place,
            page.p[place] as element_p,
            page.v[place] as element_v,
            page.t[place] as element_t,
            page.c[place] as element_c
        from (
            select
                * exclude (payload),
                case when is_page then range(1, len(page.t) + 1) else [null] end as places
            from (
                select
                    *,
                    coalesce(
                        len(page.p) = len(page.t) and len(page.v) = len(page.t)
                        and coalesce(len(page.c), len(page.t)) = len(page.t), false
                    ) as is_page
                from (
                    select
                        *,
                        json_transform(
                            payload,
                            '{"t":["VARCHAR"],"p":["VARCHAR"],"v":["VARCHAR"],"c":[["VARCHAR"]]}'
                        ) as page
                    from {{ frames }}
                    where payload_kind = 'finnhub.tick' and payload is not null
                )
            )
        )
    )
{%- endmacro %}

{% macro snowflake__finnhub_tick_elements(frames) -%}
    select
        topic_id, part, log_offset, log_at, load_id, source, session_id, session_seq, received_at,
        payload_kind,
        case when is_page then f.index end as trade_index,
        case when is_page and coalesce(
            get(t.payload:p, f.index)::varchar, get(t.payload:v, f.index)::varchar, f.value::varchar
        ) is not null then t.symbol end as raw_symbol,
        case when is_page then get(t.payload:p, f.index)::varchar end as raw_price,
        case when is_page then get(t.payload:v, f.index)::varchar end as raw_size,
        case when is_page then f.value::varchar end as raw_time,
        cast(null as varchar) as trade_id,
        case when is_page then {{ joined_texts('get(t.payload:c, f.index)') }} else '' end
            as raw_conditions,
        case when not is_page then 'unknown_shape' end as frame_reason
    from (
        select
            *,
            case when is_page then payload:t else parse_json('[null]') end as places
        from (
            select
                *,
                coalesce(
                    is_array(payload:t) and is_array(payload:p) and is_array(payload:v)
                    and array_size(payload:p) = array_size(payload:t)
                    and array_size(payload:v) = array_size(payload:t)
                    and (
                        not coalesce(is_array(payload:c), false)
                        or array_size(payload:c) = array_size(payload:t)
                    ), false
                ) as is_page
            from {{ frames }}
            where payload_kind = 'finnhub.tick' and payload is not null
        )
    ) as t, lateral flatten(input => t.places) as f
{%- endmacro %}
