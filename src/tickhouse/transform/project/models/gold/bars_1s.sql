{{ config(unique_key=['symbol', 'bar_at'], meta={'prune_by': 'bar_at'}) }}
{% set window = build_window() %}
{% set ranges = time_ranges(ref('trades'), 'event_at', in_window(window)) if not window.is_full else [] %}
{{ window_comment(window) }}

with {% if not window.is_full %}touched as (
    select distinct symbol, {{ time_bucket(1, 'event_at') }} as bar_at
    from {{ ref('trades') }}
    where {{ in_window(window) }}
),
{% endif %}
trades as (
    {% if not window.is_full %}
    select t.*, b.bar_at
    from ({{ rows_in(ref('trades'), 'event_at', ranges) }}) as t
    inner join touched as b
        on t.symbol = b.symbol and {{ time_bucket(1, 't.event_at') }} = b.bar_at
    where t.load_id <= {{ window.upto }}
    {% else %}
    select *, {{ time_bucket(1, 'event_at') }} as bar_at
    from {{ ref('trades') }}
    where load_id <= {{ window.upto }}
    {% endif %}
),

recomputed as (
    select
        symbol, bar_at, min(session_date) as session_date,
        {{ first_by('price', tick_order(), 'bar_sets_price') }} as open,
        max(case when bar_sets_price then price end) as high,
        min(case when bar_sets_price then price end) as low,
        {{ last_by('price', tick_order(), 'bar_sets_price') }} as close,
        cast(coalesce(sum(case when counts_volume then trade_size end), 0) as decimal(38, 8)) as volume,
        count(case when counts_volume then 1 end) as trade_count,
        cast(coalesce(
            sum(case when counts_volume then {{ dollars() }} end), 0
        ) as decimal(38, 16)) as dollar_volume
    from trades
    group by symbol, bar_at
    {#- A second that holds only prints without price and volume is no bar. #}
    having {{ any_true('bar_sets_price or counts_volume') }}
)
{{ changed_bars(window, 1, ranges) }}
