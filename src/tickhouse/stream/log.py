"""The interface of the log: partitioned, append-only, durable, with offsets that never restart."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from tickhouse.model.positions import TopicPartition


class Bounds(msgspec.Struct, frozen=True):
    """Offsets held by a partition: `begin` is the first, `end` the next to be given."""

    begin: int
    end: int


class SpoolRange(msgspec.Struct, frozen=True):
    """Where records came from that a relay carried into this log from a spool.

    Attributes:
        epoch: the spool's epoch.
        first, last: spool offsets of the first and the last record, both inclusive. As many records
            lie between them as their difference says, unless some are missing or doubled.
    """

    epoch: str
    first: int
    last: int


class Position(msgspec.Struct, frozen=True):
    """Where to read on in a partition.

    Attributes:
        offset: of the next record.
        leader_epoch: of the record before, where the log counts its leaders: a log that has lost
            its tail since shows it by that. None = unknown.
    """

    offset: int
    leader_epoch: int | None = None


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
        leader_epoch: of the last record, where the log counts its leaders.
        spool: where the records came from, if all of them came from one spool.
    """

    partition: TopicPartition
    topic_id: str
    start: int
    next: int
    offsets: Sequence[int]
    log_times_ms: Sequence[int]
    values: Sequence[bytes]
    trimmed: bool = False
    leader_epoch: int | None = None
    spool: SpoolRange | None = None


class Append(msgspec.Struct, frozen=True):
    """Records for the end of one partition."""

    partition: TopicPartition
    values: Sequence[bytes]


PositionOf = Callable[[TopicPartition, str, bool], Position]
"""Tells a subscription where to start in a partition of a topic id (the chain's tail).

Asked when a partition is assigned, and again when the log turns out to be another one there: a new
topic id, or the same whose end lies below the position. The last argument: whether the log says
that it has lost records below the position, and was perhaps written on since."""

OnRevoked = Callable[[Sequence[TopicPartition], bool], None]
"""Told which partitions are no longer this reader's, and whether they were lost (another reader may
have them already) rather than given up in an orderly way."""


def nothing_revoked(_partitions: Sequence[TopicPartition], _is_lost: bool) -> None:  # noqa: FBT001
    """For readers of logs that assign every partition to each of them."""


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

    def subscribe(
        self, position_of: PositionOf, on_revoked: OnRevoked = nothing_revoked
    ) -> Subscription:
        """Follow the partitions of all streams, new ones included.

        A log that shares them among the readers of a group assigns and revokes; both callbacks are
        called within `poll`. An embedded log assigns all of them to every reader.
        """
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
