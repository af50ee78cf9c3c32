{{ config(unique_key=['symbol']) }}
{% set window = build_window() %}
{{ window_comment(window) }}

select
    k.symbol,
    k.name,
    coalesce(i.sector, 'Other') as sector,
    coalesce(i.industry, 'Other') as industry,
    i.market_cap,
    k.session_date,
    k.last_price,
    k.change_percent,
    k.dollar_volume,
    cast({{ window.upto }} as bigint) as load_id
from {{ ref('kpi') }} as k
left join {{ ref('instruments') }} as i on k.symbol = i.symbol
where {{ in_window(window, 'k.load_id') }}
