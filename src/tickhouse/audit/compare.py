"""Two warehouses compared table by table, through questions alone, whoever owns their files."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from tickhouse.audit.digest import Digest, digest_sql, group_digest_sql, row_hash
from tickhouse.audit.positions import LEVEL, has_table
from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.warehouse.warehouse import Row, WarehouseReader

PLACES_MAX: Final = 10
SAMPLE_ROWS: Final = 3
PAUSE_S: Final = 0.5
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
        sampled_by: what tells the rows that follow from some partitions alone; empty: nothing does.
    """

    name: str
    group: tuple[str, ...]
    is_appended: bool = False
    is_by_frame: bool = False
    is_float: bool = False
    sampled_by: Literal["", "part", "session_id", "symbol"] = ""


TABLES: Final = (
    *(
        ComparedTable(f"bronze.{stream}", ("file",), is_appended=True, sampled_by="part")
        for stream in Stream
    ),
    ComparedTable(
        "bronze.load_ledger", ("stream", "topic_id", "part"), is_appended=True, sampled_by="part"
    ),
    *(
        ComparedTable(
            f"silver.{name}", group, is_appended=True, is_by_frame=True, sampled_by="session_id"
        )
        for name, group in (
            ("trades", ("symbol", "session_date")),
            ("rejected_trades", ("reason",)),
            ("repeated_frames", ("session_id",)),
            ("rejected_quotes", ("reason",)),
        )
    ),
    ComparedTable(
        "silver.quotes", ("symbol", "session_date"), is_by_frame=True, sampled_by="session_id"
    ),
    ComparedTable("silver.sessions", ("session_id",), sampled_by="session_id"),
    ComparedTable("silver.coverage", ("session_id",), is_appended=True, sampled_by="session_id"),
    ComparedTable("silver.gaps", ("session_id",)),
    ComparedTable("silver.instruments", ("symbol",)),
    ComparedTable("silver.instrument_list", ("symbol",)),
    ComparedTable("silver.calendar", ("session_date",)),
    ComparedTable("silver.trade_conditions", ("code",)),
    *(
        ComparedTable(f"gold.bars_{length}", ("symbol", "session_date"), sampled_by="symbol")
        for length in ("1s", "1m", "5m", "1h", "1d")
    ),
    ComparedTable(
        "gold.volatility_1m", ("symbol", "session_date"), is_float=True, sampled_by="symbol"
    ),
    ComparedTable("gold.kpi", ("symbol",)),
    ComparedTable("gold.market_map", ("symbol",)),
    ComparedTable("gold.completeness", ("session_id",)),
    ComparedTable("gold.gaps_daily", ("symbol", "session_date")),
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


class Sample(msgspec.Struct, frozen=True):
    """A part of the lake, by partitions.

    Attributes:
        parts: their numbers.
        elsewhere: symbols that are traded on other partitions, too: their bars are not compared.
    """

    parts: tuple[int, ...]
    elsewhere: tuple[str, ...]


class Frozen(msgspec.Struct, frozen=True):
    """What a warehouse held at one moment between two builds.

    Attributes:
        load_id: where all its models stood.
        columns: of each table, those that are compared.
        digests: of each table.
        sample: what alone is compared; None: everything.
    """

    load_id: int
    columns: dict[str, list[str]]
    digests: dict[str, Digest]
    sample: Sample | None = None

    @property
    def tables(self) -> list[ComparedTable]:
        """Those that are compared."""
        return _tables(self.sample)


def _tables(sample: Sample | None) -> list[ComparedTable]:
    """All tables; of a sample, those that hold rows which follow from it alone."""
    return [table for table in TABLES if sample is None or table.sampled_by]


def choose_sample(warehouse: WarehouseReader, parts: Sequence[int]) -> Sample:
    """A sample of these partitions, with what is traded on others, too."""
    rows = warehouse.query(
        "select distinct symbol from silver.trades"  # noqa: S608 - numbers
        f" where session_id not in ({_sessions(parts)}) order by symbol"
    )
    return Sample(tuple(parts), tuple(row[0] for row in rows))


def sample_condition(table: ComparedTable, sample: Sample | None) -> str:
    """Which of a table's rows are compared, on both sides.

    A session is on one partition. Records that name no session are compared in bronze only.
    """
    if sample is None:
        return "true"
    # Silver takes no symbol that holds a quote.
    elsewhere = ", ".join(f"'{symbol}'" for symbol in sample.elsewhere) or "''"
    return {
        "part": _of(sample.parts),
        "session_id": f"session_id in ({_sessions(sample.parts)})",
        "symbol": f"symbol not in ({elsewhere})",
    }[table.sampled_by]


def _of(parts: Sequence[int]) -> str:
    return f"part in ({', '.join(map(str, parts))})"


def _sessions(parts: Sequence[int]) -> str:
    return " union ".join(
        f"select session_id from bronze.{stream} where session_id is not null and {_of(parts)}"  # noqa: S608
        for stream in Stream
    )


def freeze(
    warehouse: WarehouseReader,
    *,
    sleep: Callable[[float], None],
    attempts: int = 120,
    sample: Sample | None = None,
) -> Frozen:
    """Take the digest of every table in one statement: it may be built further meanwhile.

    Args:
        warehouse: what is compared later.
        sleep: used while it is in the middle of a build.
        attempts: how often to look for a moment between two builds.
        sample: what alone is compared; None: everything.

    Raises:
        ConfigError: it was never built, or is always in the middle of a build.
    """
    if not has_table(warehouse, "gold", "completeness"):
        raise ConfigError("nothing to compare with: silver and gold have not been built yet")
    has_repeats = bool(warehouse.query("select 1 from silver.repeated_frames limit 1"))
    tables = _tables(sample)
    columns = {table.name: _columns(warehouse, table, has_repeats) for table in tables}
    digests_sql = " union all ".join(
        f"select '{table.name}' as name, d.* from ({_digest_at(table, columns, sample)}) as d"  # noqa: S608
        for table in tables
    )
    for _ in range(attempts):
        rows = warehouse.query(f"select {LEVEL}, t.* from ({digests_sql}) as t")  # noqa: S608
        if rows[0][0] is not None:
            digests = {row[1]: Digest(*row[2:]) for row in rows}
            return Frozen(int(rows[0][0]), columns, digests, sample)
        sleep(PAUSE_S)
    raise ConfigError("the models of the warehouse never stood at one load; build it first")


def _digest_at(
    table: ComparedTable, columns: Mapping[str, Sequence[str]], sample: Sample | None
) -> str:
    """Of rows that are appended, those that all models have seen."""
    where = f"load_id <= {LEVEL}" if table.is_appended else "true"
    return digest_sql(
        table.name, columns[table.name], _both(where, sample_condition(table, sample))
    )


def _both(condition: str, other: str) -> str:
    return condition if other == "true" else f"{condition} and {other}"


def _columns(side: WarehouseReader, table: ComparedTable, has_repeats: bool) -> list[str]:  # noqa: FBT001
    left_out = RUN_COLUMNS
    if table.is_by_frame and has_repeats:
        left_out |= POSITION_COLUMNS
    rows = side.query(
        "select column_name from information_schema.columns"
        " where table_schema = ? and table_name = ? order by column_name",
        tuple(table.name.split(".")),
    )
    return [row[0] for row in rows if row[0] not in left_out]


class Comparison:
    """Compares a warehouse with one that was rebuilt up to the same load.

    Args:
        original: what is checked; asked again only to name differences.
        frozen: what it held.
        rebuilt: what was derived from the lake alone.
    """

    def __init__(self, original: WarehouseReader, frozen: Frozen, rebuilt: WarehouseReader) -> None:
        self._original = original
        self._frozen = frozen
        self._rebuilt = rebuilt

    def compare(self, table: ComparedTable) -> TableComparison:
        """Compare one table."""
        columns, here = self._frozen.columns[table.name], self._frozen.digests[table.name]
        try:
            sampled = sample_condition(table, self._frozen.sample)
            there = Digest(*self._rebuilt.query(digest_sql(table.name, columns, sampled))[0])
        except ConfigError as error:
            return TableComparison(table.name, False, here.rows, 0, [f"rebuilt: {error}"])
        if here == there:
            return TableComparison(table.name, True, here.rows, there.rows, [])
        where = f"load_id <= {self._frozen.load_id}" if table.is_appended else "true"
        where = _both(where, sampled)
        if not table.is_appended and self._has_moved():
            text = "the rows differ; which, can be told when nothing builds: stop `up` and repeat"
            return TableComparison(table.name, False, here.rows, there.rows, [text])
        differences = self._differences(table, columns, where)
        is_close = table.is_float and here.rows == there.rows and not differences
        if not is_close and not differences:
            differences = ["the rows differed, and no longer do: was it changed by hand?"]
        return TableComparison(table.name, is_close, here.rows, there.rows, differences)

    def _has_moved(self) -> bool:
        return self._original.query(f"select {LEVEL}")[0][0] != self._frozen.load_id

    # -- naming differences ------------------------------------------------------------------

    def _differences(self, table: ComparedTable, columns: Sequence[str], where: str) -> list[str]:
        """Groups whose rows differ, with sample rows of the first ones."""
        here = self._groups(self._original, table, columns, where)
        sampled = sample_condition(table, self._frozen.sample)
        there = self._groups(self._rebuilt, table, columns, sampled)
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
