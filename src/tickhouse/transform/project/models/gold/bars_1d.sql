{{ config(unique_key=['symbol', 'bar_at'], meta={'prune_by': 'bar_at'}) }}
{#
  Day bars have rules of their own: day flags, and the auctions' prints set open (opening print) and
  close (closing print) however late they come. A day may hold hundreds of millions of trades, so
  what arrived is added to the bar so far: sums are decimal, first and last go by tick order, kept
  in open_order and close_order, so that the result equals a recomputation bit for bit.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with arrived as (
    select
        symbol, {{ start_of_date('session_date') }} as bar_at,
        {#- An opening print comes before every other trade, a closing print after. #}
        {{ first_by(tick_facts(), tick_order('not is_opening_print'), 'day_sets_open_close') }}
            as first_tick,
        {{ last_by(tick_facts(), tick_order('is_closing_print'), 'day_sets_open_close') }}
            as last_tick,
        max(case when day_sets_high_low then price end) as high,
        min(case when day_sets_high_low then price end) as low,
        coalesce(sum(case when counts_volume then trade_size end), 0) as volume,
        count(case when counts_volume then 1 end) as trade_count,
        coalesce(sum(case when counts_volume then {{ dollars() }} end), 0) as dollar_volume
    from {{ ref('trades') }}
    where {{ in_window(window) }}
    group by symbol, session_date
    having {{ any_true('day_sets_high_low or day_sets_open_close or counts_volume') }}
),

ordered as (
    select
        *, {{ tick_fact('first_tick', 'price') }} as open,
        {{ tick_fact('last_tick', 'price') }} as close,
        case when {{ tick_fact('first_tick', 'is_opening_print') }} then '0 ' else '1 ' end
            || {{ tick_order_text('first_tick') }} as open_order,
        case when {{ tick_fact('last_tick', 'is_closing_print') }} then '1 ' else '0 ' end
            || {{ tick_order_text('last_tick') }} as close_order
    from arrived
)
{% set ranges = [] %}
{% if not window.is_full %}
{% set ranges = time_ranges(
    ref('trades'), start_of_date('session_date'), in_window(window), 86400
) %}
, so_far as (
    {{ rows_in(this, 'bar_at', ranges) }}
)
{% endif %},

recomputed as (
    {% if not window.is_full %}
    select
        a.symbol, a.bar_at, cast(a.bar_at as date) as session_date,
        case when s.open is not null and (a.open is null or s.open_order < a.open_order)
            then s.open else a.open end as open,
        {{ greatest_of('a.high, s.high') }} as high,
        {{ least_of('a.low, s.low') }} as low,
        case when s.close is not null and (a.close is null or s.close_order > a.close_order)
            then s.close else a.close end as close,
        cast(a.volume + coalesce(s.volume, 0) as decimal(38, 8)) as volume,
        cast(a.trade_count + coalesce(s.trade_count, 0) as bigint) as trade_count,
        cast(a.dollar_volume + coalesce(s.dollar_volume, 0) as decimal(38, 16)) as dollar_volume,
        case when s.open is not null and (a.open is null or s.open_order < a.open_order)
            then s.open_order else a.open_order end as open_order,
        case when s.close is not null and (a.close is null or s.close_order > a.close_order)
            then s.close_order else a.close_order end as close_order
    from ordered as a
    left join so_far as s on a.symbol = s.symbol and a.bar_at = s.bar_at
    {% else %}
    select
        symbol, bar_at, cast(bar_at as date) as session_date, open, high, low, close,
        cast(volume as decimal(38, 8)) as volume, trade_count,
        cast(dollar_volume as decimal(38, 16)) as dollar_volume, open_order, close_order
    from ordered
    {% endif %}
)
{#- Final from 05:00 UTC of the next day: midnight in New York at the latest. #}
{{ changed_bars(window, 86400 + 18000, ranges, ['open_order', 'close_order']) }}
