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
        max(case when event = 'opened' then feed end) as feed,
        max(case when event = 'opened' then mode end) as mode,
        max(case when event = 'opened' then shard end) as shard,
        max(case when event = 'opened' then feed_cursor end) as feed_cursor,
        max(case when event = 'opened' then previous_session_id end) as previous_session_id,
        max(case when event = 'opened' then previous_last_seq end) as previous_last_seq,
        max(case when event = 'opened' then previous_others end) as previous_others,
        max(case when event = 'opened' then happened_at end) as opened_at,
        max(case when event = 'closed' then happened_at end) as closed_at,
        max(case when event = 'closed' then reason end) as close_reason,
        max(case when event = 'closed' then trades_messages end) as trades_messages,
        max(case when event = 'closed' then quotes_messages end) as quotes_messages,
        max(case when event = 'closed' then reference_messages end) as reference_messages,
        {{ last_by('ray', 'session_seq', "event = 'remote'") }} as ray,
        {{ last_by('clock_offset_ms', 'session_seq', "event = 'remote'") }} as clock_offset_ms,
        min(case when event = 'gap' then time_from end) as gap_told_from
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
