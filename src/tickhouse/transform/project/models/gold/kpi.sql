{{ config(unique_key=['symbol']) }}
{#
  The newest trade and the newest quote that was no stale one are kept apart, each with its place,
  so that what arrives late changes nothing that a rebuild would not. The later of the two is the
  last price; the day's figures are those of the bar, and the source's own where there is no bar.
#}
{% set window = build_window() %}
{% set quote_columns = [
    'quote_price', 'quoted_at', 'quote_date', 'quote_source', 'source_open', 'source_high',
    'source_low', 'source_previous_close', 'source_change', 'source_change_percent', 'quote_order'
] %}
{% set source_columns = [
    'source_open', 'source_high', 'source_low', 'source_previous_close', 'source_change',
    'source_change_percent'
] %}
{{ window_comment(window) }}

with arrived as (
    select
        symbol, {{ last_by(tick_facts(), tick_order(), 'bar_sets_price') }} as last_tick
    from {{ ref('trades') }}
    where {{ in_window(window) }}
    group by symbol
),

quoted as (
    select
        symbol,
        {{ last_by(quote_facts(), quote_order()) }} as quote
    from {{ ref('quotes') }}
    where {{ in_window(window) }} and not is_stale
    group by symbol
),

touched as (
    select symbol from arrived
    union
    select symbol from quoted
    union
    select symbol from {{ ref('bars_1d') }} where {{ in_window(window) }}
    union
    select symbol from {{ ref('instruments') }} where {{ in_window(window) }}
),

newest_trades as (
    select
        symbol, {{ tick_fact('last_tick', 'price') }} as last_trade_price,
        {{ tick_fact('last_tick', 'event_at') }} as last_trade_at,
        {{ tick_fact('last_tick', 'source') }} as last_trade_source,
        {{ tick_order_text('last_tick') }} as last_order
    from arrived
),

newest_quotes as (
    select symbol, {% for fact in quote_columns %}{{ quote_fact('quote', fact) }} as {{ fact }}{{ ', ' if not loop.last }}{% endfor %}
    from quoted
),

facts as (
    select
        t.symbol,
        {% for fact in ['last_trade_price', 'last_trade_at', 'last_trade_source', 'last_order'] %}
        {% if not window.is_full %}case when k.last_order > coalesce(n.last_order, '') then k.{{ fact }} else n.{{ fact }} end
        {%- else %}n.{{ fact }}{% endif %} as {{ fact }},
        {% endfor %}
        {% for fact in quote_columns %}
        {% if not window.is_full %}case when k.quote_order > coalesce(q.quote_order, '') then k.{{ fact }} else q.{{ fact }} end
        {%- else %}q.{{ fact }}{% endif %} as {{ fact }}{{ ',' if not loop.last }}
        {% endfor %}
    from touched as t
    left join newest_trades as n on t.symbol = n.symbol
    left join newest_quotes as q on t.symbol = q.symbol
    {% if not window.is_full %}
    left join {{ this }} as k on t.symbol = k.symbol
    {% endif %}
),

days as (
    select d.*
    from {{ ref('bars_1d') }} as d
    inner join touched as t on d.symbol = t.symbol
),

dated as (
    select
        f.*,
        greatest(
            coalesce(n.session_date, f.quote_date), coalesce(f.quote_date, n.session_date)
        ) as session_date
    from facts as f
    left join (
        select symbol, max(session_date) as session_date from days group by symbol
    ) as n on f.symbol = n.symbol
),

previous as (
    select
        d.symbol,
        {{ last_by('d.close', 'd.session_date', 'd.close is not null') }} as our_previous_close
    from days as d
    inner join dated as n on d.symbol = n.symbol and d.session_date < n.session_date
    group by d.symbol
),

joined as (
    select
        f.* exclude ({{ source_columns | join(', ') }}),
        {#- The source's figures are of the quote's session. #}
        {% for fact in source_columns %}
        case when f.quote_date = f.session_date then f.{{ fact }} end as {{ fact }},
        {% endfor %}
        f.quote_price is not null
            and (f.last_trade_at is null or f.quoted_at > f.last_trade_at) as is_quote_newer,
        p.our_previous_close,
        d.open as our_open, d.high as our_high, d.low as our_low, d.volume, d.trade_count,
        d.dollar_volume, d.vwap, d.symbol is not null as has_bar
    from dated as f
    left join previous as p on f.symbol = p.symbol
    left join days as d on f.symbol = d.symbol and f.session_date = d.session_date
    where f.session_date is not null
),

priced as (
    select
        *,
        case when is_quote_newer then quote_price else last_trade_price end as last_price,
        coalesce(source_previous_close, our_previous_close) as previous_close
    from joined
)

select
    k.symbol,
    coalesce(i.name, k.symbol) as name,
    k.session_date,
    k.last_price,
    case when k.is_quote_newer then k.quoted_at else k.last_trade_at end as last_at,
    case when k.is_quote_newer then 'quote' when k.last_price is not null then 'trade' end
        as price_source,
    k.previous_close,
    cast(k.last_price - k.previous_close as decimal(18, 8)) as change,
    cast({{ exact_quotient(
        'cast(100 * cast(k.last_price as decimal(20, 8)) as decimal(38, 16))', 'cast(k.previous_close as decimal(38, 8))'
    ) }} - 100 as decimal(18, 8)) as change_percent,
    {% for fact in ['open', 'high', 'low'] %}
    case when k.has_bar then k.our_{{ fact }} else k.source_{{ fact }} end as day_{{ fact }},
    {% endfor %}
    k.volume,
    coalesce(k.trade_count, 0) as trade_count,
    k.dollar_volume,
    k.vwap,
    case when k.is_quote_newer then k.quote_source else k.last_trade_source end as source,
    {{ disagreements() }} as disagreements,
    k.last_trade_price, k.last_trade_at, k.last_trade_source, k.last_order,
    {% for fact in quote_columns %}k.{{ fact }}, {% endfor %}
    cast({{ window.upto }} as bigint) as load_id
from priced as k
left join {{ ref('instruments') }} as i on k.symbol = i.symbol
