"""Two warehouses compared table by table, through questions alone, whoever owns their files."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from tickhouse.audit.digest import Digest, Hashing, group_text
from tickhouse.audit.positions import has_table
from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.transform.level import LEVEL
from tickhouse.warehouse.dialect import column_name
from tickhouse.warehouse.warehouse import Row, WarehouseReader

PLACES_MAX: Final = 10
SAMPLE_ROWS: Final = 3
PAUSE_S: Final = 0.5
FLOAT_TOLERANCE: Final = 1e-12
RUN_COLUMNS: Final = frozenset({"load_id", "loaded_at", "built_at", "revision"})
"""What differs from run to run, by design."""
POSITION_COLUMNS: Final = frozenset({"topic_id", "part", "log_offset", "log_at"})
"""Of a frame that was delivered twice, either delivery may be the one that counts."""
AS_WRITTEN: Final = frozenset({"payload"})
"""Between two engines not compared: each writes the same JSON in its own way."""


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
        columns: of each table, those that are compared, with their types.
        digests: of each table.
        sample: what alone is compared; None: everything.
    """

    load_id: int
    columns: dict[str, dict[str, str]]
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
    hashing = hashing_of(warehouse)
    types = column_types(warehouse)
    columns = {
        table.name: _compared(types.get(table.name, {}), table, hashing, has_repeats=has_repeats)
        for table in _tables(sample)
    }
    parts = " union all ".join(
        f"select '{table.name}' as name, d.* from ({digest}) as d"  # noqa: S608
        for table in _tables(sample)
        for digest in [
            hashing.digest_sql(table.name, columns[table.name], _rows_of(table, LEVEL, sample))
        ]
    )
    for _ in range(attempts):
        rows = warehouse.query(f"select {LEVEL} as level, t.* from ({parts}) as t")  # noqa: S608
        if rows[0][0] is not None:
            digests = {row[1]: Digest(*row[2:]) for row in rows}
            return Frozen(int(rows[0][0]), columns, digests, sample)
        sleep(PAUSE_S)
    raise ConfigError("the models of the warehouse never stood at one load; build it first")


def hashing_of(original: WarehouseReader, side: WarehouseReader | None = None) -> Hashing:
    """How to hash a side (by default the original); what it is compared with is DuckDB's."""
    return Hashing((side or original).dialect, is_common=original.dialect != "duckdb")


def _rows_of(table: ComparedTable, level: str, sample: Sample | None) -> str:
    """Which rows are compared: of appended ones those that all models have seen."""
    conditions = [f"load_id <= {level}"] if table.is_appended else []
    return " and ".join([*conditions, sample_condition(table, sample)])


def column_types(side: WarehouseReader) -> dict[str, dict[str, str]]:
    """Types of the columns of every table, by name."""
    rows = side.query(
        "select lower(table_schema), lower(table_name), lower(column_name), data_type"
        " from information_schema.columns"
        " where lower(table_schema) in ('bronze', 'silver', 'gold') order by 1, 2, 3"
    )
    found: dict[str, dict[str, str]] = {}
    for schema, table, column, data_type in rows:
        found.setdefault(f"{schema}.{table}", {})[column] = data_type
    return found


def _compared(
    types: Mapping[str, str], table: ComparedTable, hashing: Hashing, *, has_repeats: bool
) -> dict[str, str]:
    left_out = RUN_COLUMNS
    if table.is_by_frame and has_repeats:
        left_out |= POSITION_COLUMNS
    if hashing.is_common:
        left_out |= AS_WRITTEN
    return {name: kind for name, kind in types.items() if name not in left_out}


class _Side:
    """One table of one of the two warehouses.

    Args:
        reader: the warehouse.
        hashing: how its rows are hashed.
        table: the table.
        columns: what is compared, with the types that this side has.
        where: condition for the rows that are compared.
    """

    def __init__(
        self,
        reader: WarehouseReader,
        hashing: Hashing,
        table: ComparedTable,
        columns: Mapping[str, str],
        where: str,
    ) -> None:
        self._reader = reader
        self._hashing = hashing
        self._table = table
        self._columns = columns
        self._where = where
        self._cells = ", ".join(column_name(hashing.dialect, column) for column in columns)
        self._hash = f"cast({hashing.row_hash(columns)} as varchar)"

    def digest(self) -> Digest:
        """Of all rows."""
        sql = self._hashing.digest_sql(self._table.name, self._columns, self._where)
        return Digest(*self._reader.query(sql)[0])

    def groups(self) -> dict[str, Digest]:
        """Of each group of rows."""
        table = self._table
        sql = self._hashing.group_digest_sql(table.name, self._columns, table.group, self._where)
        return {row[0]: Digest(*row[1:]) for row in self._reader.query(sql)}

    def rows(self, place: str) -> list[Row]:
        """The rows of a group, in order."""
        return self._ask(self._cells, place, more=f" order by {self._cells}")

    def hashes(self, place: str) -> set[str]:
        """Of each row of a group."""
        return {row[0] for row in self._ask(self._hash, place, more=" limit 500000")}

    def with_hashes(self, place: str, hashes: Sequence[str]) -> list[Row]:
        """Those rows of a group."""
        if not hashes:
            return []
        more = f" and {self._hash} in ({', '.join('?' * len(hashes))})"
        return self._ask(self._cells, place, *hashes, more=more)

    def _ask(self, wanted: str, *parameters: str, more: str) -> list[Row]:
        sql = (
            f"select {wanted} from {self._table.name}"  # noqa: S608 - names of ours
            f" where {self._where} and {group_text(self._table.group)} = ?{more}"
        )
        return self._reader.query(sql, parameters)


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
        self._rebuilt_types = column_types(rebuilt)

    def compare(self, table: ComparedTable) -> TableComparison:
        """Compare one table."""
        digest = self._frozen.digests[table.name]
        here, there = self._sides(table)
        try:
            rebuilt = there.digest()
        except ConfigError as error:
            return TableComparison(table.name, False, digest.rows, 0, [f"rebuilt: {error}"])
        if digest == rebuilt:
            return TableComparison(table.name, True, digest.rows, rebuilt.rows, [])
        if not table.is_appended and self._has_moved():
            text = "the rows differ; which, can be told when nothing builds: stop `up` and repeat"
            return TableComparison(table.name, False, digest.rows, rebuilt.rows, [text])
        differences = _differences(table, here, there, list(self._frozen.columns[table.name]))
        is_close = table.is_float and digest.rows == rebuilt.rows and not differences
        if not is_close and not differences:
            differences = ["the rows differed, and no longer do: was it changed by hand?"]
        return TableComparison(table.name, is_close, digest.rows, rebuilt.rows, differences)

    def _sides(self, table: ComparedTable) -> tuple[_Side, _Side]:
        columns = self._frozen.columns[table.name]
        sample = self._frozen.sample
        where = _rows_of(table, str(self._frozen.load_id), sample)
        here = _Side(self._original, hashing_of(self._original), table, columns, where)
        types = self._rebuilt_types.get(table.name, {})
        known = {name: types.get(name, kind) for name, kind in columns.items()}
        hashing = hashing_of(self._original, self._rebuilt)
        rebuilt = sample_condition(table, sample)
        return here, _Side(self._rebuilt, hashing, table, known, rebuilt)

    def _has_moved(self) -> bool:
        return self._original.query(f"select {LEVEL} as level")[0][0] != self._frozen.load_id


def _differences(
    table: ComparedTable, here: _Side, there: _Side, columns: Sequence[str]
) -> list[str]:
    """Groups whose rows differ, with sample rows of the first ones."""
    held, rebuilt = here.groups(), there.groups()
    places = sorted(place for place in {*held, *rebuilt} if held.get(place) != rebuilt.get(place))
    found: list[str] = []
    for place in places:
        if table.is_float and _are_close(here.rows(place), there.rows(place)):
            continue
        if len(found) >= PLACES_MAX:
            return [*found, f"… and more, in {len(places)} places altogether"]
        counts = [side.get(place, Digest(0, "")).rows for side in (held, rebuilt)]
        samples = _samples(here, there, place, columns) if len(found) < SAMPLE_ROWS else ""
        found.append(f"{place}: {counts[0]} rows, rebuilt {counts[1]}{samples}")
    return found


def _samples(here: _Side, there: _Side, place: str, columns: Sequence[str]) -> str:
    """Rows of one group that only one side has, a few of each."""
    held, rebuilt = here.hashes(place), there.hashes(place)
    only = (
        (here, held - rebuilt, "only here"),
        (there, rebuilt - held, "only rebuilt"),
    )
    text = ""
    for side, hashes, label in only:
        for row in side.with_hashes(place, sorted(hashes)[:SAMPLE_ROWS]):
            text += f"\n    {label}: {dict(zip(columns, row, strict=True))}"
    return text


def _are_close(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    return len(rows) == len(others) and all(
        _close(a, b)
        for row, other in zip(rows, others, strict=True)
        for a, b in zip(row, other, strict=True)
    )


def _close(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=FLOAT_TOLERANCE, abs_tol=0.0)
    return a == b
