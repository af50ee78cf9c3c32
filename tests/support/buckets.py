"""A store over a bucket of a test's server."""

import msgspec

from tests.servers.s3.servers import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tickhouse.bronze.s3 import S3Store
from tickhouse.bronze.s3_options import S3Options


def bucket_options(
    server: S3Server, bucket: str, *, endpoint: str = "", prefix: str = "", **changes: object
) -> S3Options:
    """Who the server's administrator is, at the server or at what stands in front of it."""
    options = S3Options(
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint or server.endpoint,
        region=REGION,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
    )
    return msgspec.structs.replace(options, **changes)


def open_bucket(server: S3Server, bucket: str, *, prefix: str = "") -> S3Store:
    """A new bucket as a lake."""
    server.make_bucket(bucket)
    return S3Store(bucket_options(server, bucket, prefix=prefix))
