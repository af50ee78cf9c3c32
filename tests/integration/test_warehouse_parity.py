"""The same bronze in DuckDB and in the fake Snowflake: every silver and gold row is the same."""

from collections.abc import Iterator

import pytest

from support.bronze_rows import BronzeWarehouse
from support.builds import EXACT_TABLES, builder_of, new_warehouse
from support.comparable_rows import assert_same, comparable_rows
from support.parity_loads import parity_loads
from support.snowflake_bronze import SnowflakeBronze, snowflake_builder
from tests.servers.snowflake import SnowflakeServer

pytestmark = pytest.mark.warehouse

TABLES = (*EXACT_TABLES, "silver.frame_ranges")


@pytest.fixture(scope="module")
def warehouses(
    snowflake: SnowflakeServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[BronzeWarehouse, SnowflakeBronze]]:
    """Both, after four loads, each built by itself."""
    folder = tmp_path_factory.mktemp("parity")
    ours, theirs = new_warehouse(folder / "w"), SnowflakeBronze(snowflake, "PARITY")
    with builder_of(ours) as one, snowflake_builder(theirs, folder) as other:
        for load in parity_loads(20240809):
            for warehouse, builder in ((ours, one), (theirs, other)):
                warehouse.load(load)
                assert builder.build().changed
    yield ours, theirs
    theirs.session.close()


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_the_same_rows_in_both_warehouses(
    warehouses: tuple[BronzeWarehouse, SnowflakeBronze], table: str
) -> None:
    ours, theirs = (comparable_rows(warehouse, table) for warehouse in warehouses)

    assert ours
    assert_same(ours, theirs, table)
