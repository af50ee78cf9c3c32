"""A table's rows as a few numbers that do not depend on their order, and tell duplicates."""

from collections.abc import Mapping, Sequence

import msgspec

from tickhouse.warehouse.dialect import Dialect, cell_text, column_name, text_hash


class Digest(msgspec.Struct, frozen=True):
    """Number of rows, and their hashes added up.

    Each row gives two 64-bit hashes. Of one engine's own, `hashes` holds the exclusive or and the
    sum: the exclusive or alone would not see a row that is there twice more, the sum does.
    """

    rows: int
    hashes: str


class Hashing(msgspec.Struct, frozen=True):
    """How one side hashes its rows.

    Attributes:
        dialect: its SQL.
        is_common: with the hash that both dialects have, which reads cells as text; the engine's
            own is many times faster, and another engine has another.
    """

    dialect: Dialect
    is_common: bool = False

    def row_hash(self, columns: Mapping[str, str], salt: int = 0) -> str:
        """An expression for a row's 64-bit hash; another salt gives an independent one.

        Args:
            columns: their types by name; in the order in which they are compared.
            salt: a small number.
        """
        if not self.is_common:
            cells = ", ".join(column_name(self.dialect, column) for column in columns)
            return f"hash({salt}, {cells})"
        texts = [cell_text(self.dialect, column, kind) for column, kind in columns.items()]
        joined = " || '|' || ".join([f"'{salt}'", *(text for text in texts if text is not None)])
        return text_hash(self.dialect, joined)

    @property
    def _sums(self) -> str:
        if self.is_common:
            sums = [f"coalesce(cast(sum({name}) as varchar), '')" for name in "ab"]
            return f"concat({sums[0]}, ' ', {sums[1]})"
        return "concat_ws(' ', bit_xor(a), sum(a), bit_xor(b), sum(b))"

    def digest_sql(self, table: str, columns: Mapping[str, str], where: str = "true") -> str:
        """A query for the `Digest` of `columns` of the rows that pass `where`.

        Args:
            table: name, trusted.
            columns: see `row_hash`.
            where: condition, trusted.
        """
        return (
            f"select count(*) as row_count, {self._sums} as hashes"  # noqa: S608 - trusted names
            f" from (select {self.row_hash(columns)} as a, {self.row_hash(columns, salt=1)} as b"
            f" from {table} where {where}) as hashed"
        )

    def group_digest_sql(
        self, table: str, columns: Mapping[str, str], group: Sequence[str], where: str = "true"
    ) -> str:
        """The same for each group of rows: the group as text, then its `Digest`."""
        return (
            f"select place, count(*), {self._sums}"  # noqa: S608 - trusted names
            f" from (select {group_text(group)} as place, {self.row_hash(columns)} as a,"
            f" {self.row_hash(columns, salt=1)} as b from {table} where {where}) as hashed"
            " group by place"
        )


def group_text(group: Sequence[str]) -> str:
    """An expression: a row's group as text."""
    cells = [f"coalesce(cast({column} as varchar), '')" for column in group]
    return f"concat_ws(' ', {', '.join(cells)})"
