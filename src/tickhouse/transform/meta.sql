-- What the builder keeps beside silver and gold: where each model stands, and each build's pin.
create schema if not exists meta;

-- One row a model (and one for seeds and for `tests`): its rows cover bronze up to load_id.
create table if not exists meta.positions (
    model varchar not null,
    load_id bigint not null,
    build_id bigint not null,
    fingerprint varchar,             -- of the SQL, macros and seeds that made its rows
    watermark timestamp,             -- older of the newest receipt and the newest event time
    received_at_max timestamp,
    event_at_max timestamp,
    made_by bigint                   -- the build that made its table
);

alter table meta.positions add column if not exists made_by bigint;

-- One row a model: what the current build reads, (after_load_id, upto_load_id].
create table if not exists meta.windows (
    model varchar not null,
    build_id bigint not null,
    after_load_id bigint not null,
    upto_load_id bigint not null,
    is_full boolean not null,        -- built afresh: its fingerprint, or one upstream, changed
    position bigint not null,        -- where it stood when the build was pinned
    watermark timestamp,
    fingerprint varchar
);

create table if not exists meta.builds (
    build_id bigint not null,
    from_load_id bigint not null,
    upto_load_id bigint not null,
    started_at timestamp not null,
    finished_at timestamp,
    failure varchar                  -- null while it runs and where it succeeded
);

-- The last build_id, and the lock of a pin and of loading seeds: updated first, so that two builds get
-- two ids.
create table if not exists meta.build_lock as
select cast(coalesce(max(build_id), 0) as bigint) as build_id from meta.builds;
