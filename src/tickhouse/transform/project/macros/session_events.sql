{# Events of our own making (see tickhouse/model/session.py), one row each; anything else gives none. #}
{% macro session_events(frames) -%}
    {{ adapter.dispatch('session_events')(frames) }}
{%- endmacro %}

{% macro default__session_events(frames) -%}
    select
        session_id, session_seq, load_id,
        message.event as event,
        {{ epoch_ns_to_timestamp('try_cast(message.at as bigint)') }} as happened_at,
        try_cast(message.shard as integer) as shard,
        message.feed as feed,
        message.mode as mode,
        try_cast(message.cursor as bigint) as feed_cursor,
        message.previous.session as previous_session_id,
        try_cast(message.previous.seq as bigint) as previous_last_seq,
        try_cast(message.previous.others as bigint) as previous_others,
        message.reason as reason,
        {%- for stream in frame_streams() if stream != 'sessions' %}
        try_cast(message.messages.{{ stream }} as bigint) as {{ stream }}_messages,
        {%- endfor %}
        message.stream as stream,
        try_cast(message.seq_from as bigint) as seq_from,
        try_cast(message.seq_to as bigint) as seq_to,
        {{ epoch_ns_to_timestamp('try_cast(message.time_from as bigint)') }} as time_from,
        {{ epoch_ns_to_timestamp('try_cast(message.time_to as bigint)') }} as time_to,
        message.symbols as symbol_list,
        array_to_string(message.symbols, ',') as symbols,
        message.cause as cause,
        message.filled_by as filled_by,
        message.name as name,
        try_cast(message.id_from as bigint) as id_from,
        try_cast(message.id_to as bigint) as id_to,
        message.ray as ray,
        try_cast(message.clock_offset_ms as bigint) as clock_offset_ms,
        message.channel as channel,
        try_cast(message.every_s as double) as every_s
    from (
        select
            *,
            json_transform(payload, '{"event":"VARCHAR","at":"VARCHAR","shard":"VARCHAR","feed":"VARCHAR","mode":"VARCHAR","cursor":"VARCHAR","previous":{"session":"VARCHAR","seq":"VARCHAR","others":"VARCHAR"},"reason":"VARCHAR","messages":{"trades":"VARCHAR","quotes":"VARCHAR","reference":"VARCHAR"},"stream":"VARCHAR","seq_from":"VARCHAR","seq_to":"VARCHAR","time_from":"VARCHAR","time_to":"VARCHAR","symbols":["VARCHAR"],"cause":"VARCHAR","filled_by":"VARCHAR","name":"VARCHAR","id_from":"VARCHAR","id_to":"VARCHAR","ray":"VARCHAR","clock_offset_ms":"VARCHAR","channel":"VARCHAR","every_s":"VARCHAR"}') as message
        from {{ frames }}
        where source = 'tickhouse' and payload is not null
    )
{%- endmacro %}

{% macro snowflake__session_events(frames) -%}
    select
        session_id, session_seq, load_id,
        payload:event::varchar as event,
        {{ epoch_ns_to_timestamp('try_cast(payload:at::varchar as bigint)') }} as happened_at,
        try_cast(payload:shard::varchar as integer) as shard,
        payload:feed::varchar as feed,
        payload:mode::varchar as mode,
        try_cast(payload:cursor::varchar as bigint) as feed_cursor,
        payload:previous:session::varchar as previous_session_id,
        try_cast(payload:previous:seq::varchar as bigint) as previous_last_seq,
        try_cast(payload:previous:others::varchar as bigint) as previous_others,
        payload:reason::varchar as reason,
        {%- for stream in frame_streams() if stream != 'sessions' %}
        try_cast(payload:messages:{{ stream }}::varchar as bigint) as {{ stream }}_messages,
        {%- endfor %}
        payload:stream::varchar as stream,
        try_cast(payload:seq_from::varchar as bigint) as seq_from,
        try_cast(payload:seq_to::varchar as bigint) as seq_to,
        {{ epoch_ns_to_timestamp('try_cast(payload:time_from::varchar as bigint)') }} as time_from,
        {{ epoch_ns_to_timestamp('try_cast(payload:time_to::varchar as bigint)') }} as time_to,
        case when is_array(payload:symbols) then payload:symbols end as symbol_list,
        case when is_array(payload:symbols) then {{ joined_texts('payload:symbols') }} end as symbols,
        payload:cause::varchar as cause,
        payload:filled_by::varchar as filled_by,
        payload:name::varchar as name,
        try_cast(payload:id_from::varchar as bigint) as id_from,
        try_cast(payload:id_to::varchar as bigint) as id_to,
        payload:ray::varchar as ray,
        try_cast(payload:clock_offset_ms::varchar as bigint) as clock_offset_ms,
        payload:channel::varchar as channel,
        try_cast(payload:every_s::varchar as double) as every_s
    from {{ frames }}
    where source = 'tickhouse' and payload is not null
{%- endmacro %}
