"""All stages in one process, stepped by hand: for tests, proofs and measurements."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from tickhouse.audit.audit import audit
from tickhouse.audit.report import AuditReport
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.local import LocalStore
from tickhouse.source.feed import Feed
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog, SqliteReader
from tickhouse.transform.builder import Builder, duckdb_target
from tickhouse.transform.published import PublishedGold
from tickhouse.transform.publisher import Publisher
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader


class Stages:
    """All stages over one data folder, laid out as the command line does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SqliteLog(folder / "log" / "log.db")
        self.reader = SqliteReader(folder / "log" / "log.db")
        self.store = LocalStore(folder / "lake")
        self.lander = Lander(self.reader, self.store)
        self.warehouse = DuckDBWarehouse(folder / "warehouse" / "warehouse.duckdb")
        self.warehouse.prepare()
        self.loader = Loader(self.store, self.warehouse)
        self.builder = Builder(
            connect=self.warehouse.cursor,
            target=duckdb_target(self.warehouse.path),
            work_folder=folder / "warehouse" / "dbt",
        )
        self.builder.prepare()
        self.publisher = Publisher(
            folder / "gold",
            query=self.warehouse.query,
            copy_to_parquet=self.warehouse.copy_to_parquet,
        )

    def record(self, feed: Feed) -> None:
        """Record until drained, then land."""
        self.only_record(feed)
        self.lander.drain()

    def only_record(self, feed: Feed) -> None:
        """Record until drained."""
        asyncio.run(Recorder(feed, self.log).run(asyncio.Event()))

    def refine(self) -> float:
        """One cycle of load, build and publish; seconds."""
        started = time.perf_counter()
        self.loader.load_all()
        built = self.builder.build()
        self.publisher.publish(built.load_id)
        return time.perf_counter() - started

    def audit(self, *, truth: bool = False) -> AuditReport:
        """Every layer, read deeply."""
        return audit(
            log=self.reader,
            store=self.store,
            warehouse=self.warehouse,
            gold=PublishedGold(self.folder / "gold"),
            truth_path=self.folder / "truth.json" if truth else None,
            deep=True,
        )

    def close(self) -> None:
        """Release everything; the folder stays."""
        self.builder.close()
        self.warehouse.close()
        self.reader.close()
        self.log.close()


class TemporaryStages(Stages):
    """Stages over a new temporary folder, which goes with them."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="tickhouse-bench-")))

    def close(self) -> None:
        """Release everything and remove the folder."""
        super().close()
        shutil.rmtree(self.folder)
