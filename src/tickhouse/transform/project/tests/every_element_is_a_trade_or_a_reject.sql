{#
  Counted apart from the extractors: elements of each load's frames (once, however often they were
  delivered) against the rows they became.
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
)

select
    coalesce(e.load_id, f.load_id) as load_id, coalesce(e.elements, 0) as elements_delivered,
    coalesce(f.elements, 0) as rows_found
from expected as e
full outer join found as f on e.load_id = f.load_id
where coalesce(e.elements, 0) <> coalesce(f.elements, 0)
