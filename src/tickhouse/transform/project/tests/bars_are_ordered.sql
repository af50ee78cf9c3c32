{# Bars changed since: low <= open, close <= high; prices all there or all missing; sums fit. #}
{% set window = build_window('tests') %}

with bars as (
    {% for table in ['bars_1s', 'bars_1m', 'bars_5m', 'bars_1h', 'bars_1d'] %}
    select
        '{{ table }}' as bars, symbol, bar_at, open, high, low, close, volume, trade_count,
        dollar_volume, vwap, revision
    from {{ ref(table) }}
    where {{ in_window(window) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
)

select *
from bars
where (bars = 'bars_1d' and low > high)
    or (bars <> 'bars_1d' and not coalesce(
        low <= least(open, close) and greatest(open, close) <= high,
        coalesce(open, high, low, close) is null
    ))
    or volume < 0 or trade_count < 0 or dollar_volume < 0 or revision < 0
    or (volume > 0) <> (vwap is not null) or (volume > 0) <> (trade_count > 0)
    or symbol is null or bar_at is null
