"""A road on real servers: topics and a bucket of its own, and the settings that name them."""

from pathlib import Path
from typing import Any

from proofs.kills import Road
from tests.servers.kafka import KafkaServer
from tests.servers.s3 import S3Server
from tickhouse.audit.compare import POSITION_COLUMNS, RUN_COLUMNS, TABLES
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.topics import Topics
from tickhouse.warehouse.duckdb import DuckDBWarehouse

RETENTION_MS = 24 * 3600 * 1000
COMPARED = tuple(t.name for t in TABLES if t.name.startswith(("silver.", "gold.")))


class Cluster:
    """Topics and a bucket that no other test has.

    Args:
        kafka, store: running servers.
        prefix: of the topics.
        bucket: name of the bucket.
        partitions: of each topic.
    """

    def __init__(
        self, kafka: KafkaServer, store: S3Server, prefix: str, bucket: str, *, partitions: int = 2
    ) -> None:
        self.kafka = kafka
        self.options = KafkaOptions(bootstrap=kafka.bootstrap, prefix=prefix)
        self.topics = Topics(self.options)
        self.topics.ensure(partitions=partitions, replication=1, retention_ms=RETENTION_MS)
        store.make_bucket(bucket)
        self.lake = f"s3://{bucket}/lake?endpoint={store.endpoint}"
        self.store = store

    def road(self, data: Path, source: str, **settings: object) -> Road:
        """The road over this log and this lake."""
        given = {"log": self.options.url, "lake": self.lake, **settings}
        road = Road(data, source, **given)
        road.environment |= self.store.credentials
        return road


def rows_by_table(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of silver and gold, without what differs from run to run, or from log to log."""
    warehouse = DuckDBWarehouse(database)
    try:
        return {name: _rows(warehouse, name) for name in COMPARED}
    finally:
        warehouse.close()


def _rows(warehouse: DuckDBWarehouse, table: str) -> list[tuple[Any, ...]]:
    left_out = RUN_COLUMNS | POSITION_COLUMNS
    columns = [row[0] for row in warehouse.query(f"describe {table}") if row[0] not in left_out]
    return warehouse.query(f"select {', '.join(columns)} from {table} order by all")
