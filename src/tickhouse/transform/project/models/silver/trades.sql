{% set window = build_window() %}
{{ window_comment(window) }}

with {{ trade_elements(window) }},

trades as (
    select *, {{ epoch_ms_to_timestamp('event_ms') }} as event_at
    from judged
    where reason is null
),

{#- Time zone, calendar and conditions are resolved once a distinct value, not once a trade. #}
hours as (
    select h.hour_at, h.exchange_date, c.open_at, c.close_at
    from (
        select hour_at, cast({{ exchange_time('hour_at') }} as date) as exchange_date
        from (select distinct date_trunc('hour', event_at) as hour_at from trades)
    ) as h
    left join {{ ref('calendar') }} as c on h.exchange_date = c.session_date
),

codes as (
    select raw_conditions, code
    from {{ split_rows(
        "(select distinct raw_conditions from trades where raw_conditions <> '')", 'raw_conditions', 'code'
    ) }}
),

rules as (
    select
        c.raw_conditions,
        {#- A code nobody knows is neutral. Several codes: all must allow. #}
        {{ all_true('coalesce(r.high_low, true)') }} as high_low,
        {{ all_true('coalesce(r.open_close, true)') }} as open_close,
        {{ all_true('coalesce(r.volume, true)') }} as volume,
        {{ all_true('coalesce(r.bar_price, true)') }} as bar_price,
        {{ any_true('coalesce(r.bar_price_off_hours_only, false)') }} as bar_price_off_hours_only,
        {{ any_true('coalesce(r.opening_print, false)') }} as opening_print,
        {{ any_true('coalesce(r.closing_print, false)') }} as closing_print
    from codes as c
    left join {{ ref('trade_conditions') }} as r on c.code = r.code
    group by c.raw_conditions
),

placed as (
    select
        t.*, r.high_low, r.open_close, r.volume, r.bar_price, r.bar_price_off_hours_only,
        r.opening_print, r.closing_print,
        t.raw_symbol like '%:%' as is_always_open,
        h.exchange_date,
        coalesce(t.event_at >= h.open_at and t.event_at < h.close_at, false) as is_exchange_open
    from trades as t
    inner join hours as h on date_trunc('hour', t.event_at) = h.hour_at
    left join rules as r on t.raw_conditions = r.raw_conditions
)

select
    session_id,
    session_seq,
    cast(trade_index as integer) as trade_index,
    source,
    raw_symbol as symbol,
    event_at,
    received_at,
    log_at,
    price,
    trade_size,
    trade_id,
    case
        when {{ matches('raw_conditions', '[0-9A-Za-z@,]*') }} then raw_conditions
        else {{ without('raw_conditions', '[^0-9A-Za-z@,]') }}
    end as conditions,
    case when is_always_open then cast(event_at as date) else exchange_date end as session_date,
    is_always_open or is_exchange_open as is_regular_hours,
    coalesce(high_low, true) as day_sets_high_low,
    coalesce(open_close, true) as day_sets_open_close,
    coalesce(volume, true) as counts_volume,
    coalesce(bar_price, true) and not (
        coalesce(bar_price_off_hours_only, false) and (is_always_open or is_exchange_open)
    ) as bar_sets_price,
    coalesce(opening_print, false) as is_opening_print,
    coalesce(closing_print, false) as is_closing_print,
    load_id
from placed
