{{ config(meta={'streams': ['quotes']}) }}
{% set window = build_window() %}
{{ window_comment(window) }}

with {{ quote_elements(window) }}

select
    topic_id, part, log_offset, session_id, session_seq, source,
    case when {{ matches('symbol', '[A-Z0-9.:_/^= -]{1,32}') }} then symbol end as symbol,
    received_at, reason,
    coalesce({{ json_text('payload') }}, payload_text, payload_b64, poison) as payload,
    load_id
from judged
where reason is not null
