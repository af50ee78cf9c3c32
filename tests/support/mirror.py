"""A copy of an embedded warehouse in Snowflake, row for row."""

import gzip
import io
import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb

DATABASE = "MIRROR"
SCHEMAS = ("bronze", "silver", "gold", "meta")
_TYPES = {"TIMESTAMP": "timestamp_ntz(6)", "JSON": "variant", "DOUBLE": "float"}


def mirror(database: duckdb.DuckDBPyConnection, cursor: Any) -> None:
    """Copy every table of ours.

    Args:
        database: of the embedded warehouse.
        cursor: of the product, in the database to fill.
    """
    for schema in SCHEMAS:
        cursor.execute(f"create schema if not exists {schema}")
    cursor.execute("create stage bronze.mirror")
    tables = database.execute(
        "select schema_name, table_name from duckdb_tables() where schema_name in ?", [SCHEMAS]
    ).fetchall()
    for schema, table in tables:
        mirror_table(database, cursor, f"{schema}.{table}")


def mirror_table(database: duckdb.DuckDBPyConnection, cursor: Any, table: str) -> None:
    """Copy one table, whatever is there already."""
    found = database.execute(f"select * from {table}")
    columns = [(column[0], str(column[1])) for column in found.description or ()]
    kinds = [_TYPES.get(kind, kind) for _, kind in columns]
    described = ", ".join(
        f'"{name.upper()}" {kind}' for (name, _), kind in zip(columns, kinds, strict=True)
    )
    cursor.execute(f"create or replace table {table} ({described})")
    rows = found.fetchall()
    if not rows:
        return
    name = f"{table}.json.gz"
    body = gzip.compress("\n".join(_line(row, kinds) for row in rows).encode())
    put = f"put file://{name} @bronze.mirror auto_compress=false overwrite=true"
    cursor._cursor.execute(put, file_stream=io.BytesIO(body))
    cells = ", ".join(_cell(number, kind) for number, kind in enumerate(kinds))
    cursor.execute(
        f"copy into {table} from (select {cells} from @bronze.mirror) files=('{name}')"
        " file_format=(type=json compression=gzip) force=true"
    )


def _line(row: Sequence[object], kinds: Sequence[str]) -> str:
    cells = enumerate(zip(row, kinds, strict=True))
    return json.dumps({f"c{number}": _json(cell, kind) for number, (cell, kind) in cells})


def _json(cell: object, kind: str) -> object:
    if isinstance(cell, Decimal | datetime | date):
        return str(cell)
    return json.loads(cell) if kind == "variant" and isinstance(cell, str) else cell


def _cell(number: int, kind: str) -> str:
    return f"$1:c{number}" if kind == "variant" else f"$1:c{number}::{kind}"
