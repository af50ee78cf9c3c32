"""Where each stage is, read from the outputs themselves; and whether all are level."""

from pathlib import Path
from typing import Any

import msgspec

from tickhouse.bronze.restored import choose_chain
from tickhouse.bronze.store import Store
from tickhouse.errors import TickhouseError
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.runtime import backends
from tickhouse.settings import Settings
from tickhouse.stream.log import LogReader
from tickhouse.transform.published import PublishedGold


class Status(msgspec.Struct, frozen=True):
    """A stage's status file."""

    stage: str
    pid: int
    state: str
    at_ms: int
    facts: dict[str, Any] = {}

    @property
    def is_alive(self) -> bool:
        """Whether the process that wrote it still runs."""
        return self.state != "stopped" and Path(f"/proc/{self.pid}").exists()


def read_statuses(run_folder: Path) -> dict[str, Status]:
    """The status file of each stage that ever ran here."""
    found: dict[str, Status] = {}
    for path in sorted(run_folder.glob("*.json")):
        try:
            status = msgspec.json.decode(path.read_bytes(), type=Status)
        except (FileNotFoundError, msgspec.DecodeError):
            continue
        found[status.stage] = status
    return found


class PartitionLevel(msgspec.Struct, frozen=True):
    """How far each stage is in one partition; -1 where its output has nothing of it."""

    partition: str
    log_end: int
    landed: int
    published: int


def partition_levels(settings: Settings) -> list[PartitionLevel]:
    """Positions downstream first, so that nothing seems to run ahead of its source."""
    published = _published_positions(PublishedGold(settings.gold_folder))
    log = backends.open_log_reader(settings)
    store = backends.open_store(settings)
    try:
        return [_level(log, store, partition, published) for partition in log.partitions()]
    finally:
        log.close()


def _published_positions(gold: PublishedGold) -> dict[ChainId, int]:
    try:
        manifest = gold.manifest()
    except TickhouseError:
        return {}
    return {} if manifest is None else manifest.chain_positions()


def _level(
    log: LogReader, store: Store, partition: TopicPartition, published: dict[ChainId, int]
) -> PartitionLevel:
    chain = choose_chain(log, store, partition, log.topic_id(partition))
    return PartitionLevel(
        partition=str(partition),
        log_end=log.bounds(partition).end,
        landed=chain.tail(),
        published=published.get(chain.id, -1),
    )


def is_level(settings: Settings) -> bool:
    """Whether published gold covers the whole log."""
    levels = partition_levels(settings)
    return bool(levels) and all(level.published >= level.log_end for level in levels)
