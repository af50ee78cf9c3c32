{{ config(unique_key=['session_id', 'stream']) }}
{% set window = build_window() %}
{{ window_comment(window) }}

with arrived as (
    select
        session_id, sum(frames) as frames, sum(repeated) as repeated, sum(trades) as trades,
        sum(rejects) as rejects, max(last_seq) as last_seq
    from (
        select
            session_id, count(*) as frames, 0 as repeated, 0 as trades, 0 as rejects,
            max(session_seq) as last_seq
        from {{ source('bronze', 'trades') }}
        where {{ in_window(window) }}
        group by session_id
        union all
        select session_id, 0, count(*), 0, 0, null
        from {{ ref('repeated_frames') }}
        where {{ in_window(window) }} and stream = 'trades'
        group by session_id
        union all
        select session_id, 0, 0, count(*), 0, null
        from {{ ref('trades') }}
        where {{ in_window(window) }}
        group by session_id
        union all
        select session_id, 0, 0, 0, count(*), null
        from {{ ref('rejected_trades') }}
        where {{ in_window(window) }}
        group by session_id
    )
    where session_id is not null
    group by session_id
),

touched as (
    select session_id from arrived
    union
    select session_id from {{ ref('sessions') }} where {{ in_window(window) }}
    union
    select previous_session_id from {{ ref('sessions') }}
    where {{ in_window(window) }} and previous_session_id is not null
    union
    select session_id from {{ ref('gaps') }} where {{ in_window(window) }}
),

refused as (
    select
        g.session_id, sum(g.seq_to - g.seq_from + 1) as frames, max(g.seq_to) as last_seq
    from {{ ref('gaps') }} as g
    where g.kind = 'refused' and g.stream = 'trades' and g.seq_from is not null
    group by g.session_id
),

next_sessions as (
    select previous_session_id as session_id, max(previous_last_seq) as last_seq
    from {{ ref('sessions') }}
    where previous_session_id is not null
    group by previous_session_id
),

counted as (
    select
        t.session_id,
        {% for column in ['frames', 'repeated', 'trades', 'rejects'] %}
        coalesce(a.{{ column }}, 0)
        {%- if not window.is_full %} + coalesce(c.{{ 'frames_received + c.frames_repeated' if column == 'frames' else 'frames_repeated' if column == 'repeated' else column }}, 0){% endif %} as {{ column }},
        {% endfor %}
        coalesce(r.frames, 0) as refused,
        greatest(
            a.last_seq, r.last_seq, n.last_seq{% if not window.is_full %}, c.last_seq{% endif %}
        ) as last_seq
    from touched as t
    left join arrived as a on t.session_id = a.session_id
    left join refused as r on t.session_id = r.session_id
    left join next_sessions as n on t.session_id = n.session_id
    {% if not window.is_full %}
    left join {{ this }} as c on t.session_id = c.session_id and c.stream = 'trades'
    {% endif %}
),

expected as (
    select
        c.*, s.shard, s.mode, s.feed, s.opened_at, s.closed_at,
        greatest(coalesce(s.trades_messages, 0), coalesce(c.last_seq + 1, 0)) as frames_expected
    from counted as c
    left join {{ ref('sessions') }} as s on c.session_id = s.session_id
)

select
    session_id,
    'trades' as stream,
    shard,
    mode,
    feed,
    opened_at,
    closed_at,
    cast(frames_expected as bigint) as frames_expected,
    cast(frames - repeated as bigint) as frames_received,
    cast(refused as bigint) as frames_refused,
    cast(frames_expected - (frames - repeated) - refused as bigint) as frames_missing,
    cast(repeated as bigint) as frames_repeated,
    cast(trades as bigint) as trades,
    cast(rejects as bigint) as rejects,
    opened_at is not null and frames_expected = frames - repeated + refused as is_complete,
    last_seq,
    cast({{ window.upto }} as bigint) as load_id
from expected
