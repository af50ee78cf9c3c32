{{ config(unique_key=['symbol']) }}
{% set window = build_window() %}
{{ window_comment(window) }}

with arrived as (
    select
        symbol, {{ last_by(tick_facts(), tick_order(), 'bar_sets_price') }} as last_tick
    from {{ ref('trades') }}
    where {{ in_window(window) }}
    group by symbol
),

touched as (
    select symbol from arrived
    union
    select symbol from {{ ref('bars_1d') }} where {{ in_window(window) }}
),

newest as (
    select
        symbol, last_tick.price as last_price, last_tick.event_at as last_at,
        last_tick.source as source, {{ tick_order_text('last_tick') }} as last_order
    from arrived
),

last_trades as (
    {% if not window.is_full %}
    select
        t.symbol,
        case when k.last_order > coalesce(n.last_order, '') then k.last_price else n.last_price end
            as last_price,
        case when k.last_order > coalesce(n.last_order, '') then k.last_at else n.last_at end
            as last_at,
        case when k.last_order > coalesce(n.last_order, '') then k.source else n.source end
            as source,
        case when k.last_order > coalesce(n.last_order, '') then k.last_order else n.last_order end
            as last_order
    from touched as t
    left join newest as n on t.symbol = n.symbol
    left join {{ this }} as k on t.symbol = k.symbol
    {% else %}
    select symbol, last_price, last_at, source, last_order from newest
    {% endif %}
),

days as (
    select d.*
    from {{ ref('bars_1d') }} as d
    inner join touched as t on d.symbol = t.symbol
),

newest_days as (
    select symbol, max(session_date) as session_date from days group by symbol
),

previous as (
    select
        d.symbol,
        {{ last_by('d.close', 'd.session_date', 'd.close is not null') }} as previous_close
    from days as d
    inner join newest_days as n on d.symbol = n.symbol and d.session_date < n.session_date
    group by d.symbol
)

select
    d.symbol,
    coalesce(i.name, d.symbol) as name,
    d.session_date,
    l.last_price,
    l.last_at,
    p.previous_close,
    cast(l.last_price - p.previous_close as decimal(18, 8)) as change,
    cast({{ exact_quotient(
        'cast(100 * cast(l.last_price as decimal(20, 8)) as decimal(38, 16))', 'cast(p.previous_close as decimal(38, 8))'
    ) }} - 100 as decimal(18, 8)) as change_percent,
    d.open as day_open,
    d.high as day_high,
    d.low as day_low,
    d.volume,
    d.trade_count,
    d.dollar_volume,
    d.vwap,
    l.source,
    l.last_order,
    cast({{ window.upto }} as bigint) as load_id
from days as d
inner join newest_days as n on d.symbol = n.symbol and d.session_date = n.session_date
inner join last_trades as l on d.symbol = l.symbol
left join previous as p on d.symbol = p.symbol
left join {{ ref('instruments') }} as i on d.symbol = i.symbol
