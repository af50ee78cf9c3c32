"""What DuckDB and Snowflake write differently, in questions that are asked of both.

Questions are written so that one text runs on both wherever there is one: `cast` for `::`,
`count_if` and `case` for `filter`, sums of integers cast to bigint, numbers in place of formatted
times. What has no common text has its twins here.
"""

from collections.abc import Callable
from typing import Final, Literal

Dialect = Literal["duckdb", "snowflake"]

EPOCH: Final = "timestamp '1970-01-01 00:00:00'"


def epoch_ms(column: str) -> str:
    """A time as UNIX milliseconds; null where there is none. The same text for both."""
    return f"datediff('millisecond', {EPOCH}, {column})"


def epoch_s(column: str) -> str:
    """A time as UNIX seconds. The same text for both."""
    return f"datediff('second', {EPOCH}, {column})"


def column_name(dialect: Dialect, column: str) -> str:
    """A column whose name may be a reserved word; Snowflake keeps names in upper case."""
    name = column.upper() if dialect == "snowflake" else column
    return f'"{name}"'


def exact_product(dialect: Dialect, price: str, size: str) -> str:
    """A price times a size, both DECIMAL(18,8), with all 16 decimals.

    Snowflake's product of two scales of 8 has 12 decimals; with one of 16 it has 16.
    """
    kept = "decimal(38, 16)" if dialect == "snowflake" else "decimal(19, 8)"
    return f"cast({price} as {kept}) * {size}"


def json_text(dialect: Dialect, column: str, field: str) -> str:
    """A field of a JSON value as text; null where there is none, or it is null."""
    if dialect == "snowflake":
        return f'cast({column}:"{field}" as varchar)'
    return f"json_extract_string({column}, '$.{field}')"


def json_length(dialect: Dialect, column: str, field: str = "") -> str:
    """Number of elements of a field, or of the value itself; null where it is no array."""
    if dialect == "snowflake":
        return f'array_size({column}:"{field}")' if field else f"array_size({column})"
    path = f"{column}, '$.{field}'" if field else column
    return f"case when json_type({path}) = 'ARRAY' then json_array_length({path}) end"


def text_hash(dialect: Dialect, text: str) -> str:
    """The same unsigned 64-bit hash of a text on both: the lower half of its MD5."""
    if dialect == "snowflake":
        return f"md5_number_lower64({text})"
    return f"cast('0x' || substr(md5({text}), 17) as ubigint)"


_TEXT_OF: Final[dict[str, Callable[[str], str]]] = {
    "number": lambda cell: f"cast(cast({cell} as decimal(38, 16)) as varchar)",
    "float": lambda cell: f"cast(cast({cell} as decimal(38, 9)) as varchar)",
    "time": lambda cell: f"cast(datediff('microsecond', {EPOCH}, {cell}) as varchar)",
    "date": lambda cell: f"cast(datediff('day', date '1970-01-01', {cell}) as varchar)",
    "boolean": lambda cell: f"case when {cell} then 'true' when not {cell} then 'false' end",
    "text": lambda cell: cell,
}
_KIND_OF: Final = {
    "BOOLEAN": "boolean",
    "DATE": "date",
    "DOUBLE": "float",
    "FLOAT": "float",
    "TEXT": "text",
    "TIMESTAMP": "time",
    "TIMESTAMP_NTZ": "time",
    "VARCHAR": "text",
    **dict.fromkeys(("BIGINT", "DECIMAL", "HUGEINT", "INTEGER", "NUMBER"), "number"),
}


def cell_text(dialect: Dialect, column: str, data_type: str) -> str | None:
    """A cell as the same text on both; None for kinds that have none, such as JSON.

    Args:
        dialect: whose SQL.
        column: name of the column.
        data_type: its type as `information_schema` names it, `DECIMAL(18,8)` or `NUMBER`.
    """
    kind = _KIND_OF.get(data_type.partition("(")[0].upper())
    if kind is None:
        return None
    return f"coalesce({_TEXT_OF[kind](column_name(dialect, column))}, '<null>')"
