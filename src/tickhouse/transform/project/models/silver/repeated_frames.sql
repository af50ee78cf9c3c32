{#
  Decided once, by frame identity, however late the repeat comes; every other model reads this
  decision. Repeats are the same bytes under the same identity, so which delivery wins does not
  show in any value: the first one loaded does. Where the ranges say that nothing repeats, which is
  nearly always, no frame is looked at.
#}
{% set window = build_window() %}
{{ window_comment(window) }}
{% set suspects = repeated_sessions(ref('frame_ranges'), window) %}

with arrived as (
    {% for stream in frame_streams() %}
    select
        '{{ stream }}' as stream, session_id, session_seq, topic_id, part, log_offset, load_id,
        row_number() over (
            partition by session_id, session_seq order by load_id, topic_id, part, log_offset
        ) as delivery
    from {{ source('bronze', stream) }}
    where {{ in_window(window) }}
      and session_id in ({{ suspects[stream] | default('null') }})
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

known as (
    select distinct a.stream, a.topic_id, a.part, a.log_offset
    from arrived as a
    inner join {{ ref('frame_ranges') }} as k
        on a.stream = k.stream and a.session_id = k.session_id
        and a.session_seq between k.seq_from and k.seq_to
    where k.load_id <= {{ window.after }}
)

select
    a.stream, a.session_id, a.session_seq, a.topic_id, a.part, a.log_offset, a.load_id
from arrived as a
left join known as k
    on a.stream = k.stream and a.topic_id = k.topic_id and a.part = k.part
    and a.log_offset = k.log_offset
where a.delivery > 1 or k.log_offset is not null
