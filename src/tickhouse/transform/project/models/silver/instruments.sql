{{ config(unique_key=['symbol'], meta={'streams': ['reference']}) }}
{#
  The list, with the newest company profile of each symbol laid over it. What a profile leaves out
  is the list's. Sectors stay the list's: Finnhub's industries are of another taxonomy.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with frames as (
    {{ accepted_frames('reference', window) }}
),

profiles as (
    {{ finnhub_profiles('frames') }}
),

arrived as (
    select
        symbol, name, industry, market_cap, received_at as profile_at,
        {{ frame_order_text() }} as profile_order
    from profiles
    where symbol is not null and name is not null
    qualify row_number() over (
        partition by symbol order by received_at desc, session_id desc, session_seq desc
    ) = 1
)

select
    coalesce(l.symbol, p.symbol) as symbol,
    coalesce(p.name, l.name) as name,
    coalesce(l.sector, p.industry, 'Other') as sector,
    coalesce(p.industry, l.industry, 'Other') as industry,
    coalesce(p.market_cap, l.market_cap) as market_cap,
    p.profile_at,
    p.profile_order,
    cast({{ window.upto }} as bigint) as load_id
from arrived as p
{% if window.is_full %}
full outer join {{ ref('instrument_list') }} as l on p.symbol = l.symbol
{% else %}
left join {{ ref('instrument_list') }} as l on p.symbol = l.symbol
left join {{ this }} as s on p.symbol = s.symbol
where s.profile_order is null or s.profile_order < p.profile_order
{% endif %}
