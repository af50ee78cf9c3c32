{#
  Finnhub's /stock/profile2: {"name":"Apple Inc","finnhubIndustry":"Technology","currency":"USD",
  "marketCapitalization":1415993,…}; market capitalisation in millions of the company's currency,
  taken where that is the US dollar. An unknown symbol is answered with {}. The frame names the
  symbol.
#}
{% macro finnhub_profiles(frames) -%}
    {{ adapter.dispatch('finnhub_profiles')(frames) }}
{%- endmacro %}

{% macro default__finnhub_profiles(frames) -%}
    select
        received_at, session_id, session_seq,
        case when {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then symbol end as symbol,
        nullif(left(trim(message.name), 200), '') as name,
        nullif(left(trim(message."finnhubIndustry"), 200), '') as industry,
        case when coalesce(message.currency, 'USD') = 'USD' then cast(
            cast({{ positive(kept_number('message."marketCapitalization"')) }} as decimal(30, 8))
            * cast(1000000 as decimal(7, 0)) as decimal(38, 2)
        ) end as market_cap
    from (
        select
            *,
            json_transform(
                payload,
                '{"name":"VARCHAR","finnhubIndustry":"VARCHAR","currency":"VARCHAR","marketCapitalization":"VARCHAR"}'
            ) as message
        from {{ frames }}
        where payload_kind = 'finnhub.profile2' and payload is not null
    )
{%- endmacro %}

{% macro snowflake__finnhub_profiles(frames) -%}
    select
        received_at, session_id, session_seq,
        case when {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then symbol end as symbol,
        nullif(left(trim(payload:name::varchar), 200), '') as name,
        nullif(left(trim(payload:"finnhubIndustry"::varchar), 200), '') as industry,
        case when coalesce(payload:currency::varchar, 'USD') = 'USD' then cast(
            cast({{ positive(kept_number('payload:"marketCapitalization"::varchar')) }} as decimal(30, 8))
            * cast(1000000 as decimal(7, 0)) as decimal(38, 2)
        ) end as market_cap
    from {{ frames }}
    where payload_kind = 'finnhub.profile2' and payload is not null
{%- endmacro %}
