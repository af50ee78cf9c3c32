"""The interface of the log: partitioned, append-only, durable, with offsets that never restart."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from tickhouse.model.positions import TopicPartition


class Bounds(msgspec.Struct, frozen=True):
    """Offsets held by a partition: `begin` is the first, `end` the next to be given."""

    begin: int
    end: int


class LogBatch(msgspec.Struct, frozen=True):
    """Records read from one partition, covering the offsets from `start` up to `next`.

    Attributes:
        partition: where they were read.
        topic_id: life of the topic they belong to; another id is another log.
        start: the position asked for.
        next: the position after this batch; may skip offsets that hold no record.
        offsets: offset of each record, rising.
        log_times_ms: when the log took each record, UNIX milliseconds UTC.
        values: the records.
        trimmed: retention passed the reader: `start..next` is gone, there are no records.
    """

    partition: TopicPartition
    topic_id: str
    start: int
    next: int
    offsets: Sequence[int]
    log_times_ms: Sequence[int]
    values: Sequence[bytes]
    trimmed: bool = False


class Append(msgspec.Struct, frozen=True):
    """Records for the end of one partition."""

    partition: TopicPartition
    values: Sequence[bytes]


PositionOf = Callable[[TopicPartition, str], int]
"""Tells a subscription where to start in a partition of a topic id (the chain's tail)."""


class Subscription(Protocol):
    """Reads a set of partitions from where the reader's own output ends."""

    def poll(self, timeout_s: float) -> list[LogBatch]:
        """Batches that follow the positions, at most one a partition; empty after the time-out.

        Raises:
            CorruptLogError: a stored batch is damaged.
            TransientError: the log cannot be reached for the moment.
        """
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`."""
        ...

    def pause(self, partition: TopicPartition) -> None:
        """Read nothing of this partition until `resume`; its position stays."""
        ...

    def resume(self, partition: TopicPartition) -> None:
        """Read this partition again."""
        ...

    def partitions(self) -> dict[TopicPartition, str]:
        """Partitions assigned to this reader, each with the topic id it was assigned under."""
        ...

    def commit(self, partition: TopicPartition, next_offset: int) -> None:
        """Tell the log how far the reader is; a hint for others, never this reader's position."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class LogReader(Protocol):
    """What a reader may do; readers never block the writer."""

    def topic_id(self, partition: TopicPartition) -> str:
        """Life of the partition's topic: random, made with it, safe in a path."""
        ...

    def partitions(self) -> list[TopicPartition]:
        """All partitions that hold or held records."""
        ...

    def bounds(self, partition: TopicPartition) -> Bounds:
        """Offsets held now; 0, 0 for a partition never written."""
        ...

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        """Records from `start` on (at least one, then up to about `bytes_max`); None at the end.

        Where retention has removed `start`, a batch with `trimmed` set tells how far.

        Raises:
            CorruptLogError: a stored batch is damaged.
        """
        ...

    def subscribe(self, position_of: PositionOf) -> Subscription:
        """Follow all partitions of all streams, new ones included."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


class Log(LogReader, Protocol):
    """What the one recorder may do."""

    def append(self, appends: Sequence[Append]) -> list[int]:
        """Append to several partitions in one transaction; durable when this returns.

        Returns:
            The offset of the first record of each append.

        Raises:
            RefusedError: disk full; nothing was appended.
        """
        ...

    def trim(self, partition: TopicPartition, before: int) -> int:
        """Remove whole batches below offset `before`, never the partition's last batch.

        Returns:
            The new first offset.
        """
        ...

    def retain(
        self,
        *,
        age_s_max: float,
        bytes_max: int,
        grace_s: float,
        held: Callable[[TopicPartition], int],
    ) -> dict[TopicPartition, int]:
        """Apply retention by age and size, only below what the lake holds.

        Args:
            age_s_max: batches older than this may go.
            bytes_max: oldest batches go while the log is larger than this.
            grace_s: no batch younger than this goes, however large the log is.
            held: offset below which the lake holds everything of a partition.

        Returns:
            The new first offset of each partition that was trimmed.
        """
        ...

    def release_reserve(self) -> None:
        """Give back the room kept for the record of a full disk."""
        ...

    def restore_reserve(self) -> None:
        """Keep that room again, if there is any."""
        ...
