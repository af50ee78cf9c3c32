{# Longer bars changed since hold exactly what the bars below them hold; one row a symbol and start. #}
{% set window = build_window('tests') %}

with compared as (
    {% for longer, shorter, seconds in [
        ('bars_1m', 'bars_1s', 60), ('bars_5m', 'bars_1m', 300), ('bars_1h', 'bars_5m', 3600)
    ] %}
    {% set ranges = time_ranges(ref(longer), 'bar_at', in_window(window), seconds) %}
    select '{{ longer }}' as bars, l.symbol, l.bar_at
    from (
        select symbol, bar_at, count(*) as copies, max(trade_count) as trade_count,
            max(volume) as volume, max(dollar_volume) as dollar_volume, max(high) as high,
            min(low) as low
        from {{ ref(longer) }}
        where {{ in_window(window) }}
        group by symbol, bar_at
    ) as l
    left join (
        select
            symbol, {{ time_bucket(seconds, 'bar_at') }} as bar_at, sum(trade_count) as trade_count,
            sum(volume) as volume, sum(dollar_volume) as dollar_volume, max(high) as high,
            min(low) as low
        from ({{ rows_in(
            ref(shorter), 'bar_at', ranges,
            'symbol, bar_at, trade_count, volume, dollar_volume, high, low'
        ) }})
        group by symbol, {{ time_bucket(seconds, 'bar_at') }}
    ) as s on l.symbol = s.symbol and l.bar_at = s.bar_at
    where l.copies > 1
        or l.trade_count is distinct from s.trade_count or l.volume is distinct from s.volume
        or l.dollar_volume is distinct from s.dollar_volume
        or l.high is distinct from s.high or l.low is distinct from s.low
    {{ 'union all' if not loop.last }}
    {% endfor %}
)

select * from compared
