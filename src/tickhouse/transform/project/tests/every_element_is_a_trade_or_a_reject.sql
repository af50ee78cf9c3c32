{#
  Counted apart from the extractors: elements of each load's frames (once, however often they were
  delivered) against the rows they became. A frame of quotes is one quote or one reject.
#}
{% set window = build_window('tests') %}

with frames as (
    {{ accepted_frames('trades', window) }}
),

expected as (
    select load_id, sum({{ element_count() }}) as elements
    from frames
    group by load_id
),

found as (
    select load_id, count(*) as elements
    from (
        select load_id from {{ ref('trades') }} where {{ in_window(window) }}
        union all
        select load_id from {{ ref('rejected_trades') }}
        where {{ in_window(window) }} and trade_index is not null
    )
    group by load_id
),

answers as (
    {{ accepted_frames('quotes', window) }}
),

quotes as (
    select session_id, session_seq from {{ ref('quotes') }} where {{ in_window(window) }}
),

rejects as (
    select topic_id, part, log_offset
    from {{ ref('rejected_quotes') }}
    where {{ in_window(window) }}
)

select
    'load ' || coalesce(e.load_id, f.load_id) as found_at,
    coalesce(e.elements, 0) as elements_delivered, coalesce(f.elements, 0) as rows_found
from expected as e
full outer join found as f on e.load_id = f.load_id
where coalesce(e.elements, 0) <> coalesce(f.elements, 0)
union all
select
    'quotes ' || f.topic_id || ' ' || f.part || ' ' || f.log_offset, 1,
    count(q.session_id) + count(r.topic_id)
from answers as f
left join quotes as q on f.session_id = q.session_id and f.session_seq = q.session_seq
left join rejects as r
    on f.topic_id = r.topic_id and f.part = r.part and f.log_offset = r.log_offset
group by f.topic_id, f.part, f.log_offset
having count(q.session_id) + count(r.topic_id) <> 1
