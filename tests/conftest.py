"""Servers that tests share: one of each kind a process, started when the first test asks for it."""

from tests.servers.fixtures import (
    bucket_name,
    kafka,
    minio,
    moto,
    seaweedfs,
    snowflake,
    snowflake_database,
    topics,
)

__all__ = [
    "bucket_name",
    "kafka",
    "minio",
    "moto",
    "seaweedfs",
    "snowflake",
    "snowflake_database",
    "topics",
]
