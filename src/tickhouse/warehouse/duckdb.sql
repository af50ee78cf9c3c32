-- Bronze of the embedded warehouse: one row a frame, one-to-one with the lake; all times UTC.
create schema if not exists bronze;

create table if not exists bronze.trades (
    topic_id varchar not null,
    part integer not null,
    log_offset bigint not null,
    log_at timestamp not null,       -- when the log took the record
    received_at timestamp,           -- receipt; null for poison
    source varchar,                  -- mode and payload kind: 'finnhub.ws', 'sim:finnhub.ws', 'replay:binance.ws'
    session_id varchar,
    session_seq bigint,
    symbol varchar,                  -- only where the payload does not name it
    payload json,                    -- the message, where it is strict JSON
    payload_text varchar,            -- the message, where it is other text
    payload_b64 varchar,             -- the message, where it is not UTF-8
    poison varchar,                  -- base64 of a record that is not an envelope
    file varchar not null,           -- key of the bronze object
    load_id bigint not null
);

create table if not exists bronze.quotes as from bronze.trades limit 0;

create table if not exists bronze.reference as from bronze.trades limit 0;

create table if not exists bronze.sessions as from bronze.trades limit 0;

create table if not exists bronze.load_ledger (
    file varchar not null,
    stream varchar not null,
    topic varchar not null,
    topic_id varchar not null,
    part integer not null,
    start_offset bigint not null,
    next_offset bigint not null,
    n bigint not null,
    is_gap boolean not null,
    sha256 varchar not null,
    load_id bigint not null,
    loaded_at timestamp not null
);

-- The loader lock and the last load_id: updated first in every load, so that two loads collide.
create table if not exists bronze.load_lock (load_id bigint not null);

create table if not exists bronze.quarantine (
    file varchar not null,
    reason varchar not null,
    found_at timestamp not null
);

-- Who this warehouse is: published gold names it, so that gold of another one is never extended.
create table if not exists bronze.identity (warehouse_id varchar not null);
