{# Each trade and quote of the window has its identity once, and every value that gold builds on. #}
{% set window = build_window('tests') %}

select session_id, session_seq, trade_index, count(*) as trades
from {{ ref('trades') }}
where {{ in_window(window) }}
group by session_id, session_seq, trade_index
having count(*) > 1
    or min(case when
        session_id is not null and session_seq is not null and trade_index >= 0 and price > 0
        and trade_size > 0 and event_at is not null and received_at is not null
        and session_date is not null and is_regular_hours is not null
        and day_sets_high_low is not null and day_sets_open_close is not null
        and counts_volume is not null and bar_sets_price is not null
        and {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }}
    then 1 else 0 end) = 0
union all
select session_id, session_seq, null, count(*)
from {{ ref('quotes') }}
where {{ in_window(window) }}
group by session_id, session_seq
having count(*) > 1
    or min(case when
        price > 0 and quoted_at is not null and received_at is not null
        and session_date is not null and is_repeat is not null and is_stale is not null
        and {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }}
    then 1 else 0 end) = 0
