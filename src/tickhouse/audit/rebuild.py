"""`rebuild`: warehouse, silver and gold derived again from the lake alone, and compared."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Final, Protocol, TypeVar

import msgspec

from tickhouse.audit.compare import (
    Comparison,
    Frozen,
    Sample,
    TableComparison,
    choose_sample,
    freeze,
)
from tickhouse.audit.report import Progress, no_progress
from tickhouse.bronze.store import Store
from tickhouse.errors import ConfigError
from tickhouse.model.positions import ChainId, Stream
from tickhouse.transform.builder import BuildResult
from tickhouse.warehouse.loader import Loader
from tickhouse.warehouse.warehouse import Warehouse, WarehouseReader

LOAD_BYTES: Final = 256 << 20
LOAD_OBJECTS: Final = 1000
WAREHOUSE: Final = Path("warehouse") / "warehouse.duckdb"
"""Where the rebuilt warehouse lies in its folder: as in a data folder."""


NewWarehouse = TypeVar("NewWarehouse", bound=Warehouse)


class Builds(Protocol):
    """What is needed of a builder."""

    def build(self) -> BuildResult:
        """Bring silver and gold level with the newest load."""
        ...

    def close(self) -> None:
        """Release the warehouse."""
        ...


class RebuildReport(msgspec.Struct, frozen=True):
    """What a rebuild did and found.

    Attributes:
        identical: every table is; None where nothing was compared.
        objects, rows: loaded from the lake.
        load_id: load of the original that it was compared at.
        tables: one comparison a table.
        sample: partitions that were rebuilt; None: all.
        problems: what kept the rebuild from getting to the same position.
        seconds: how long it took.
    """

    identical: bool | None
    objects: int
    rows: int
    load_id: int | None
    tables: list[TableComparison]
    problems: list[str]
    seconds: float
    sample: list[int] | None = None


class _Rebuilt:
    """The new warehouse, brought forward from the lake."""

    def __init__(self, store: Store, warehouse: Warehouse, builder: Builds) -> None:
        self.warehouse = warehouse
        self._store = store
        self._builder = builder
        self.objects = 0
        self.rows = 0

    def advance(self, until: Mapping[ChainId, int] | None, progress: Progress) -> list[str]:
        """Load up to these positions and build; returns what could not be loaded."""
        loader = Loader(
            self._store,
            self.warehouse,
            bytes_max=LOAD_BYTES,
            objects_max=LOAD_OBJECTS,
            until=until,
        )
        while (loaded := loader.load_once()).load_id is not None:
            self.objects += loaded.objects
            self.rows += loaded.rows
            progress("load", self.rows, None)
        progress("build", 0, None)
        self._builder.build()
        return [*sorted(loader.alarms.values()), *self._unreached(until)]

    def _unreached(self, until: Mapping[ChainId, int] | None) -> list[str]:
        ends = self.warehouse.positions()
        return [
            f"{chain.prefix}: rebuilt up to {ends.get(chain, 0)} of {end}"
            for chain, end in sorted((until or {}).items())
            if ends.get(chain, 0) != end
        ]


def rebuild(  # noqa: PLR0913 - all by name
    *,
    store: Store,
    folder: Path,
    make_warehouse: Callable[[Path], NewWarehouse],
    make_builder: Callable[[NewWarehouse, Path], Builds],
    compare_with: WarehouseReader | None = None,
    sample: int | None = None,
    progress: Progress = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> RebuildReport:
    """Derive a new warehouse from the lake and compare it, at the same position.

    What the original held is noted first, so that it may go on meanwhile.

    Args:
        store: the lake, the only source.
        folder: for the new warehouse; missing or empty. It stays.
        make_warehouse: opens a new warehouse at a path.
        make_builder: makes its builder, with a folder for its work.
        compare_with: the warehouse in use, or its owner's answers; None: everything in the lake is
            rebuilt and nothing compared.
        sample: rebuild so many partitions only, chosen anew each time; None: all.
        progress: told how far it is.
        sleep: used while the original is in the middle of a build.

    Raises:
        ConfigError: the folder is not empty, or the original was never built.
        CorruptObjectError: of the lake.
    """
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose a new folder to rebuild into")
    chosen, frozen, until = None, None, None
    if compare_with is not None:
        chosen = None if sample is None else _choose(compare_with, sample)
        frozen = freeze(compare_with, sleep=sleep, sample=chosen)
        until = _ends(compare_with, frozen)
    (folder / WAREHOUSE).parent.mkdir(parents=True, exist_ok=True)
    warehouse = make_warehouse(folder / WAREHOUSE)
    try:
        warehouse.prepare()
        builder = make_builder(warehouse, folder / "warehouse" / "dbt")
        try:
            rebuilt = _Rebuilt(store, warehouse, builder)
            problems = rebuilt.advance(until, progress)
            tables: list[TableComparison] = []
            if compare_with is not None and frozen is not None:
                tables = _compare(compare_with, frozen, warehouse, progress)
        finally:
            builder.close()
    finally:
        warehouse.close()
    is_same = not problems and all(table.identical for table in tables)
    return RebuildReport(
        identical=None if frozen is None else is_same,
        objects=rebuilt.objects,
        rows=rebuilt.rows,
        load_id=None if frozen is None else frozen.load_id,
        tables=tables,
        problems=problems,
        seconds=round(time.monotonic() - started, 3),
        sample=None if chosen is None else list(chosen.parts),
    )


def _choose(warehouse: WarehouseReader, count: int) -> Sample:
    """Some of the partitions, so that each has its turn sooner or later."""
    rows = warehouse.query("select distinct part from bronze.load_ledger where n > 0")
    parts = SystemRandom().sample([row[0] for row in rows], min(count, len(rows)))
    return choose_sample(warehouse, sorted(parts))


def _ends(warehouse: WarehouseReader, frozen: Frozen) -> dict[ChainId, int]:
    """The ledger's end of each chain that is rebuilt, when the original was frozen."""
    rows = warehouse.query(
        "select stream, topic, topic_id, part, max(next_offset) from bronze.load_ledger"
        " where load_id <= ? group by stream, topic, topic_id, part",
        (frozen.load_id,),
    )
    chains = {ChainId(Stream(row[0]), row[1], row[2], row[3]): row[4] for row in rows}
    return {
        chain: end
        for chain, end in chains.items()
        if frozen.sample is None or chain.part in frozen.sample.parts
    }


def _compare(
    original: WarehouseReader, frozen: Frozen, rebuilt: WarehouseReader, progress: Progress
) -> list[TableComparison]:
    comparison = Comparison(original, frozen, rebuilt)
    found: list[TableComparison] = []
    for table in frozen.tables:
        progress(f"compare {table.name}", len(found), len(frozen.tables))
        found.append(comparison.compare(table))
    return found


def describe_rebuild(report: RebuildReport) -> str:
    """The report for people."""
    lines = [f"rebuilt {report.rows:,} rows of {report.objects:,} objects from the lake"]
    if report.sample is not None:
        lines.append(f"a sample: partitions {', '.join(map(str, report.sample))}")
    lines += [f"BAD  {problem}" for problem in report.problems]
    for table in report.tables:
        rows = f"{table.rows:>12,} rows, rebuilt {table.rows_rebuilt:,}"
        lines.append(f"{'same' if table.identical else 'BAD '} {table.name:<24} {rows}")
        lines += [f"       {difference}" for difference in table.differences]
    verdict = {None: "not compared", True: "identical", False: "NOT IDENTICAL"}[report.identical]
    return "\n".join([*lines, f"rebuild: {verdict}; {report.seconds:.1f} s"])
