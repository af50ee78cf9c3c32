"""A table's rows as a few numbers that do not depend on their order, and tell duplicates."""

from collections.abc import Sequence

import msgspec


class Digest(msgspec.Struct, frozen=True):
    """Number of rows, and their hashes added up.

    Each row gives two 64-bit hashes. Of each, `hashes` holds the exclusive or and the sum: the
    exclusive or alone would not see a row that is there twice more, the sum does.
    """

    rows: int
    hashes: str


def digest_sql(table: str, columns: Sequence[str], where: str = "true") -> str:
    """A query for the `Digest` of `columns` of the rows that pass `where`.

    Both sides of a comparison must have the same types, and the same engine.

    Args:
        table: name, trusted.
        columns: names; in the order in which they are compared.
        where: condition, trusted.
    """
    return (
        "select count(*) as row_count,"  # noqa: S608 - trusted names
        " concat_ws(' ', bit_xor(a), sum(a), bit_xor(b), sum(b))"
        f" from (select {row_hash(columns)} as a, {row_hash(columns, salt=1)} as b"
        f" from {table} where {where}) as hashed"
    )


def row_hash(columns: Sequence[str], salt: int = 0) -> str:
    """An expression for the 64-bit hash of a row; another salt gives an independent one."""
    cells = ", ".join(f'"{column}"' for column in columns)
    return f"hash({salt}, {cells})"


def group_digest_sql(
    table: str, columns: Sequence[str], group: Sequence[str], where: str = "true"
) -> str:
    """The same for each group of rows: the group as text, then its `Digest`."""
    names = ", ".join(f"cast({column} as varchar)" for column in group)
    return (
        "select place, count(*), concat_ws(' ', bit_xor(a), sum(a), bit_xor(b), sum(b))"  # noqa: S608
        f" from (select concat_ws(' ', {names}) as place, {row_hash(columns)} as a,"
        f" {row_hash(columns, salt=1)} as b from {table} where {where}) as hashed group by place"
    )
