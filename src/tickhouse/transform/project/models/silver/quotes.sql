{{ config(
    unique_key=['session_id', 'session_seq'], meta={'prune_by': 'received_at', 'streams': ['quotes']}
) }}
{#
  `is_repeat`: the symbol's quote told nothing new, as one with the same time and values was received
  in the 24 hours before. That depends on receipts alone, not on the order of loads: a quote that is
  loaded late may turn one that was received after it into a repeat, which is then written again.
  A day bounds what is looked back on; a symbol that is polled at all comes round within it.

  `is_stale`: 15 minutes into regular hours, and until post-market ends, a quote of an earlier day is
  no price of this session. Before that, it is the last there is: many names do not trade before the
  bell. Markets that never close: older than 15 minutes. The receipts of a replay or an import are not
  the market's, so nothing of them is stale.
#}
{% set window = build_window() %}
{% set ranges = time_ranges(
    source('bronze', 'quotes'), 'received_at', in_window(window) ~ ' and received_at is not null',
    1, 86400, 86400
) if not window.is_full else [] %}
{% set values = [
    'price', 'change', 'change_percent', 'day_open', 'day_high', 'day_low', 'previous_close'
] %}
{{ window_comment(window) }}

with {{ quote_elements(window) }},

timed as (
    select
        *, {{ epoch_s_to_timestamp('quoted_s') }} as quoted_at,
        symbol like '%:%' as is_always_open
    from judged
    where reason is null
),

dated as (
    select
        *,
        cast({{ exchange_time('quoted_at') }} as date) as exchange_date,
        cast({{ exchange_time('received_at') }} as date) as received_date
    from timed
),

arrived as (
    select
        q.session_id, q.session_seq, q.source, q.symbol, q.quoted_at, q.received_at, q.log_at,
        {% for value in values %}q.{{ value }}, {% endfor %}
        case when q.is_always_open then cast(q.quoted_at as date) else q.exchange_date end
            as session_date,
        false as is_repeat,
        case
            when {{ is_of_the_past('q.source') }} then false
            when q.is_always_open then q.received_at > {{ shift_seconds('q.quoted_at', 900) }}
            else coalesce(
                q.exchange_date < c.session_date
                and q.received_at >= {{ shift_seconds('c.open_at', 900) }}
                and q.received_at < {{ post_market_end('c.close_at') }}, false
            )
        end as is_stale,
        q.load_id
    from dated as q
    left join {{ ref('calendar') }} as c on q.received_date = c.session_date
),

together as (
    select *, true as is_new from arrived
    {% if not window.is_full %}
    union all
    select *, false from ({{ rows_in(this, 'received_at', ranges) }})
    {% endif %}
),

compared as (
    select
        *,
        {{ shift_seconds(
            'lag(received_at) over (partition by symbol, quoted_at, ' ~ values | join(', ')
            ~ ' order by received_at, session_id, session_seq)', 86400
        ) }} >= received_at as repeats
    from together
)

select
    session_id, session_seq, source, symbol, quoted_at, received_at, log_at,
    {% for value in values %}{{ value }}, {% endfor %}
    session_date,
    c.is_repeat or coalesce(c.repeats, false) as is_repeat,
    is_stale,
    case when is_new then load_id else cast({{ window.upto }} as bigint) end as load_id
from compared as c
where c.is_new or (c.repeats and not c.is_repeat)
