"""The product's warehouse in the fake Snowflake."""

from collections.abc import Callable

from tests.servers.snowflake import SnowflakeServer
from tickhouse.warehouse.snowflake import SnowflakeWarehouse
from tickhouse.warehouse.snowflake_options import SnowflakeOptions


def snowflake_options(server: SnowflakeServer, database: str, **more: str) -> SnowflakeOptions:
    """A database of the fake, by password."""
    return SnowflakeOptions(
        account="fakesnow",
        database=database,
        warehouse="WH",
        role="LOADER",
        host="127.0.0.1",
        port=server.port,
        protocol="http",
        user="fake",
        authenticator="password",
        password="snow",  # noqa: S106
        is_password_allowed=True,
        **more,
    )


def open_snowflake(
    server: SnowflakeServer,
    database: str,
    *,
    clock_ms: Callable[[], int] | None = None,
    lock_wait_s: float = 30.0,
) -> SnowflakeWarehouse:
    """A warehouse that is not prepared yet."""
    options = snowflake_options(server, database)
    if clock_ms is None:
        return SnowflakeWarehouse(options, lock_wait_s=lock_wait_s)
    return SnowflakeWarehouse(options, lock_wait_s=lock_wait_s, clock_ms=clock_ms)
