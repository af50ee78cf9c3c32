{{ config(unique_key=['session_id'], meta={'streams': ['sessions']}) }}
{% set window = build_window() %}
{{ window_comment(window) }}

with frames as (
    {{ accepted_frames('sessions', window) }}
),

events as (
    {{ session_events('frames') }}
),

arrived as (
    select
        session_id,
        max(feed) filter (where event = 'opened') as feed,
        max(mode) filter (where event = 'opened') as mode,
        max(shard) filter (where event = 'opened') as shard,
        max(feed_cursor) filter (where event = 'opened') as feed_cursor,
        max(previous_session_id) filter (where event = 'opened') as previous_session_id,
        max(previous_last_seq) filter (where event = 'opened') as previous_last_seq,
        max(previous_others) filter (where event = 'opened') as previous_others,
        max(happened_at) filter (where event = 'opened') as opened_at,
        max(happened_at) filter (where event = 'closed') as closed_at,
        max(reason) filter (where event = 'closed') as close_reason,
        max(trades_messages) filter (where event = 'closed') as trades_messages,
        max(quotes_messages) filter (where event = 'closed') as quotes_messages,
        max(reference_messages) filter (where event = 'closed') as reference_messages,
        {{ last_by('ray', 'session_seq', "event = 'remote'") }} as ray,
        {{ last_by('clock_offset_ms', 'session_seq', "event = 'remote'") }} as clock_offset_ms,
        min(time_from) filter (where event = 'gap') as gap_told_from
    from events
    where event in ('opened', 'closed', 'remote')
        {#- What filled a gap says nothing of this session's own, unless ids show that none was. #}
        or (event = 'gap' and seq_from is null and coalesce(filled_by, 'ids') = 'ids')
    group by session_id
)

select
    a.session_id,
    {% for column in [
        'shard', 'mode', 'feed', 'feed_cursor', 'previous_session_id', 'previous_last_seq',
        'previous_others', 'opened_at', 'closed_at', 'close_reason', 'trades_messages',
        'quotes_messages', 'reference_messages', 'ray', 'clock_offset_ms'
    ] %}
    {% if not window.is_full %}coalesce(a.{{ column }}, s.{{ column }}){% else %}a.{{ column }}{% endif %} as {{ column }},
    {% endfor %}
    {% if not window.is_full %}least(
        coalesce(a.gap_told_from, s.gap_told_from), coalesce(s.gap_told_from, a.gap_told_from)
    ){% else %}a.gap_told_from{% endif %} as gap_told_from,
    cast({{ window.upto }} as bigint) as load_id
from arrived as a
{% if not window.is_full %}
left join {{ this }} as s on a.session_id = s.session_id
{% endif %}
