{% set window = build_window() %}
{{ window_comment(window) }}

with {{ trade_elements(window) }},

rejected as (
    select * from judged where reason is not null
)

select
    r.topic_id, r.part, r.log_offset, r.session_id, r.session_seq,
    cast(r.trade_index as integer) as trade_index, r.source,
    case when {{ matches('r.raw_symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then r.raw_symbol end
        as symbol,
    r.received_at, r.reason, {{ element_text('f', 'r') }} as payload, r.load_id
from rejected as r
inner join {{ source('bronze', 'trades') }} as f
    on {{ in_window(window, 'f.load_id') }}
    and r.topic_id = f.topic_id and r.part = f.part and r.log_offset = f.log_offset
