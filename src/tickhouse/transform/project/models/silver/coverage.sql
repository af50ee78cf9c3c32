{{ config(meta={'streams': ['sessions']}) }}
{% set window = build_window() %}
{{ window_comment(window) }}

with frames as (
    {{ accepted_frames('sessions', window) }}
),

events as (
    {{ session_events('frames') }}
)

select distinct
    session_id, session_seq, symbol, happened_at as told_at, channel, reason, every_s, load_id
from {{ list_rows("(select * from events where event = 'coverage')", 'symbol_list', 'symbol') }}
where symbol is not null
