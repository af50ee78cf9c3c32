-- Bronze in Snowflake: one row a frame, one-to-one with the lake; all times UTC. Each statement may
-- run again. Column for column what duckdb.sql has.
create schema if not exists bronze;

create table if not exists bronze.trades (
    topic_id varchar not null,
    part number(9, 0) not null,
    log_offset number(18, 0) not null,
    log_at timestamp_ntz(6) not null,       -- when the log took the record
    received_at timestamp_ntz(6),           -- receipt; null for poison
    source varchar,                         -- mode and payload kind
    session_id varchar,
    session_seq number(19, 0),
    symbol varchar,                         -- only where the payload does not name it
    payload variant,                        -- the message, where it is strict JSON
    payload_text varchar(134217728),        -- the message, where it is other text
    payload_b64 varchar(134217728),         -- the message, where it is not UTF-8
    poison varchar(134217728),              -- base64 of a record that is not an envelope
    file varchar not null,                  -- key of the bronze object
    load_id number(18, 0) not null
);

create table if not exists bronze.quotes like bronze.trades;

create table if not exists bronze.reference like bronze.trades;

create table if not exists bronze.sessions like bronze.trades;

create table if not exists bronze.load_ledger (
    file varchar not null,
    stream varchar not null,
    topic varchar not null,
    topic_id varchar not null,
    part number(9, 0) not null,
    start_offset number(18, 0) not null,
    next_offset number(18, 0) not null,
    n number(18, 0) not null,
    is_gap boolean not null,
    sha256 varchar not null,
    load_id number(18, 0) not null,
    loaded_at timestamp_ntz(6) not null
);

create table if not exists bronze.quarantine (
    file varchar not null,
    reason varchar not null,
    found_at timestamp_ntz(6) not null
);

-- Where lines wait for their COPY; an external stage may take its place (`stage=` in the URL).
create stage if not exists bronze.load_stage;

-- The loader lock and the last load_id: updated first in every load, so that a second load waits.
-- Made together with its row: two that prepare at once make one row.
create table if not exists bronze.load_lock (load_id number(18, 0) not null)
as select coalesce(max(load_id), 0) from bronze.load_ledger;

-- Who this warehouse is; the last to be made.
create table if not exists bronze.identity (warehouse_id varchar not null)
as select '{warehouse_id}';
