{{ config(unique_key=['kind', 'name'], meta={'removed_by': 'is_removed'}) }}
{#
  Three kinds. `refused`: messages with a number that the recorder did not keep. `missed`: what the
  feed itself found missing and named; every event of a name tells more of one gap, in any order.
  `silence`: the time between a shard's session and the one before it, unless the session tells by
  itself what it missed; recomputed while frames of the session before still arrive.
#}
{% set window = build_window() %}
{{ window_comment(window) }}

with frames as (
    {{ accepted_frames('sessions', window) }}
),

events as (
    {{ session_events('frames') }}
),

arrived as (
    select
        session_id, session_seq, stream, seq_from, seq_to, time_from, time_to,
        coalesce(symbols, '') as symbols, cause, id_from, id_to, filled_by,
        case when seq_from is not null then 'refused' else 'missed' end as kind,
        case
            when seq_from is not null or name is null then session_id || ':' || session_seq
            else name
        end as name,
        case when filled_by is null then happened_at end as told_at,
        case when filled_by is not null then happened_at end as filled_at
    from events
    where event = 'gap'
),

known as (
    select
        session_id, session_seq, stream, seq_from, seq_to, time_from, time_to, symbols, cause,
        id_from, id_to, filled_by, kind, name, told_at, filled_at
    from arrived
    {% if not window.is_full %}
    union all
    select
        session_id, session_seq, stream, seq_from, seq_to, time_from, time_to, symbols, cause,
        id_from, id_to, filled_by, kind, name, told_at, filled_at
    from {{ this }}
    where kind = 'missed' and name in (select name from arrived where kind = 'missed')
    {% endif %}
),

told as (
    select
        kind, name,
        {#- Who told it first; who filled it, only where nobody told. #}
        {{ first_by(gap_facts(), row_order([
            ('flag', 'k.told_at is null'), ('time', 'coalesce(k.told_at, k.filled_at)'),
            ('text', 'k.session_id'), ('number', 'k.session_seq')
        ])) }}
            as facts,
        min(time_from) as time_from, max(time_to) as time_to,
        min(id_from) as id_from, max(id_to) as id_to,
        {{ first_by('k.filled_by', row_order([('time', 'k.filled_at'), ('text', 'k.filled_by')]), 'k.filled_by is not null') }}
            as filled_by,
        min(filled_at) as filled_at
    from known as k
    group by kind, name
),

last_frames as (
    select
        session_id, max(last_received_at) as last_received_at, max(load_id) as load_id,
        min(case stream when 'trades' then 1 when 'quotes' then 2 else 3 end) as stream_rank
    from {{ ref('frame_ranges') }}
    where stream <> 'sessions'
    group by session_id
),

silences as (
    select
        s.session_id, coalesce(s.gap_told_from < s.opened_at, false) as is_told,
        coalesce(p.closed_at, f.last_received_at, p.opened_at) as time_from,
        s.opened_at as time_to,
        case
            when split_part(s.feed, ':', 1) <> split_part(p.feed, ':', 1) then 'another feed'
            when p.closed_at is null then 'no closed event'
            else 'stopped'
        end as cause,
        {#- What the session before carried. #}
        case
            when f.stream_rank = 1 or p.trades_messages > 0 then 'trades'
            when f.stream_rank = 2 or p.quotes_messages > 0 then 'quotes'
            when f.stream_rank = 3 or p.reference_messages > 0 then 'reference'
            else 'trades'
        end as stream,
        case
            {#- The feed went on exactly after the last durable message: nothing is missing. #}
            when s.feed = p.feed
                and s.feed_cursor = coalesce(p.feed_cursor, 0)
                    + coalesce(s.previous_last_seq + 1, 0) + coalesce(s.previous_others, 0)
            then 'cursor'
        end as filled_by
    from {{ ref('sessions') }} as s
    left join {{ ref('sessions') }} as p on s.previous_session_id = p.session_id
    left join last_frames as f on s.previous_session_id = f.session_id
    where s.previous_session_id is not null and s.opened_at is not null
        {#- Shards that only fetch what is there to be fetched at any time miss nothing. #}
        and not (s.feed like 'binance:%' and s.shard = 1)
        and not (s.feed like 'finnhub:%' and s.shard = 2)
        and s.feed not like 'finnhub+profile2:%'
        and s.feed not like 'import:%'
        and (
            {{ in_window(window, 's.load_id') }}
            or {{ in_window(window, 'p.load_id') }}
            or {{ in_window(window, 'f.load_id') }}
        )
)

select
    kind, name,
    {% for fact in ['session_id', 'session_seq', 'stream', 'seq_from', 'seq_to'] -%}
    {{ gap_fact('facts', fact) }} as {{ fact }},
    {% endfor -%}
    id_from, id_to, time_from, time_to, {{ gap_fact('facts', 'symbols') }} as symbols,
    {{ gap_fact('facts', 'cause') }} as cause, filled_by, {{ gap_fact('facts', 'told_at') }} as told_at, filled_at,
    cast({{ window.upto }} as bigint) as load_id, false as is_removed
from told
union all
select
    'silence' as kind, session_id as name, session_id, cast(0 as bigint) as session_seq, stream,
    cast(null as bigint) as seq_from, cast(null as bigint) as seq_to,
    cast(null as bigint) as id_from, cast(null as bigint) as id_to,
    time_from, time_to, '' as symbols, cause, filled_by, time_to as told_at,
    case when filled_by is not null then time_to end as filled_at,
    cast({{ window.upto }} as bigint) as load_id, is_told as is_removed
from silences
