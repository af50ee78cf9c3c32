{#
  The day's figures agree wherever they are shown, each key has one row, and no session holds more
  frames than it gave out. bars_1d is built apart from the shorter bars: their trades must add up.
#}
{% set window = build_window('tests') %}

select 'kpi and bars_1d' as disagreement, k.symbol as found_at
from {{ ref('kpi') }} as k
left join {{ ref('bars_1d') }} as d on k.symbol = d.symbol and k.session_date = d.session_date
where {{ in_window(window, 'k.load_id') }}
    and (
        k.volume is distinct from d.volume or k.trade_count <> coalesce(d.trade_count, 0)
        or k.dollar_volume is distinct from d.dollar_volume
    )
union all
select 'kpi and market_map', k.symbol
from {{ ref('kpi') }} as k
left join {{ ref('market_map') }} as m on k.symbol = m.symbol
where {{ in_window(window, 'k.load_id') }}
    and (
        k.session_date is distinct from m.session_date
        or k.last_price is distinct from m.last_price
        or k.dollar_volume is distinct from m.dollar_volume
    )
union all
select 'market_map keys', symbol
from {{ ref('market_map') }}
group by symbol
having count(*) > 1
union all
select 'kpi keys', symbol
from {{ ref('kpi') }}
group by symbol
having count(*) > 1
union all
select 'completeness', session_id
from {{ ref('completeness') }}
where {{ in_window(window) }} and frames_missing < 0
union all
select 'volatility_1m keys', symbol
from {{ ref('volatility_1m') }}
where {{ in_window(window) }}
group by symbol, bar_at
having count(*) > 1
union all
select 'latency keys', source
from {{ ref('latency') }}
where {{ in_window(window) }}
group by minute_at, source
having count(*) > 1
union all
select 'gaps_daily keys', symbol
from {{ ref('gaps_daily') }}
where {{ in_window(window) }}
group by session_date, symbol, stream
having count(*) > 1 or min(least(missing_s, filled_s, ids_missing, ids_filled)) < 0
union all
select 'gaps keys', name
from {{ ref('gaps') }}
where {{ in_window(window) }}
group by kind, name
having count(*) > 1
union all
select 'instruments keys', symbol
from {{ ref('instruments') }}
where {{ in_window(window) }}
group by symbol
having count(*) > 1
