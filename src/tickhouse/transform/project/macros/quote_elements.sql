{#
  Finnhub's /quote: {"c":162.65,"d":0.29,"dp":0.1786,"h":163.09,"l":162.13,"o":162.44,"pc":162.36,
  "t":1680273039}: last price, change, change in percent, high, low, open, previous close, UNIX
  seconds. The frame names the symbol. Read as text, like trades.
#}
{% macro finnhub_quote_fields(frames) -%}
    {{ adapter.dispatch('finnhub_quote_fields')(frames) }}
{%- endmacro %}

{% macro default__finnhub_quote_fields(frames) -%}
    select
        * exclude (message),
        message.error as answer_error,
        message.c as raw_price,
        message.d as raw_change,
        message.dp as raw_change_percent,
        message.o as raw_open,
        message.h as raw_high,
        message.l as raw_low,
        message.pc as raw_previous_close,
        message.t as raw_time
    from (
        select
            *,
            json_transform(
                payload,
                '{"c":"VARCHAR","d":"VARCHAR","dp":"VARCHAR","h":"VARCHAR","l":"VARCHAR","o":"VARCHAR","pc":"VARCHAR","t":"VARCHAR","error":"VARCHAR"}'
            ) as message
        from {{ frames }}
    )
{%- endmacro %}

{% macro snowflake__finnhub_quote_fields(frames) -%}
    select
        *,
        payload:error::varchar as answer_error,
        payload:c::varchar as raw_price,
        payload:d::varchar as raw_change,
        payload:dp::varchar as raw_change_percent,
        payload:o::varchar as raw_open,
        payload:h::varchar as raw_high,
        payload:l::varchar as raw_low,
        payload:pc::varchar as raw_previous_close,
        payload:t::varchar as raw_time
    from {{ frames }}
{%- endmacro %}

{#
  One row a frame of the window's quotes, with the reason why it is no quote, if any. What is zero
  for want of a value (o, h, l, pc; seen with a good price in 2020) is null.
#}
{% macro quote_elements(window) -%}
    frames as (
        {{ accepted_frames('quotes', window) }}
    ),
    fields as (
        {{ finnhub_quote_fields('frames') }}
    ),
    typed as (
        select
            *,
            {{ kept_number('raw_price') }} as price,
            {{ kept_number('raw_change') }} as change,
            {{ kept_number('raw_change_percent') }} as change_percent,
            {%- for field in ['open', 'high', 'low'] %}
            {{ positive(kept_number('raw_' ~ field)) }} as day_{{ field }},
            {%- endfor %}
            {{ positive(kept_number('raw_previous_close')) }} as previous_close,
            try_cast(replace(raw_time, '_', '?') as bigint) as quoted_s
        from fields
    ),
    judged as (
        select
            *,
            case
                when poison is not null then 'poison_record'
                when {{ matches('payload_kind', 'finnhub[.]http[.][0-9]{3}') }}
                    then 'http_' || split_part(payload_kind, '.', 3)
                when payload is null then 'not_json'
                when payload_kind <> 'finnhub.quote' then 'unknown_shape'
                when answer_error is not null then 'error_answer'
                when raw_price is null and raw_time is null then 'unknown_shape'
                when symbol is null or not {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }}
                    then 'bad_symbol'
                when price <= 0 or quoted_s = 0 then 'no_data'
                when price is null then 'bad_price'
                {#- 2000-01-01 to 2100-01-01 #}
                when quoted_s is null or quoted_s < 946684800 or quoted_s >= 4102444800
                    then 'bad_time'
            end as reason
        from typed
    )
{%- endmacro %}

{% macro positive(number) -%}
    case when {{ number }} > 0 then {{ number }} end
{%- endmacro %}
