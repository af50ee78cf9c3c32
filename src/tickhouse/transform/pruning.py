"""Which part of a table a query can see, read from its own WHERE clause.

DuckDB opens every file of a list before it can skip one, so files that a time range excludes are
left out of the list. Only the plain case is read: a table named once in the query, that is the
only one of a SELECT's FROM, and comparisons of its time column with constants or parameters,
joined by AND. Anything else sees all files, which is slower and never wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import duckdb
import msgspec

from tickhouse.transform.partitions import PLAN_OF

Tree = dict[str, Any]
Range = tuple[int | None, int | None]
EVERYTHING: Final[Range] = (None, None)

_LOWER: Final = {"COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO"}
_UPPER: Final = {"COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO"}
_MIRRORED: Final = {
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_EQUAL": "COMPARE_EQUAL",
}


def visible_ranges(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]
) -> dict[str, Range]:
    """For each table named once with bounds: first and last millisecond that the query can see.

    Keys are full names, such as "gold.bars_1s"; tables that are not there are seen whole.
    """
    row = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
    tree: object = msgspec.json.decode(row[0]) if row else {}
    nodes = list(_nodes(tree))
    names = [_full_name(node) for node in nodes if node.get("type") == "BASE_TABLE"]
    found: dict[str, Range] = {}
    for node in nodes:
        source = node.get("from_table")
        if node.get("type") != "SELECT_NODE" or not isinstance(source, dict):
            continue
        name = _full_name(source) if source["type"] == "BASE_TABLE" else None
        if name is not None and names.count(name) == 1:
            found[name] = _range(connection, name, node["where_clause"], parameters)
    return found


def _nodes(tree: object) -> Iterator[Tree]:
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _full_name(table: Tree) -> str | None:
    schema, name = table["schema_name"].lower(), table["table_name"].lower()
    plan = PLAN_OF.get(f"{schema}.{name}" if schema and schema != "main" else name)
    return None if plan is None else plan.name


def _range(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    condition: Tree | None,
    parameters: Sequence[object],
) -> Range:
    column = PLAN_OF[name].time_column
    from_ms, to_ms = EVERYTHING
    for kind, value in _comparisons(condition, column, parameters):
        at_ms = _milliseconds(connection, value)
        if at_ms is not None and (kind in _LOWER or kind == "COMPARE_EQUAL"):
            from_ms = at_ms if from_ms is None else max(from_ms, at_ms)
        if at_ms is not None and (kind in _UPPER or kind == "COMPARE_EQUAL"):
            to_ms = at_ms if to_ms is None else min(to_ms, at_ms)
    return from_ms, to_ms


def _comparisons(
    condition: Tree | None, column: str, parameters: Sequence[object]
) -> Iterator[tuple[str, object]]:
    """(kind, value) of each comparison of `column` that every row must pass."""
    if condition is None or not column:
        return
    if condition["type"] == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from _comparisons(child, column, parameters)
    elif condition["type"] in _MIRRORED:
        left, right = condition["left"], condition["right"]
        if _is_column(left, column):
            yield condition["type"], _value(right, parameters)
        elif _is_column(right, column):
            yield _MIRRORED[condition["type"]], _value(left, parameters)
    elif condition["type"] == "COMPARE_BETWEEN" and _is_column(condition["input"], column):
        yield "COMPARE_GREATERTHANOREQUALTO", _value(condition["lower"], parameters)
        yield "COMPARE_LESSTHANOREQUALTO", _value(condition["upper"], parameters)


def _is_column(expression: Tree, column: str) -> bool:
    return expression["type"] == "COLUMN_REF" and expression["column_names"][-1].lower() == column


def _value(expression: Tree, parameters: Sequence[object]) -> object:
    """Value of a parameter, or of a text constant cast to TIMESTAMP; None of anything else."""
    if expression["type"] == "VALUE_PARAMETER":
        number = expression["identifier"]
        is_known = number.isdecimal() and 0 < int(number) <= len(parameters)
        return parameters[int(number) - 1] if is_known else None
    if expression["type"] == "OPERATOR_CAST" and expression["cast_type"]["id"] == "TIMESTAMP":
        expression = expression["child"]
    if expression["type"] != "VALUE_CONSTANT" or expression["value"]["type"]["id"] != "VARCHAR":
        return None
    return expression["value"].get("value")


def _milliseconds(connection: duckdb.DuckDBPyConnection, value: object) -> int | None:
    if value is None:
        return None
    try:
        row = connection.execute("select epoch_ms(cast(? as timestamp))", [value]).fetchone()
    except duckdb.Error:
        return None
    return row[0] if row else None
