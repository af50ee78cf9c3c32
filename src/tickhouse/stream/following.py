"""A subscription to a log that can be read at any offset: positions are kept here, nowhere else."""

import time
from typing import Final, Protocol

from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch, LogReader, PositionOf

POLL_S: Final = 0.01


class FollowedLog(LogReader, Protocol):
    """A log that can tell cheaply whether anything has changed."""

    def identity(self) -> object:
        """What tells this log from another that takes its place; None while there is none."""
        ...

    def data_version(self) -> int:
        """A number that changes when something was appended."""
        ...


class Following:
    """Follows every partition of one log file; a replaced file is a new assignment."""

    def __init__(self, reader: FollowedLog, position_of: PositionOf) -> None:
        self._reader = reader
        self._position_of = position_of
        self._positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[TopicPartition, str] = {}
        self._paused: set[TopicPartition] = set()
        self._identity: object = None
        self._seen_version = -2
        self._behind = True

    def poll(self, timeout_s: float) -> list[LogBatch]:
        """See `Subscription.poll`."""
        deadline = time.monotonic() + timeout_s
        while True:
            batches = self._poll_once()
            remaining = deadline - time.monotonic()
            if batches or remaining <= 0:
                return batches
            time.sleep(min(POLL_S, remaining))

    def _poll_once(self) -> list[LogBatch]:
        self._notice_replacement()
        version = self._reader.data_version()
        if version == self._seen_version and not self._behind:
            return []
        self._seen_version = version
        self._assign()
        batches = [
            batch
            for partition, position in self._positions.items()
            if partition not in self._paused
            and (batch := self._reader.read(partition, position)) is not None
        ]
        if self._reader.identity() != self._identity:
            self._behind = True
            return []
        for batch in batches:
            self._positions[batch.partition] = batch.next
        self._behind = bool(batches)
        return batches

    def _notice_replacement(self) -> None:
        """Forget positions of a log whose file is another one now, whoever saw that first."""
        identity = self._reader.identity()
        if identity is None or identity == self._identity:
            return
        self._identity = identity
        self._positions.clear()
        self._topic_ids.clear()
        self._behind = True

    def _assign(self) -> None:
        for partition in self._reader.partitions():
            if partition not in self._positions:
                topic_id = self._reader.topic_id(partition)
                self._topic_ids[partition] = topic_id
                self._positions[partition] = self._position_of(partition, topic_id, False).offset

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Subscription.seek`."""
        self._positions[partition] = offset
        self._behind = True

    def pause(self, partition: TopicPartition) -> None:
        """See `Subscription.pause`."""
        self._paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        """See `Subscription.resume`."""
        self._paused.discard(partition)
        self._behind = True

    def partitions(self) -> dict[TopicPartition, str]:
        """See `Subscription.partitions`."""
        return dict(self._topic_ids)

    def commit(self, partition: TopicPartition, next_offset: int) -> None:
        """Nothing: an embedded log keeps no readers' positions."""

    def close(self) -> None:
        """Nothing to release: the reader is its owner's."""
