"""Two warehouses compared table by table, through questions alone, whoever owns their files."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from tickhouse.audit.digest import Digest, digest_sql, group_digest_sql, row_hash
from tickhouse.audit.positions import LEVEL
from tickhouse.warehouse.warehouse import Row, WarehouseReader

PLACES_MAX: Final = 10
SAMPLE_ROWS: Final = 3
FLOAT_TOLERANCE: Final = 1e-12
RUN_COLUMNS: Final = frozenset({"load_id", "loaded_at", "built_at", "revision"})
"""What differs from run to run, by design."""
POSITION_COLUMNS: Final = frozenset({"topic_id", "part", "log_offset", "log_at"})
"""Of a frame that was delivered twice, either delivery may be the one that counts."""


class ComparedTable(msgspec.Struct, frozen=True):
    """A table of the exact layers.

    Attributes:
        name: in both warehouses.
        group: columns by which differences are named.
        is_appended: rows keep their load_id, so that an older state can be asked for.
        is_by_frame: its rows hold the position of the delivery that counts.
        is_float: its numbers are compared to `FLOAT_TOLERANCE`.
    """

    name: str
    group: tuple[str, ...]
    is_appended: bool = False
    is_by_frame: bool = False
    is_float: bool = False


TABLES: Final = (
    ComparedTable("bronze.trades", ("file",), is_appended=True),
    ComparedTable("bronze.sessions", ("file",), is_appended=True),
    ComparedTable("bronze.load_ledger", ("stream", "topic_id", "part"), is_appended=True),
    ComparedTable("silver.trades", ("symbol", "session_date"), is_appended=True, is_by_frame=True),
    ComparedTable("silver.rejected_trades", ("reason",), is_appended=True, is_by_frame=True),
    ComparedTable("silver.repeated_frames", ("session_id",), is_appended=True, is_by_frame=True),
    ComparedTable("silver.sessions", ("session_id",)),
    ComparedTable("silver.gaps", ("session_id",)),
    ComparedTable("silver.instruments", ("symbol",)),
    ComparedTable("silver.trade_conditions", ("code",)),
    *(
        ComparedTable(f"gold.bars_{length}", ("symbol", "session_date"))
        for length in ("1s", "1m", "5m", "1h", "1d")
    ),
    ComparedTable("gold.volatility_1m", ("symbol", "session_date"), is_float=True),
    ComparedTable("gold.kpi", ("symbol",)),
    ComparedTable("gold.market_map", ("symbol",)),
    ComparedTable("gold.completeness", ("session_id",)),
)


class TableComparison(msgspec.Struct, frozen=True):
    """How one table compares.

    Attributes:
        name: the table.
        identical: every row is there, bit for bit (floats to 1e-12).
        rows, rows_rebuilt: number of rows on both sides.
        differences: where, and sample rows.
    """

    name: str
    identical: bool
    rows: int
    rows_rebuilt: int
    differences: list[str]


class Comparison:
    """Compares a warehouse with one that was rebuilt up to the same load.

    Args:
        original: what is checked.
        rebuilt: what was derived from the lake alone.
        load_id: of the original; it must stand there.
    """

    def __init__(self, original: WarehouseReader, rebuilt: WarehouseReader, load_id: int) -> None:
        self._original = original
        self._rebuilt = rebuilt
        self._load_id = load_id
        repeated = "select count(*) from silver.repeated_frames"
        self._has_repeats = any(
            side.query(repeated)[0][0] for side in (self._original, self._rebuilt)
        )

    def compare(self, table: ComparedTable) -> TableComparison | None:
        """Compare one table; None where the original has moved on meanwhile."""
        columns = self._columns(self._original, table)
        if columns != self._columns(self._rebuilt, table):
            text = f"columns {columns} and {self._columns(self._rebuilt, table)}"
            return TableComparison(table.name, False, 0, 0, [text])
        where = f"load_id <= {self._load_id}" if table.is_appended else "true"
        level, here = self._digest_at_level(table, columns, where)
        there = Digest(*self._rebuilt.query(digest_sql(table.name, columns))[0])
        if not table.is_appended and level != self._load_id:
            return None
        differences = [] if here == there else self._differences(table, columns, where)
        is_same = here == there or (table.is_float and here.rows == there.rows and not differences)
        if not is_same and not differences:
            differences = ["the rows differ, but no difference was found when looked for again"]
        return TableComparison(table.name, is_same, here.rows, there.rows, differences)

    def _digest_at_level(
        self, table: ComparedTable, columns: Sequence[str], where: str
    ) -> tuple[int | None, Digest]:
        digest = digest_sql(table.name, columns, where)
        row = self._original.query(f"select {LEVEL}, d.* from ({digest}) as d")[0]  # noqa: S608
        return row[0], Digest(*row[1:])

    def _columns(self, side: WarehouseReader, table: ComparedTable) -> list[str]:
        schema, name = table.name.split(".")
        left_out = RUN_COLUMNS
        if table.is_by_frame and self._has_repeats:
            left_out |= POSITION_COLUMNS
        rows = side.query(
            "select column_name from information_schema.columns"
            " where table_schema = ? and table_name = ? order by column_name",
            (schema, name),
        )
        return [row[0] for row in rows if row[0] not in left_out]

    # -- naming differences ------------------------------------------------------------------

    def _differences(self, table: ComparedTable, columns: Sequence[str], where: str) -> list[str]:
        """Groups whose rows differ, with sample rows of the first ones."""
        here = self._groups(self._original, table, columns, where)
        there = self._groups(self._rebuilt, table, columns, "true")
        places = sorted(place for place in {*here, *there} if here.get(place) != there.get(place))
        found: list[str] = []
        for place in places:
            if table.is_float and self._is_close(table, columns, place):
                continue
            if len(found) >= PLACES_MAX:
                return [*found, f"… and more, in {len(places)} places altogether"]
            counts = [side.get(place, Digest(0, "")).rows for side in (here, there)]
            samples = (
                self._samples(table, columns, place, where) if len(found) < SAMPLE_ROWS else ""
            )
            found.append(f"{place}: {counts[0]} rows, rebuilt {counts[1]}{samples}")
        return found

    @staticmethod
    def _groups(
        side: WarehouseReader, table: ComparedTable, columns: Sequence[str], where: str
    ) -> dict[str, Digest]:
        rows = side.query(group_digest_sql(table.name, columns, table.group, where))
        return {row[0]: Digest(*row[1:]) for row in rows}

    def _rows(
        self, side: WarehouseReader, table: ComparedTable, columns: Sequence[str], place: str
    ) -> list[Row]:
        names = ", ".join(f"cast({column} as varchar)" for column in table.group)
        cells = ", ".join(f'"{column}"' for column in columns)
        return side.query(
            f"select {cells} from {table.name}"  # noqa: S608 - names of ours
            f" where concat_ws(' ', {names}) = ? order by {cells}",
            (place,),
        )

    def _is_close(self, table: ComparedTable, columns: Sequence[str], place: str) -> bool:
        here = self._rows(self._original, table, columns, place)
        there = self._rows(self._rebuilt, table, columns, place)
        return len(here) == len(there) and all(
            _close(a, b)
            for row, other in zip(here, there, strict=True)
            for a, b in zip(row, other, strict=True)
        )

    def _samples(self, table: ComparedTable, columns: Sequence[str], place: str, where: str) -> str:
        """Rows of one group that only one side has, a few of each."""
        sides = ((self._original, where, "only here"), (self._rebuilt, "true", "only rebuilt"))
        hashes = [self._hashes(side, table, columns, place, cond) for side, cond, _ in sides]
        text = ""
        for number, (side, cond, label) in enumerate(sides):
            only = sorted(hashes[number] - hashes[1 - number])[:SAMPLE_ROWS]
            for row in self._by_hash(side, table, columns, place, cond, only):
                text += f"\n    {label}: {dict(zip(columns, row, strict=True))}"
        return text

    @staticmethod
    def _place(table: ComparedTable) -> str:
        names = ", ".join(f"cast({column} as varchar)" for column in table.group)
        return f"concat_ws(' ', {names}) = ?"

    def _hashes(
        self,
        side: WarehouseReader,
        table: ComparedTable,
        columns: Sequence[str],
        place: str,
        where: str,
    ) -> set[str]:
        sql = (
            f"select cast({row_hash(columns)} as varchar) from {table.name}"  # noqa: S608
            f" where {where} and {self._place(table)} limit 500000"
        )
        return {row[0] for row in side.query(sql, (place,))}

    def _by_hash(
        self,
        side: WarehouseReader,
        table: ComparedTable,
        columns: Sequence[str],
        place: str,
        where: str,
        hashes: Sequence[str],
    ) -> list[Row]:
        if not hashes:
            return []
        cells = ", ".join(f'"{column}"' for column in columns)
        sql = (
            f"select {cells} from {table.name} where {where} and {self._place(table)}"  # noqa: S608
            f" and cast({row_hash(columns)} as varchar) in ({', '.join('?' * len(hashes))})"
        )
        return side.query(sql, (place, *hashes))


def _close(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=FLOAT_TOLERANCE, abs_tol=0.0)
    return a == b
