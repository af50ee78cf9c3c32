"""Gold against that of the embedded road, run on a copy of the same spool."""

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from proofs.soak.verbs import run_verb
from tickhouse.audit.compare import (
    POSITION_COLUMNS,
    RUN_COLUMNS,
    TABLES,
    Comparison,
    freeze,
)
from tickhouse.audit.digest import Hashing
from tickhouse.warehouse.duckdb import DuckDBWarehouse

BY_COLUMNS: Final = (
    "gold.completeness",
    "silver.trades",
    "silver.rejected_trades",
    "silver.quotes",
    "silver.sessions",
    "silver.gaps",
)
"""Compared without log positions, which Kafka's markers shift, and without repeats."""
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


def compare(cluster: Path, embedded: Path) -> GoldVerdict:
    """Tables of two warehouses' files that nobody has open."""
    with (
        contextlib.closing(DuckDBWarehouse(cluster)) as here,
        contextlib.closing(DuckDBWarehouse(embedded)) as there,
    ):
        comparison = Comparison(here, freeze(here, sleep=lambda _s: None), there)
        tables: dict[str, int] = {}
        differences: list[str] = []
        for table in TABLES:
            if table.name.startswith("gold.") and table.name not in BY_COLUMNS:
                found = comparison.compare(table)
                tables[table.name] = found.rows
                differences += [] if found.identical else [f"{table.name}: {found.differences}"]
        for name in BY_COLUMNS:
            sql = Hashing("duckdb").digest_sql(name, _columns(here, name))
            digests = [side.query(sql)[0] for side in (here, there)]
            tables[name] = digests[0][0]
            differences += [] if digests[0] == digests[1] else [f"{name}: {digests}"]
    is_filled = bool(tables["gold.bars_1m"] and tables["silver.trades"])
    return GoldVerdict(not differences and is_filled, tables, differences)


def _columns(side: DuckDBWarehouse, name: str) -> dict[str, str]:
    """What is compared, with its types."""
    rows = side.query(
        "select column_name, data_type from information_schema.columns"
        " where table_schema = ? and table_name = ? order by column_name",
        tuple(name.split(".")),
    )
    left_out = RUN_COLUMNS | POSITION_COLUMNS | DELIVERY_COLUMNS
    return {row[0]: row[1] for row in rows if row[0] not in left_out}
