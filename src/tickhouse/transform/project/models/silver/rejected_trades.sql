{% set window = build_window() %}
{{ window_comment(window) }}

with {{ trade_elements(window) }}

select
    topic_id, part, log_offset, session_id, session_seq,
    cast(trade_index as integer) as trade_index, source,
    case when {{ matches('raw_symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then raw_symbol end as symbol,
    received_at, reason, {{ element_text() }} as payload, load_id
from judged
where reason is not null
