{{ config(unique_key=['minute_at', 'source'], meta={'prune_by': 'minute_at'}) }}
{% set window = build_window() %}
{% set measures = ['event_to_received', 'received_to_log', 'log_to_loaded', 'event_to_loaded'] %}
{% set ranges = time_ranges(ref('latency_counts'), 'minute_at', in_window(window)) if not window.is_full else [] %}
{{ window_comment(window) }}

with counts as (
    {% if not window.is_full %}
    select * from ({{ rows_in(ref('latency_counts'), 'minute_at', ranges) }})
    where load_id > {{ window.after }}
    {% else %}
    select * from {{ ref('latency_counts') }}
    {% endif %}
),

ranked as (
    select
        minute_at, source, measure, milliseconds,
        sum(trade_count) over (
            partition by minute_at, source, measure order by milliseconds
        ) as up_to_here,
        sum(trade_count) over (partition by minute_at, source, measure) as measured
    from counts
)

select
    minute_at,
    source,
    cast(max(measured) as bigint) as trade_count,
    {% for measure in measures %}
    {% for percent in [50, 95, 99] %}
    min(case
        when measure = '{{ measure }}' and 100 * up_to_here >= {{ percent }} * measured
            then milliseconds
    end) as {{ measure }}_ms_p{{ percent }},
    {% endfor %}
    {% endfor %}
    cast({{ window.upto }} as bigint) as load_id
from ranked
group by minute_at, source
