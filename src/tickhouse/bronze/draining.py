"""When landing up to the log's end is finished, and when it cannot be: `Lander.drain`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tickhouse.bronze.buffer import Buffer
from tickhouse.bronze.restored import choose_end, holds_records
from tickhouse.bronze.store import Store
from tickhouse.errors import (
    CorruptError,
    CorruptLogError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogReader

ASK_S: Final = 1.0


class Draining:
    """What a lander has yet to land.

    Args:
        log, store, clock: the lander's.
        ends: offsets up to which each partition is to be landed.
        patience_s: how long a fault that is expected to pass may last.
    """

    def __init__(
        self,
        log: LogReader,
        store: Store,
        clock: Callable[[], float],
        ends: Mapping[TopicPartition, int],
        patience_s: float,
    ) -> None:
        self.began = clock()
        self._clock = clock
        self._ends = ends
        self._patience_s = patience_s
        self._others = _Others(log, store, clock)

    def unfinished(self, buffers: Mapping[TopicPartition, Buffer]) -> list[TopicPartition]:
        """Partitions that are not landed up to their ends."""
        return [
            place
            for place in sorted({*self._ends, *buffers})
            if self._is_unfinished(place, buffers.get(place))
        ]

    def _is_unfinished(self, place: TopicPartition, buffer: Buffer | None) -> bool:
        if buffer is None:
            return self._others.is_behind(place, self._ends[place])
        if buffer.next_life is not None:
            return True
        return buffer.start < self._ends[place] if place in self._ends else not buffer.is_empty

    def error(
        self, unfinished: Sequence[TopicPartition], buffers: Mapping[TopicPartition, Buffer]
    ) -> Exception | None:
        """Why none of them can go on; None while one can, or may again."""
        errors = [self._stuck(place, buffers.get(place)) for place in unfinished]
        return errors[0] if all(errors) else None

    def _stuck(self, place: TopicPartition, buffer: Buffer | None) -> Exception | None:
        if buffer is None:
            return self._others.stalled(place, self._patience_s)
        error = buffer.blocked_by
        if error is None or buffer.failed_at < self.began:
            return None
        if isinstance(error, TransientError):
            lasted = self._clock() - max(buffer.blocked_since, self.began)
            return error if lasted >= self._patience_s else None
        return None if isinstance(error, CorruptLogError) and not buffer.is_empty else error


class _Others:
    """Chains of partitions that another reader of the group lands, looked at now and then."""

    def __init__(self, log: LogReader, store: Store, clock: Callable[[], float]) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._began = clock()
        self._asked: dict[TopicPartition, float] = {}
        self._tails: dict[TopicPartition, tuple[int, float]] = {}
        self._level: set[TopicPartition] = set()

    def is_behind(self, partition: TopicPartition, end: int) -> bool:
        """Whether the chain does not cover every record below `end`, as far as is known."""
        now = self._clock()
        is_asked = partition in self._asked and now - self._asked[partition] < ASK_S
        if partition not in self._level and not is_asked:
            self._asked[partition] = now
            self._ask(partition, end, now)
        return partition not in self._level

    def _ask(self, partition: TopicPartition, end: int, now: float) -> None:
        try:
            topic_id = self._log.topic_id(partition)
            _, last = choose_end(self._log, self._store, partition, topic_id)
            tail = 0 if last is None else last.next
            if tail >= end or not holds_records(self._log, partition, tail, end):
                self._level.add(partition)
        except (TransientError, RefusedError, CorruptError, ObjectMissingError):
            return
        if self._tails.get(partition, (-1, 0.0))[0] != tail:
            self._tails[partition] = (tail, now)

    def stalled(self, partition: TopicPartition, patience_s: float) -> TransientError | None:
        """Why waiting for it has no end, if its chain has not grown for that long."""
        since = self._tails.get(partition, (0, self._began))[1]
        if self._clock() - since < patience_s:
            return None
        return TransientError(
            f"{partition}: another reader has it and has landed nothing for {patience_s:.0f} s"
        )
