{{ config(unique_key=['session_id', 'session_seq', 'kind']) }}
{#
  Two kinds: `refused` frames that the recorder named, and the `silence` between a shard's session
  and the one before it. A silence is recomputed while frames of the session before still arrive.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with frames as (
    {{ accepted_frames('sessions', window) }}
),

events as (
    {{ session_events('frames') }}
),

last_frames as (
    select session_id, max(last_received_at) as last_received_at, max(load_id) as load_id
    from {{ ref('frame_ranges') }}
    where stream = 'trades'
    group by session_id
),

silences as (
    select
        s.session_id,
        coalesce(p.closed_at, f.last_received_at, p.opened_at) as time_from,
        s.opened_at as time_to,
        case when p.closed_at is null then 'no closed event' else 'stopped' end as cause,
        {#- The feed went on exactly after the last durable message: nothing is missing. #}
        case
            when s.feed = p.feed
                and s.feed_cursor = coalesce(p.feed_cursor, 0) + coalesce(s.previous_last_seq + 1, 0)
            then 'cursor'
        end as filled_by
    from {{ ref('sessions') }} as s
    left join {{ ref('sessions') }} as p on s.previous_session_id = p.session_id
    left join last_frames as f on s.previous_session_id = f.session_id
    where s.previous_session_id is not null and s.opened_at is not null
        and (
            {{ in_window(window, 's.load_id') }}
            or {{ in_window(window, 'p.load_id') }}
            or {{ in_window(window, 'f.load_id') }}
        )
)

select
    session_id, session_seq, 'refused' as kind, stream, seq_from, seq_to, time_from, time_to,
    coalesce(symbols, '') as symbols, cause, filled_by,
    cast({{ window.upto }} as bigint) as load_id
from events
where event = 'gap'
union all
select
    session_id, cast(0 as bigint) as session_seq, 'silence' as kind, 'trades' as stream,
    cast(null as bigint) as seq_from, cast(null as bigint) as seq_to, time_from, time_to,
    '' as symbols, cause, filled_by, cast({{ window.upto }} as bigint) as load_id
from silences
