{{ config(unique_key=['minute_at', 'source'], meta={'prune_by': 'minute_at'}) }}
{#
  Exact percentiles of a minute would need all its trades again in every build. Counts by value add
  up, so what arrived is added to the minute so far. Values are kept to 5 binary digits: percentiles
  are at most 3.1 % above the true value.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with loads as (
    select load_id, max(loaded_at) as loaded_at
    from {{ source('bronze', 'load_ledger') }}
    where {{ in_window(window) }}
    group by load_id
),

trades as (
    select
        date_trunc('minute', t.received_at) as minute_at, t.source,
        {#- Event times of a replay or an import are those of the recording: no latency of ours. #}
        case when not {{ is_of_the_past('t.source') }}
            then {{ milliseconds_between('t.event_at', 't.received_at') }} end as event_to_received,
        {{ milliseconds_between('t.received_at', 't.log_at') }} as received_to_log,
        {{ milliseconds_between('t.log_at', 'l.loaded_at') }} as log_to_loaded,
        case when not {{ is_of_the_past('t.source') }}
            then {{ milliseconds_between('t.event_at', 'l.loaded_at') }} end as event_to_loaded
    from {{ ref('trades') }} as t
    left join loads as l on t.load_id = l.load_id
    where {{ in_window(window, 't.load_id') }}
),

counted as (
    {% for measure in ['event_to_received', 'received_to_log', 'log_to_loaded', 'event_to_loaded'] %}
    select
        minute_at, source, '{{ measure }}' as measure, {{ rounded_up(measure) }} as milliseconds,
        count(*) as trade_count
    from trades
    where {{ measure }} is not null
    group by minute_at, source, {{ rounded_up(measure) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
)
{% if not window.is_full %}
{% set ranges = time_ranges(ref('trades'), 'received_at', in_window(window), 60) %}
, so_far as (
    select s.*
    from ({{ rows_in(this, 'minute_at', ranges) }}) as s
    where (s.minute_at, s.source) in (select distinct minute_at, source from counted)
)
{% endif %}

select
    minute_at, source, measure, milliseconds, cast(sum(trade_count) as bigint) as trade_count,
    cast({{ window.upto }} as bigint) as load_id
from (
    select * from counted
    {% if not window.is_full %}
    union all
    select minute_at, source, measure, milliseconds, trade_count from so_far
    {% endif %}
)
group by minute_at, source, measure, milliseconds
