"""Where each stage is, read from the outputs themselves; and whether all are level."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickhouse.bronze.restored import choose_end, holds_records
from tickhouse.errors import CorruptLogError, TickhouseError
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.runtime import backends
from tickhouse.runtime.gold import open_gold
from tickhouse.settings import Settings
from tickhouse.stream.newest import relayed_end

if TYPE_CHECKING:
    from tickhouse.transform.published import PublishedGold
    from tickhouse.transform.warehouse_gold import WarehouseGold


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
    """How far each stage is in one partition; -1 where its output has nothing of it.

    Attributes:
        partition: stream and shard.
        spool_end: end of this machine's spool; None where the log is its own spool.
        relayed: spool offset up to which the log has everything; None as above.
        log_end: end of the log.
        landed, published: log offsets up to which lake and gold (as readers see it) hold all.
        waiting: whether the log holds records that are not published. Offsets alone do not tell:
            markers of transactions take some, and are not landed by themselves.
    """

    partition: str
    log_end: int
    landed: int
    published: int
    spool_end: int | None = None
    relayed: int | None = None
    waiting: bool = False

    @property
    def spool_lag(self) -> int:
        """Records that wait in the spool."""
        return max(0, (self.spool_end or 0) - (self.relayed or 0))

    @property
    def log_lag(self) -> int:
        """Offsets that wait in the log."""
        return max(0, self.log_end - max(0, self.landed))


class Levels:
    """Looks at the ends of every stage's output; keeps connections from one look to the next.

    Args:
        settings: where the outputs are.

    Attributes:
        gold_fault: why gold could not be looked at the last time; None where it could.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened = contextlib.ExitStack()
        self._gold: PublishedGold | WarehouseGold | None = None
        self.gold_fault: str | None = None
        self._log = backends.open_log_reader(settings)
        self._spool = backends.open_spool_reader(settings) if settings.is_log_kafka else None
        self._store = backends.open_store(settings)

    def partitions(self) -> list[PartitionLevel]:
        """Positions downstream first, so that nothing seems to run ahead of its source."""
        published = self._published_positions()
        places = {*self._log.partitions()}
        if self._spool is not None:
            places |= {*self._spool.partitions()}
        return [self._level(place, published) for place in sorted(places)]

    def _published_positions(self) -> dict[ChainId, int]:
        self.gold_fault = None
        try:
            if self._gold is None:
                self._gold = self._opened.enter_context(open_gold(self._settings))
            manifest = self._gold.manifest()
        except TickhouseError as error:
            self.gold_fault = str(error)
            return {}
        return {} if manifest is None else manifest.chain_positions()

    def _level(self, place: TopicPartition, published: dict[ChainId, int]) -> PartitionLevel:
        chain, last = choose_end(self._log, self._store, place, self._log.topic_id(place))
        landed = 0 if last is None else last.next
        log_end = self._log.bounds(place).end
        end = published.get(chain.id, -1)
        level = PartitionLevel(
            partition=str(place),
            log_end=log_end,
            landed=landed,
            published=end,
            waiting=self._waits(place, max(0, end), log_end),
        )
        if self._spool is None:
            return level
        epoch = self._spool.topic_id(place)
        relayed = relayed_end(self._log, place, epoch)
        spool_end = self._spool.bounds(place).end
        return msgspec.structs.replace(level, spool_end=spool_end, relayed=relayed)

    def _waits(self, place: TopicPartition, start: int, end: int) -> bool:
        try:
            return holds_records(self._log, place, start, end)
        except CorruptLogError:
            return True

    def are_level(self) -> bool:
        """Whether published gold covers the whole log, and the log the whole spool."""
        levels = self.partitions()
        return bool(levels) and not any(level.waiting or level.spool_lag for level in levels)

    def close(self) -> None:
        """Release files and connections."""
        self._opened.close()
        self._log.close()
        if self._spool is not None:
            self._spool.close()
