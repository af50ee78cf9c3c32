"""A small road with everything in it, and ways to damage a copy of it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from proofs.stages import Stages
from support.polled import PolledFeed, good_answers
from tickhouse.audit.audit import audit
from tickhouse.audit.report import AuditReport, LayerReport
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.local import LocalStore
from tickhouse.model.positions import ChainId, Stream
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.stream.sqlite import SqliteReader
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader
from tickhouse.warehouse.warehouse import WarehouseReader

FINNHUB = Path(__file__).parents[1] / "data" / "finnhub"
SIMULATOR = "sim://sp500?symbols=6&shards=2&rate=max&seed=7&frames="


def make_road(folder: Path) -> None:
    """Simulated and recorded frames, in many objects, loaded and built in several steps."""
    stages = Stages(folder)
    stages.loader = Loader(stages.store, stages.warehouse, objects_max=9)
    stages.record(open_feed(f"replay:{FINNHUB}?speed=max"))
    stages.record(PolledFeed(good_answers(11)))
    for frames in range(100, 600, 100):
        options = FeedOptions(truth_path=folder / "truth.json")
        stages.record(open_feed(f"{SIMULATOR}{frames}", options))
    while stages.loader.load_once().load_id is not None:
        stages.publisher.publish(stages.builder.build().load_id)
    stages.close()


class Road:
    """A copy of a road that nothing runs on.

    Args:
        template: folder of the road.
        folder: for the copy.
    """

    def __init__(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder)
        self.folder = folder
        self.store = LocalStore(folder / "lake")

    @property
    def database(self) -> Path:
        return self.folder / "warehouse" / "warehouse.duckdb"

    def audit(
        self,
        *,
        gold: bool = False,
        truth: bool = False,
        warehouse: WarehouseReader | None = None,
        **options: Any,
    ) -> AuditReport:
        """By the road's own warehouse, or another that should hold the same."""
        with (
            closing(DuckDBWarehouse(self.database)) as own,
            closing(SqliteReader(self.folder / "log" / "log.db")) as log,
        ):
            return audit(
                log=log,
                store=self.store,
                warehouse=warehouse or own,
                gold=PublishedGold(self.folder / "gold") if gold else None,
                truth_path=self.folder / "truth.json" if truth else None,
                sleep=lambda _seconds: None,
                **options,
            )

    def chain(self, stream: Stream = Stream.TRADES, part: int = 0) -> ChainId:
        return next(c for c in find_chains(self.store) if (c.stream, c.part) == (stream, part))

    def objects(self, stream: Stream = Stream.TRADES, part: int = 0) -> list[tuple[str, Any]]:
        """Keys and manifests of a chain."""
        return list(Chain(self.store, self.chain(stream, part)).walk())

    def object_path(self, key: str) -> Path:
        return self.folder / "lake" / key

    def rewrite_object(self, key: str, body: bytes) -> None:
        path = self.object_path(key)
        path.unlink()
        path.write_bytes(body)

    def change(self, *statements: str) -> None:
        """What nobody may do to a warehouse."""
        with duckdb.connect(self.database) as connection:
            for statement in statements:
                connection.execute(statement)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.database) as connection:
            return connection.execute(sql).fetchall()

    @contextmanager
    def log_file(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.folder / "log" / "log.db")) as connection, connection:
            yield connection


def first_row(table: str, condition: str = "true") -> str:
    """A condition that one row of a table passes."""
    return f"rowid = (select min(rowid) from {table} where {condition})"


def layer(report: AuditReport, name: str) -> LayerReport:
    return next(found for found in report.layers if found.name == name)


def bad_layers(report: AuditReport) -> list[str]:
    return [found.name for found in report.layers if not found.ok]


def texts(report: AuditReport, name: str) -> str:
    """All findings of a layer, as one text."""
    return "\n".join(f"{f.kind}: {f.where}: {f.text}" for f in layer(report, name).findings)
