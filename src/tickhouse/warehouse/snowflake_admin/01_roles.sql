-- Who may do what. Run as USERADMIN, or any role that may create roles and users.
use role useradmin;

-- Writes bronze and the load ledger: `tickhouse load`.
create role if not exists tickhouse_loader;
-- Reads bronze, writes silver, gold and meta: `tickhouse build`; also for `audit` and `rebuild`.
create role if not exists tickhouse_transformer;
-- Reads silver and gold: dashboards and people.
create role if not exists tickhouse_reader;
-- Both of the first two, where one process loads and builds: `tickhouse refine`, the minute DAG.
create role if not exists tickhouse_pipeline;
grant role tickhouse_loader to role tickhouse_pipeline;
grant role tickhouse_transformer to role tickhouse_pipeline;

-- The service that runs tickhouse: a key pair, no password. Paste the public key, without its
-- first and last line:  openssl genrsa 2048 | openssl pkcs8 -topk8 -v2 aes256 -out tickhouse.p8
--                       openssl rsa -in tickhouse.p8 -pubout
create user if not exists tickhouse_service
    type = service
    default_role = tickhouse_pipeline
    default_warehouse = tickhouse_wh
    rsa_public_key = '<public key>';
grant role tickhouse_pipeline to user tickhouse_service;

-- Administrators see what the service's roles own.
grant role tickhouse_pipeline to role sysadmin;
grant role tickhouse_reader to role sysadmin;
