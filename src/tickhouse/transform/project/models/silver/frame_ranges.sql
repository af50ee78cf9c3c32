{{ config(unique_key=['stream', 'session_id']) }}
{#
  Append-only by build, so that a model that lags behind still sees what was known at its own
  position. Ranges that repeated_frames is past are folded together: the table grows with sessions
  and holes, not with builds.
#}
{% set window = build_window() %}
{% set repeated = build_window('repeated_frames') %}
{% set settled = [window.after, repeated.after] | min %}
{{ window_comment(window) }}

with arrived as (
    {% for stream in frame_streams() %}
    select '{{ stream }}' as stream, session_id, session_seq, received_at
    from {{ source('bronze', stream) }}
    where {{ in_window(window) }} and session_id is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

touched as (
    select
        stream, session_id, min(session_seq) as seq_from, max(session_seq) as seq_to,
        count(*) as frames, max(received_at) as last_received_at,
        count(distinct session_seq) = max(session_seq) - min(session_seq) + 1 as is_dense
    from arrived
    group by stream, session_id
),

numbered as (
    select
        a.stream, a.session_id, a.session_seq, count(*) as frames,
        max(a.received_at) as last_received_at,
        a.session_seq - row_number() over (
            partition by a.stream, a.session_id order by a.session_seq
        ) as island
    from arrived as a
    inner join touched as t
        on a.stream = t.stream and a.session_id = t.session_id and not t.is_dense
    group by a.stream, a.session_id, a.session_seq
),

fresh as (
    select stream, session_id, seq_from, seq_to, frames, last_received_at
    from touched
    where is_dense
    union all
    select
        stream, session_id, min(session_seq), max(session_seq), sum(frames), max(last_received_at)
    from numbered
    group by stream, session_id, island
)

{% if not window.is_full %}
, known as (
    select k.*
    from {{ this }} as k
    inner join touched as t on k.stream = t.stream and k.session_id = t.session_id
),

marked as (
    select
        *,
        case when seq_from <= 1 + max(seq_to) over (
            partition by stream, session_id order by seq_from, seq_to
            rows between unbounded preceding and 1 preceding
        ) then 0 else 1 end as opens_range
    from known
    where load_id <= {{ settled }}
),

grouped as (
    select
        *, sum(opens_range) over (
            partition by stream, session_id order by seq_from, seq_to
            rows between unbounded preceding and current row
        ) as range_number
    from marked
)

select
    stream, session_id, min(seq_from) as seq_from, max(seq_to) as seq_to,
    cast(sum(frames) as bigint) as frames, max(last_received_at) as last_received_at,
    max(load_id) as load_id
from grouped
group by stream, session_id, range_number
union all
select stream, session_id, seq_from, seq_to, frames, last_received_at, load_id
from known
where load_id > {{ settled }}
union all
{% endif %}
select
    stream, session_id, seq_from, seq_to, cast(frames as bigint) as frames, last_received_at,
    cast({{ window.upto }} as bigint) as load_id
from fresh
