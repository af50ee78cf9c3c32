{# Events of our own making (opened, closed, gap), one row each; anything else gives none. #}
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
        message.reason as reason,
        try_cast(message.messages.trades as bigint) as trades_messages,
        message.stream as stream,
        try_cast(message.seq_from as bigint) as seq_from,
        try_cast(message.seq_to as bigint) as seq_to,
        {{ epoch_ns_to_timestamp('try_cast(message.time_from as bigint)') }} as time_from,
        {{ epoch_ns_to_timestamp('try_cast(message.time_to as bigint)') }} as time_to,
        array_to_string(message.symbols, ',') as symbols,
        message.cause as cause,
        message.filled_by as filled_by
    from (
        select
            *,
            json_transform(payload, '{"event":"VARCHAR","at":"VARCHAR","shard":"VARCHAR","feed":"VARCHAR","mode":"VARCHAR","cursor":"VARCHAR","previous":{"session":"VARCHAR","seq":"VARCHAR"},"reason":"VARCHAR","messages":{"trades":"VARCHAR"},"stream":"VARCHAR","seq_from":"VARCHAR","seq_to":"VARCHAR","time_from":"VARCHAR","time_to":"VARCHAR","symbols":["VARCHAR"],"cause":"VARCHAR","filled_by":"VARCHAR"}') as message
        from {{ frames }}
        where source = 'tickhouse' and payload is not null
    )
{%- endmacro %}
