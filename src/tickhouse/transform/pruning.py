"""Which part of a table a query can see, read from its own WHERE clause.

DuckDB opens every file of a list before it can skip one, so files that a time range excludes are
left out of the list. Only the plain case is read: a table named once in the query, that is the
only one of a SELECT's FROM, and comparisons of its time column with constants or parameters,
joined by AND. Anything else sees all files, which is slower and never wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import duckdb
import msgspec

from tickhouse.transform.partitions import PLAN_OF, PLANS

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
    """The published tables that a query names, each with the first and last millisecond it can see.

    Keys are full names, such as "gold.bars_1s". `show tables` names all.
    """
    row = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
    tree: object = msgspec.json.decode(row[0]) if row else {}
    nodes = list(_nodes(tree))
    names = [_full_name(node) for node in nodes if node.get("type") == "BASE_TABLE"]
    found: dict[str, Range] = {name: EVERYTHING for name in names if name is not None}
    if not found and any(node.get("type") == "SHOW_REF" for node in nodes):
        return {plan.name: EVERYTHING for plan in PLANS}
    for node in nodes:
        if node.get("type") != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
            continue
        source: Tree = node["from_table"]
        name = _full_name(source)
        if name is not None and names.count(name) == 1:
            qualifiers = {source["alias"].lower() or source["table_name"].lower()}
            column = _Column(PLAN_OF[name].time_column, qualifiers)
            found[name] = _range(connection, column, node["where_clause"], parameters)
    return found


class _Column(msgspec.Struct, frozen=True):
    """A column of one table in a query, and the names by which the query may call the table."""

    name: str
    qualifiers: set[str]

    def is_meant(self, expression: Tree) -> bool:
        """Whether an expression is this column."""
        if expression["type"] != "COLUMN_REF":
            return False
        *qualifiers, name = (part.lower() for part in expression["column_names"])
        return name == self.name and set(qualifiers) <= self.qualifiers


def _nodes(tree: object) -> Iterator[Tree]:
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            children = cast("Tree", node)
            yield children
            waiting += children.values()
        elif isinstance(node, list):
            waiting += cast("list[Any]", node)


def _full_name(table: Tree) -> str | None:
    schema, name = table["schema_name"].lower(), table["table_name"].lower()
    plan = PLAN_OF.get(f"{schema}.{name}" if schema and schema != "main" else name)
    return None if plan is None else plan.name


def _range(
    connection: duckdb.DuckDBPyConnection,
    column: _Column,
    condition: Tree | None,
    parameters: Sequence[object],
) -> Range:
    from_ms, to_ms = EVERYTHING
    for kind, value in _comparisons(condition, column, parameters):
        at_ms = _milliseconds(connection, value)
        if at_ms is not None and (kind in _LOWER or kind == "COMPARE_EQUAL"):
            from_ms = at_ms if from_ms is None else max(from_ms, at_ms)
        if at_ms is not None and (kind in _UPPER or kind == "COMPARE_EQUAL"):
            to_ms = at_ms if to_ms is None else min(to_ms, at_ms)
    return from_ms, to_ms


def _comparisons(
    condition: Tree | None, column: _Column, parameters: Sequence[object]
) -> Iterator[tuple[str, object]]:
    """(kind, value) of each comparison of `column` that every row must pass."""
    if condition is None:
        return
    if condition["type"] == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from _comparisons(child, column, parameters)
    elif condition["type"] in _MIRRORED:
        left, right = condition["left"], condition["right"]
        if column.is_meant(left):
            yield condition["type"], _value(right, parameters)
        elif column.is_meant(right):
            yield _MIRRORED[condition["type"]], _value(left, parameters)
    elif condition["type"] == "COMPARE_BETWEEN" and column.is_meant(condition["input"]):
        yield "COMPARE_GREATERTHANOREQUALTO", _value(condition["lower"], parameters)
        yield "COMPARE_LESSTHANOREQUALTO", _value(condition["upper"], parameters)


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
