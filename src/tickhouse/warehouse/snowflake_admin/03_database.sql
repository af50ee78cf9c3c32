-- Where the tables lie, and least privilege on them. Run as SECURITYADMIN after SYSADMIN's part.
use role sysadmin;

create database if not exists tickhouse;
-- Bronze can be loaded again from the lake, silver and gold built again: a day of Time Travel does.
alter database tickhouse set data_retention_time_in_days = 1;
create schema if not exists tickhouse.bronze;
create schema if not exists tickhouse.silver;
create schema if not exists tickhouse.gold;
create schema if not exists tickhouse.meta;

use role securityadmin;

grant usage on database tickhouse to role tickhouse_loader;
grant usage on database tickhouse to role tickhouse_transformer;
grant usage on database tickhouse to role tickhouse_reader;

-- The loader makes its tables and its stage, and owns them whoever made them.
grant usage, create table, create stage on schema tickhouse.bronze to role tickhouse_loader;
grant ownership on future tables in schema tickhouse.bronze to role tickhouse_loader;
grant ownership on future stages in schema tickhouse.bronze to role tickhouse_loader;

-- The transformer reads bronze and owns what it builds.
grant usage on schema tickhouse.bronze to role tickhouse_transformer;
grant select on all tables in schema tickhouse.bronze to role tickhouse_transformer;
grant select on future tables in schema tickhouse.bronze to role tickhouse_transformer;
grant usage, create table, create view on schema tickhouse.silver to role tickhouse_transformer;
grant usage, create table, create view on schema tickhouse.gold to role tickhouse_transformer;
grant usage, create table on schema tickhouse.meta to role tickhouse_transformer;
grant ownership on future tables in schema tickhouse.silver to role tickhouse_transformer;
grant ownership on future tables in schema tickhouse.gold to role tickhouse_transformer;
grant ownership on future tables in schema tickhouse.meta to role tickhouse_transformer;

-- Readers: silver and gold; of the rest only where each stands, which the page shows.
grant usage on all schemas in database tickhouse to role tickhouse_reader;
grant select on all tables in schema tickhouse.silver to role tickhouse_reader;
grant select on all tables in schema tickhouse.gold to role tickhouse_reader;
grant select on all tables in schema tickhouse.meta to role tickhouse_reader;
grant select on future tables in schema tickhouse.silver to role tickhouse_reader;
grant select on future tables in schema tickhouse.gold to role tickhouse_reader;
grant select on future tables in schema tickhouse.meta to role tickhouse_reader;
-- That its page may tell how far gold is behind, a reader needs the load ledger, too; it is there after
-- the first `tickhouse init`, see the README.
