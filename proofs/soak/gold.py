"""Gold against that of the embedded road, run on a copy of the same spool."""

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from proofs.soak.verbs import run_verb
from tickhouse.audit.compare import (
    AS_WRITTEN,
    POSITION_COLUMNS,
    RUN_COLUMNS,
    TABLES,
    Comparison,
    column_types,
    freeze,
    hashing_of,
)
from tickhouse.audit.digest import Digest
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.warehouse import WarehouseReader

BY_COLUMNS: Final = (
    "gold.completeness",
    "silver.trades",
    "silver.rejected_trades",
    "silver.quotes",
    "silver.rejected_quotes",
    "silver.sessions",
    "silver.gaps",
)
"""Compared without log positions, which Kafka's markers shift, and without repeats."""
OF_THE_LOG: Final = ("silver.repeated_frames",)
"""Not compared: which deliveries were repeats, by their positions in the log."""
DELIVERY_COLUMNS: Final = frozenset({"frames_repeated"})
"""How often a frame was delivered is the log's matter: a topic made anew is sent frames again."""


class GoldVerdict(msgspec.Struct, frozen=True):
    """How gold and silver compare, run columns (and positions, in silver) aside.

    Attributes:
        equal: every row of every table is there on both sides, and there are some.
        tables: rows of each.
        differences: what differs, in words.
    """

    equal: bool
    tables: dict[str, int]
    differences: list[str]


def copy_spool(spool: Path, data: Path) -> None:
    """A consistent copy of a spool as a data folder's log."""
    target = data / "log" / "log.db"
    target.parent.mkdir(parents=True)
    with (
        contextlib.closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as here,
        contextlib.closing(sqlite3.connect(target)) as there,
    ):
        here.backup(there)


def run_embedded(spool: Path, data: Path, logs: Path) -> None:
    """The default backends over a copy of the spool: land, load and build to the end."""
    shutil.rmtree(data, ignore_errors=True)
    copy_spool(spool, data)
    environment = {"TICKHOUSE_DATA": str(data)}
    for verb in ("land", "refine"):
        run_verb([verb, "--once"], environment, logs / f"embedded-{verb}.log")


def open_embedded(data: Path) -> contextlib.closing[DuckDBWarehouse]:
    """The warehouse of a data folder that nobody has open."""
    return contextlib.closing(DuckDBWarehouse(data / "warehouse" / "warehouse.duckdb"))


def compare(cluster: WarehouseReader, embedded: WarehouseReader) -> GoldVerdict:
    """Every table of silver and gold that follows from the frames, and not from a run's times."""
    comparison = Comparison(cluster, freeze(cluster, sleep=lambda _s: None), embedded)
    tables: dict[str, int] = {}
    differences: list[str] = []
    for table in TABLES:
        is_exact = table.name.startswith(("silver.", "gold."))
        if is_exact and table.name not in (*BY_COLUMNS, *OF_THE_LOG):
            found = comparison.compare(table)
            tables[table.name] = found.rows
            differences += [] if found.identical else [f"{table.name}: {found.differences}"]
    for name in BY_COLUMNS:
        here, there = (_digest(side, cluster, name) for side in (cluster, embedded))
        tables[name] = here.rows
        differences += [] if here == there else [f"{name}: {here} {there}"]
    is_filled = bool(tables["gold.bars_1m"] and tables["silver.trades"])
    return GoldVerdict(not differences and is_filled, tables, differences)


def _digest(side: WarehouseReader, cluster: WarehouseReader, name: str) -> Digest:
    """One side's rows of a table, hashed as both sides can."""
    hashing = hashing_of(cluster, side)
    left_out = RUN_COLUMNS | POSITION_COLUMNS | DELIVERY_COLUMNS
    if hashing.is_common:
        left_out |= AS_WRITTEN
    types = column_types(side)[name]
    columns = {column: kind for column, kind in types.items() if column not in left_out}
    return Digest(*side.query(hashing.digest_sql(name, columns))[0])
