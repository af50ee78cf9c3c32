"""The same bronze in DuckDB and in the fake Snowflake: every silver and gold row is the same."""

import json
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from support.bronze_rows import BronzeWarehouse
from support.builds import EXACT_TABLES, RUN_COLUMNS, builder_of, new_warehouse
from support.parity_loads import parity_loads
from support.snowflake_bronze import SnowflakeBronze, snowflake_builder
from tests.servers.fixtures import snowflake  # noqa: F401 - a fixture
from tests.servers.snowflake import SnowflakeServer

TABLES = (*EXACT_TABLES, "silver.frame_ranges")
FLOAT_TOLERANCE = 1e-12


def rows_of(warehouse: BronzeWarehouse, table: str) -> list[dict[str, Any]]:
    """Rows without what differs from run to run, in a fixed order."""
    connection = warehouse.connect()
    connection.execute(f"select * from {table}")
    names = [str(column[0]).lower() for column in connection.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
    connection.close()
    for row in rows:
        for column in RUN_COLUMNS:
            row.pop(column, None)
    return sorted(rows, key=lambda row: repr([plain(value) for value in row.values()]))


def plain(value: Any) -> Any:
    """A value as both warehouses tell it; floats as far as they must agree."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:.10g}"
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return f"{Decimal(value).normalize():f}"
    return value


def assert_same(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], table: str
) -> None:
    assert len(ours) == len(theirs), table
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys(), table
        for name in one:
            assert is_same(one[name], other[name]), (table, name, one, other)


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=FLOAT_TOLERANCE)
    return plain(one) == plain(other)


@pytest.fixture(scope="module")
def warehouses(
    snowflake: SnowflakeServer,  # noqa: F811
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
    ours, theirs = (rows_of(warehouse, table) for warehouse in warehouses)

    if table.startswith("silver.rejected_"):
        # A VARIANT is written anew: the same message, not the same bytes.
        for row in (*ours, *theirs):
            row["payload"] = json_of(row["payload"])
        ours, theirs = (sorted(rows, key=repr) for rows in (ours, theirs))
    assert ours
    assert_same(ours, theirs, table)


def json_of(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text
