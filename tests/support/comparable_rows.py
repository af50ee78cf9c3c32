"""Rows of one table of any warehouse in one form, so that two warehouses can be compared."""

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from support.bronze_rows import BronzeWarehouse
from support.builds import RUN_COLUMNS

FLOAT_TOLERANCE = 1e-12


def comparable_rows(warehouse: BronzeWarehouse, table: str) -> list[dict[str, Any]]:
    """Rows without what differs from run to run, in a fixed order."""
    connection = warehouse.connect()
    connection.execute(f"select * from {table}")
    names = [str(column[0]).lower() for column in connection.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
    connection.close()
    for row in rows:
        for column in RUN_COLUMNS:
            row.pop(column, None)
        if table.startswith("silver.rejected_"):
            # A VARIANT is written anew: the same message, not the same bytes.
            row["payload"] = json_of(row["payload"])
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
    """Fail at the first value that differs."""
    assert len(ours) == len(theirs), table
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys(), table
        for name in one:
            assert is_same(one[name], other[name]), (table, name, one, other)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values mean the same; floats to a relative error."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=FLOAT_TOLERANCE)
    return plain(one) == plain(other)


def json_of(text: str) -> str:
    """A message in one way of writing it."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text
