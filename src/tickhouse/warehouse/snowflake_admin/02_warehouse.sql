-- What computes, and what it may cost. Run as ACCOUNTADMIN: only that role makes resource monitors.
use role accountadmin;

-- The smallest size: one load and build a minute keep it busy for seconds.
-- auto_suspend is the money: see the cost note in deploy/snowflake/README.md. A statement may take
-- an hour: a model whose SQL changed reads all of history in one.
create warehouse if not exists tickhouse_wh
    warehouse_size = xsmall
    auto_suspend = 60
    auto_resume = true
    initially_suspended = true
    statement_timeout_in_seconds = 3600
    statement_queued_timeout_in_seconds = 120;

-- Warns at 80 % of a day's credits, lets running statements end at 100 %. A suspended warehouse
-- loses nothing: loading goes on where the ledger ends.
create resource monitor if not exists tickhouse_daily
    with credit_quota = 26
    frequency = daily
    start_timestamp = immediately
    triggers on 80 percent do notify
             on 100 percent do suspend;
alter warehouse tickhouse_wh set resource_monitor = tickhouse_daily;

grant usage on warehouse tickhouse_wh to role tickhouse_loader;
grant usage on warehouse tickhouse_wh to role tickhouse_transformer;
grant usage on warehouse tickhouse_wh to role tickhouse_reader;
