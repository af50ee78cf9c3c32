{{ config(unique_key=['session_id', 'stream']) }}
{#
  Every session has a row for trades, and one for each other stream that it carried. A frame of
  quotes is one quote or one reject; frames of reference are neither.
#}
{% set window = build_window() %}
{% set streams = ['trades', 'quotes', 'reference'] %}
{{ window_comment(window) }}

with arrived as (
    select
        stream, session_id, sum(frames) as frames, sum(repeated) as repeated,
        sum(trades) as trades, sum(rejects) as rejects, max(last_seq) as last_seq
    from (
        {% for stream in streams %}
        select
            '{{ stream }}' as stream, session_id, count(*) as frames, 0 as repeated, 0 as trades,
            0 as rejects, max(session_seq) as last_seq
        from {{ source('bronze', stream) }}
        where {{ in_window(window) }}
        group by session_id
        union all
        {% endfor %}
        select stream, session_id, 0, count(*), 0, 0, null
        from {{ ref('repeated_frames') }}
        where {{ in_window(window) }} and stream <> 'sessions'
        group by stream, session_id
        union all
        select 'trades', session_id, 0, 0, count(*), 0, null
        from {{ ref('trades') }}
        where {{ in_window(window) }}
        group by session_id
        {% for stream in ['trades', 'quotes'] %}
        union all
        select '{{ stream }}', session_id, 0, 0, 0, count(*), null
        from {{ ref('rejected_' ~ stream) }}
        where {{ in_window(window) }}
        group by session_id
        {% endfor %}
    )
    where session_id is not null
    group by stream, session_id
),

touched_sessions as (
    select session_id from {{ ref('sessions') }} where {{ in_window(window) }}
    union
    select previous_session_id from {{ ref('sessions') }}
    where {{ in_window(window) }} and previous_session_id is not null
    union
    select session_id from {{ ref('gaps') }} where {{ in_window(window) }}
    {%- if not window.is_full %}
    union
    {#- A gap that turns out to have been told before is the earlier session's. #}
    select session_id from {{ this }}
    where gap_s > 0 and exists (
        select 1 from {{ ref('gaps') }} where {{ in_window(window) }} and kind = 'missed'
    )
    {%- endif %}
),

touched as (
    select stream, session_id from arrived
    union
    select 'trades', session_id from arrived
    union
    select 'trades', session_id from touched_sessions
    {% for stream in streams if stream != 'trades' %}
    union
    select '{{ stream }}', t.session_id
    from touched_sessions as t
    inner join {{ ref('sessions') }} as s on t.session_id = s.session_id
    where s.{{ stream }}_messages > 0
    union
    select '{{ stream }}', t.session_id
    from touched_sessions as t
    inner join {{ ref('gaps') }} as g on t.session_id = g.session_id
    where g.stream = '{{ stream }}' and g.kind = 'refused'
    {% endfor %}
    {% if not window.is_full %}
    union
    select c.stream, c.session_id
    from {{ this }} as c
    inner join touched_sessions as t on c.session_id = t.session_id
    {% endif %}
),

refused as (
    select
        g.session_id, g.stream, sum(g.seq_to - g.seq_from + 1) as frames, max(g.seq_to) as last_seq
    from {{ ref('gaps') }} as g
    where g.kind = 'refused'
    group by g.session_id, g.stream
),

open_gaps as (
    {{ merged_ranges(
        '(select * from ' ~ ref('gaps') ~ " where kind <> 'refused' and filled_by is null"
        ~ " and cause is distinct from 'another feed'"
        ~ ' and time_from < time_to and session_id in (select session_id from touched))',
        'session_id, stream', 'time_from', 'time_to'
    ) }}
),

missed as (
    select session_id, stream, sum({{ milliseconds_between('time_from', 'time_to') }}) as gap_ms
    from open_gaps
    group by session_id, stream
),

next_sessions as (
    select previous_session_id as session_id, max(previous_last_seq) as last_seq
    from {{ ref('sessions') }}
    where previous_session_id is not null
    group by previous_session_id
),

counted as (
    select
        t.session_id, t.stream,
        {% for column in ['frames', 'repeated', 'trades', 'rejects'] %}
        coalesce(a.{{ column }}, 0)
        {%- if not window.is_full %} + coalesce(c.{{ 'frames_received + c.frames_repeated' if column == 'frames' else 'frames_repeated' if column == 'repeated' else column }}, 0){% endif %} as {{ column }},
        {% endfor %}
        coalesce(r.frames, 0) as refused,
        coalesce(m.gap_ms, 0) as gap_ms,
        {{ greatest_of(
            'a.last_seq, r.last_seq, n.last_seq' ~ (', c.last_seq' if not window.is_full else '')
        ) }} as last_seq
    from touched as t
    left join arrived as a on t.session_id = a.session_id and t.stream = a.stream
    left join refused as r on t.session_id = r.session_id and t.stream = r.stream
    left join missed as m on t.session_id = m.session_id and t.stream = m.stream
    left join next_sessions as n on t.session_id = n.session_id and t.stream = 'trades'
    {% if not window.is_full %}
    left join {{ this }} as c on t.session_id = c.session_id and t.stream = c.stream
    {% endif %}
),

expected as (
    select
        c.*, s.shard, s.mode, s.feed, s.opened_at, s.closed_at,
        greatest(
            coalesce(case c.stream
                {%- for stream in streams %} when '{{ stream }}' then s.{{ stream }}_messages{% endfor %} end, 0),
            coalesce(c.last_seq + 1, 0)
        ) as frames_expected
    from counted as c
    left join {{ ref('sessions') }} as s on c.session_id = s.session_id
)

select
    session_id,
    stream,
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
    cast(case when stream = 'quotes' then frames - repeated - rejects else 0 end as bigint) as quotes,
    cast(rejects as bigint) as rejects,
    opened_at is not null and frames_expected = frames - repeated + refused as is_complete,
    cast(gap_ms as double) / 1000 as gap_s,
    last_seq,
    cast({{ window.upto }} as bigint) as load_id
from expected
