{{ config(unique_key=['session_date'], meta={'removed_by': 'is_removed'}) }}
{#
  What is missing, by symbol and day. Gaps overlap (a reconnect that fails tells the same time
  again): times and ids are merged before they are counted. Days that a changed gap touches are
  computed anew, whole; a gap that was taken away lies within the two sessions that it was between.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with
{% if not window.is_full %}
changed as (
    select
        cast({{ least_of('g.time_from, p.opened_at') }} as date) - 1 as first_date,
        cast({{ greatest_of('g.time_to, s.opened_at') }} as date) + 1 as last_date
    from {{ ref('gaps') }} as g
    left join {{ ref('sessions') }} as s on g.session_id = s.session_id
    left join {{ ref('sessions') }} as p on s.previous_session_id = p.session_id
    where {{ in_window(window, 'g.load_id') }}
    union all
    select cast(p.opened_at as date) - 1, cast(s.opened_at as date) + 1
    from {{ ref('sessions') }} as s
    inner join {{ ref('sessions') }} as p on s.previous_session_id = p.session_id
    where {{ in_window(window, 's.load_id') }} and s.gap_told_from is not null
),

touched as (
    select distinct session_date
    from {{ date_rows('changed', 'first_date', 'last_date', 'session_date') }}
),

span as (
    select min(session_date) as first_date, max(session_date) as last_date from touched
),
{% endif %}

told_lists as (
    select
        g.stream, g.time_from, greatest(g.time_from, g.time_to) as time_to, g.filled_by,
        g.id_from, g.id_to + 1 as id_end, g.seq_from, g.seq_to, s.feed,
        g.symbols
    from {{ ref('gaps') }} as g
    left join {{ ref('sessions') }} as s on g.session_id = s.session_id
    {% if not window.is_full %}
    inner join span as t
        on g.time_to >= {{ start_of_date('t.first_date - 1') }}
        and g.time_from < {{ start_of_date('t.last_date + 2') }}
    {% endif %}
    where g.stream in ('trades', 'quotes') and g.time_from is not null and g.time_to is not null
        and g.cause is distinct from 'another feed'
),

told as (
    select * from {{ split_rows('told_lists', 'symbols', 'symbol') }}
),

placed as (
    select
        *,
        {#- All of a connection: its market is the exchange's, unless the feed has no other. #}
        symbol like '%:%' or (symbol = '' and coalesce(feed like 'binance:%', false))
            as is_always_open
    from told
),

dated as (
    select
        *,
        case when is_always_open then cast(time_from as date)
            else cast({{ exchange_time('time_from') }} as date) end as session_date
    from placed
),

{% for part, condition in [('told', 'true'), ('missing', 'filled_by is null')] %}
{{ part }}_times as (
    {{ merged_ranges(
        '(select * from dated where ' ~ condition ~ ')', 'symbol, stream, is_always_open', 'time_from', 'time_to'
    ) }}
),

{{ part }}_ids as (
    {{ merged_ranges(
        '(select * from dated where id_from is not null and ' ~ condition ~ ')', 'symbol, stream, session_date',
        'id_from', 'id_end'
    ) }}
),
{% endfor %}

hours as (
    select
        session_date, open_at, close_at, {{ pre_market_start('session_date') }} as pre_market_at,
        {{ post_market_end('close_at') }} as post_market_at
    from {{ ref('calendar') }}
    {% if not window.is_full %}
    where session_date between (select first_date from span) and (select last_date from span)
    {% endif %}
),

days as (
    {% for part in ['told', 'missing'] %}
    select
        '{{ part }}' as part, symbol, stream, session_date,
        greatest(time_from, {{ start_of_date('session_date') }}) as time_from,
        least(time_to, {{ shift_seconds(start_of_date('session_date'), 86400) }}) as time_to,
        null as open_at, null as close_at
    from {{ date_rows(
        '(select * from ' ~ part ~ '_times where is_always_open)', 'cast(time_from as date)',
        'cast(time_to as date)', 'session_date'
    ) }}
    union all
    select
        '{{ part }}', t.symbol, t.stream, h.session_date,
        greatest(t.time_from, h.pre_market_at), least(t.time_to, h.post_market_at),
        h.open_at, h.close_at
    from {{ part }}_times as t
    inner join hours as h on t.time_from < h.post_market_at and t.time_to > h.pre_market_at
    where not t.is_always_open
    {{ 'union all ' if not loop.last }}
    {% endfor %}
),

measured as (
    select
        symbol, stream, session_date, part,
        {{ milliseconds_between('time_from', 'time_to') }} as open_ms,
        greatest(0, {{ milliseconds_between(
            'greatest(time_from, coalesce(open_at, time_from))', 'least(time_to, coalesce(close_at, time_to))'
        ) }}) as regular_ms,
        0 as ids, 0 as refused
    from days
    {% for part in ['told', 'missing'] %}
    union all
    select symbol, stream, session_date, '{{ part }}', 0, 0, id_end - id_from, 0
    from {{ part }}_ids
    {% endfor %}
    union all
    select symbol, stream, session_date, 'missing', 0, 0, 0, seq_to - seq_from + 1
    from dated
    where seq_from is not null and filled_by is null
),

summed as (
    select
        symbol, stream, session_date,
        {% for part in ['told', 'missing'] %}
        {% for measure in ['open_ms', 'regular_ms', 'ids'] %}
        coalesce(sum(case when part = '{{ part }}' then {{ measure }} end), 0)
            as {{ part }}_{{ measure }},
        {% endfor %}
        {% endfor %}
        sum(refused) as refused
    from measured
    group by symbol, stream, session_date
)

select
    session_date,
    symbol,
    stream,
    cast(missing_open_ms as double) / 1000 as missing_s,
    cast(missing_regular_ms as double) / 1000 as missing_regular_s,
    cast(told_open_ms - missing_open_ms as double) / 1000 as filled_s,
    cast(missing_ids as bigint) as ids_missing,
    cast(told_ids - missing_ids as bigint) as ids_filled,
    cast(refused as bigint) as messages_refused,
    missing_open_ms = 0 and missing_ids = 0 and refused = 0 as is_complete,
    cast({{ window.upto }} as bigint) as load_id,
    false as is_removed
from summed
where (told_open_ms > 0 or told_ids > 0 or refused > 0)
{% if not window.is_full %}
    and session_date in (select session_date from touched)
union all
select
    session_date, null, null, null, null, null, null, null, null, null,
    cast({{ window.upto }} as bigint), true
from touched
{% endif %}
