"""What several files of integration tests share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from support.audited import make_road
from support.mirror import DATABASE, mirror
from support.snowflake import open_snowflake
from tests.servers.snowflake import SnowflakeServer
from tickhouse.warehouse.snowflake import SnowflakeWarehouse


@pytest.fixture(scope="session")
def road_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with frames of all kinds in every layer; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("road") / "data"
    make_road(folder)
    return folder


@pytest.fixture(scope="session")
def mirrored(road_folder: Path, snowflake: SnowflakeServer) -> Iterator[SnowflakeWarehouse]:
    """The warehouse of the road in Snowflake; whoever changes it puts it right again."""
    database = road_folder / "warehouse" / "warehouse.duckdb"
    with (
        closing(open_snowflake(snowflake, DATABASE)) as warehouse,
        closing(warehouse.cursor()) as cursor,
        duckdb.connect(database, read_only=True) as connection,
    ):
        mirror(connection, cursor)
        yield warehouse
