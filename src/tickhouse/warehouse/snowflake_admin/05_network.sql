-- From where the service may log in. Run as SECURITYADMIN. Give your own addresses.
use role securityadmin;

create network policy if not exists tickhouse_service_only
    allowed_ip_list = ('<address of the machine that runs tickhouse>/32');
alter user tickhouse_service set network_policy = tickhouse_service_only;
