"""A stand-in for Snowflake: fakesnow over HTTP with a shim, in an environment of its own."""

from tests.servers.snowflake.server import SnowflakeServer, start_snowflake

__all__ = ["SnowflakeServer", "start_snowflake"]
