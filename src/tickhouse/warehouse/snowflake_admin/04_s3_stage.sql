-- Optional: let Snowflake read an AWS bucket itself, so that objects are not sent through the
-- loader. Without it the loader sends them to its own internal stage, as it must for a store that
-- Snowflake cannot reach. Run as ACCOUNTADMIN.
use role accountadmin;

-- Snowflake assumes a role of yours; no key of AWS is kept in Snowflake.
create storage integration if not exists tickhouse_lake
    type = external_stage
    storage_provider = s3
    enabled = true
    storage_aws_role_arn = 'arn:aws:iam::<account>:role/<role>'
    storage_allowed_locations = ('s3://<bucket>/<prefix>/');

-- Put STORAGE_AWS_IAM_USER_ARN and STORAGE_AWS_EXTERNAL_ID of this answer into the role's trust
-- policy; the role needs s3:GetObject and s3:ListBucket on the prefix (`loader-policy` of
-- `tickhouse init`).
describe integration tickhouse_lake;

grant usage on integration tickhouse_lake to role tickhouse_loader;

use role tickhouse_loader;
-- Name it in the address: snowflake://…?stage=lake
create stage if not exists tickhouse.bronze.lake
    storage_integration = tickhouse_lake
    url = 's3://<bucket>/<prefix>/'
    file_format = (type = json compression = gzip);
