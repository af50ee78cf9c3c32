"""`land`: records from the log into the lake's offset chains, each offset exactly once.

The position of a partition is the tail of its chain, never a committed offset. Rotation (by bytes,
by age, by the memory of all partitions together) may be as irregular as it likes: whoever lands,
objects are disjoint and contiguous, because a start is always a `next` that the lake holds.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tickhouse.bronze.chain import Chain
from tickhouse.bronze.object import pack, read_manifest
from tickhouse.bronze.restored import choose_chain
from tickhouse.bronze.store import Store
from tickhouse.errors import CorruptLogError, RefusedError, TransientError
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch, LogReader
from tickhouse.telemetry import get_logger

POLL_S: Final = 0.05
BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 30.0

Report = Callable[[str, Mapping[str, Any]], None]

_log = get_logger("land")


class Buffer:
    """Lines of one partition that wait to become an object."""

    def __init__(self, partition: TopicPartition, chain: Chain, start: int) -> None:
        self.partition = partition
        self.chain = chain
        self.start = start
        self.next = start
        self.lines: list[bytes] = []
        self.bytes = 0
        self.rx: list[int] = []
        self.born: float | None = None
        self.blocked_until: float | None = None
        self.blocked_by: str | None = None
        self.backoff_s = BACKOFF_S_MIN

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that an object could cover."""
        return self.next == self.start

    def add(self, batch: LogBatch, now: float) -> None:
        """Take a batch that follows."""
        spliced = splice_positions(
            batch.values,
            topic_id=self.chain.id.topic_id,
            part=self.partition.part,
            offsets=batch.offsets,
            log_times_ms=batch.log_times_ms,
        )
        self.lines += spliced.lines
        self.bytes += sum(map(len, spliced.lines))
        self.rx += [at for at in (spliced.rx_min, spliced.rx_max) if at is not None]
        self.next = batch.next
        self.born = now if self.born is None else self.born

    def restart(self, start: int) -> None:
        """Go on, empty, at `start`."""
        self.start = self.next = start
        self.lines = []
        self.rx = []
        self.bytes = 0
        self.born = None
        self.blocked_until = self.blocked_by = None
        self.backoff_s = BACKOFF_S_MIN


class Lander:
    """Moves records from a log into a lake.

    Args:
        log: where records come from.
        store: the lake.
        bytes_max: an object is closed when its lines reach this size.
        age_s_max: an object is closed when its first record has waited this long; checked without
            new data.
        memory_bytes_max: lines held over all partitions; above it the largest object is closed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        log: LogReader,
        store: Store,
        *,
        bytes_max: int = 16 << 20,
        age_s_max: float = 1.0,
        memory_bytes_max: int = 128 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._store = store
        self._bytes_max = bytes_max
        self._age_s_max = age_s_max
        self._memory_bytes_max = memory_bytes_max
        self._clock = clock
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._subscription = log.subscribe(self._assign)
        self._counts = {"records": 0, "objects": 0, "bytes": 0, "gaps": 0, "adopted": 0}

    # -- the loop -----------------------------------------------------------------------------

    def run(self, stop: threading.Event, report: Report = lambda _state, _facts: None) -> None:
        """Land until told to stop; what is buffered then is landed by `drain`."""
        while not stop.is_set():
            try:
                self.step(POLL_S)
            except TransientError as error:
                _log.warning("land_waits", error=str(error), retry_s=error.retry_after_s)
                stop.wait(error.retry_after_s)
            report("failed" if self.blocked() else "running", self.facts())

    def step(self, timeout_s: float) -> None:
        """One round: read what has come, close what is due."""
        self._unblock()
        if self._buffered() < self._memory_bytes_max:
            for batch in self._poll(timeout_s):
                self._take(batch)
        for buffer in self._due():
            self._flush(buffer)

    def drain(self) -> None:
        """Land everything that the log holds now.

        Raises:
            RefusedError: the store refuses.
            CorruptLogError: a batch of the log is damaged.
        """
        ends = {place: self._log.bounds(place).end for place in self._log.partitions()}
        while any(self._position(place) < end for place, end in ends.items()):
            self.step(POLL_S)
            self._raise_blocked()
        while waiting := [b for b in self._buffers.values() if not b.is_empty]:
            for buffer in waiting:
                self._flush(buffer)
            self._raise_blocked()

    def _position(self, partition: TopicPartition) -> int:
        buffer = self._buffers.get(partition)
        return -1 if buffer is None else buffer.next

    # -- reading ------------------------------------------------------------------------------

    def _assign(self, partition: TopicPartition, topic_id: str) -> int:
        before = self._buffers.get(partition)
        if before is not None and not before.is_empty:
            self._flush(before)
        chain = choose_chain(self._log, self._store, partition, topic_id)
        chain.open()
        tail = chain.tail()
        self._buffers[partition] = Buffer(partition, chain, tail)
        _log.info("partition_assigned", partition=str(partition), chain=chain.id.prefix, tail=tail)
        return tail

    def _poll(self, timeout_s: float) -> list[LogBatch]:
        try:
            return self._subscription.poll(timeout_s)
        except CorruptLogError as error:
            for buffer in self._buffers.values():
                if (buffer.partition.topic, buffer.partition.part) == (error.topic, error.part):
                    self._block(buffer, error)
            return []

    def _take(self, batch: LogBatch) -> None:
        buffer = self._buffers[batch.partition]
        if batch.start != buffer.next:
            self._subscription.seek(batch.partition, buffer.next)
            return
        if batch.trimmed:
            self._land_gap(buffer, batch)
            return
        buffer.add(batch, self._clock())
        if buffer.bytes >= self._bytes_max:
            self._flush(buffer)

    def _land_gap(self, buffer: Buffer, batch: LogBatch) -> None:
        """Retention passed us: the loss becomes an object of its own, and an alarm."""
        if not buffer.is_empty and not self._flush(buffer):
            self._subscription.seek(batch.partition, buffer.next)
            return
        if buffer.next != batch.start:
            return
        _log.error(
            "records_lost_to_retention",
            partition=str(batch.partition),
            start=batch.start,
            next=batch.next,
        )
        buffer.next = batch.next
        if self._flush(buffer, gap=True):
            self._counts["gaps"] += 1

    # -- writing ------------------------------------------------------------------------------

    def _buffered(self) -> int:
        return sum(buffer.bytes for buffer in self._buffers.values())

    def _due(self) -> list[Buffer]:
        now = self._clock()
        ready = [b for b in self._buffers.values() if not b.is_empty and b.blocked_until is None]
        due = [
            buffer
            for buffer in ready
            if buffer.bytes >= self._bytes_max
            or (buffer.born is not None and now - buffer.born >= self._age_s_max)
        ]
        if not due and ready and self._buffered() >= self._memory_bytes_max:
            due = [max(ready, key=lambda buffer: buffer.bytes)]
        return due

    def _flush(self, buffer: Buffer, *, gap: bool = False) -> bool:
        """Publish what is buffered; False where it has to wait."""
        started = time.monotonic()
        body = pack(
            buffer.lines,
            chain=buffer.chain.id,
            start=buffer.start,
            next_offset=buffer.next,
            rx_min=min(buffer.rx, default=None),
            rx_max=max(buffer.rx, default=None),
            gap=gap,
        )
        manifest = read_manifest(body, buffer.chain.id.key(buffer.start))
        try:
            published = buffer.chain.publish(body, manifest)
        except (RefusedError, TransientError) as error:
            self._block(buffer, error)
            return False
        if published.adopted:
            return self._adopt(buffer, published.next)
        self._counts["objects"] += 1
        self._counts["records"] += len(buffer.lines)
        self._counts["bytes"] += len(body)
        _log.debug(
            "object_landed",
            partition=str(buffer.partition),
            start=buffer.start,
            next=buffer.next,
            n=len(buffer.lines),
            bytes=len(body),
            seconds=round(time.monotonic() - started, 4),
        )
        buffer.restart(published.next)
        self._unpause(buffer)
        self._subscription.commit(buffer.partition, published.next)
        return True

    def _adopt(self, buffer: Buffer, next_offset: int) -> bool:
        """The key was taken, by our own lost answer or a rival: go on behind what is there."""
        _log.info("object_adopted", partition=str(buffer.partition), next=next_offset)
        self._counts["adopted"] += 1
        buffer.restart(next_offset)
        self._unpause(buffer)
        self._subscription.seek(buffer.partition, next_offset)
        return True

    # -- what has to wait ---------------------------------------------------------------------

    def _block(self, buffer: Buffer, error: Exception) -> None:
        """Stop one partition for a while, keep its position; the others go on."""
        buffer.blocked_by = str(error)
        buffer.blocked_until = self._clock() + buffer.backoff_s
        buffer.backoff_s = min(buffer.backoff_s * 2, BACKOFF_S_MAX)
        self._subscription.pause(buffer.partition)
        _log.error("partition_blocked", partition=str(buffer.partition), error=str(error))

    def _unblock(self) -> None:
        now = self._clock()
        for buffer in self._buffers.values():
            if buffer.blocked_until is not None and now >= buffer.blocked_until:
                buffer.blocked_until = None
                if buffer.is_empty:
                    self._unpause(buffer)

    def _unpause(self, buffer: Buffer) -> None:
        self._subscription.resume(buffer.partition)

    def blocked(self) -> dict[str, str]:
        """Partitions that wait, and why."""
        return {
            str(buffer.partition): buffer.blocked_by
            for buffer in self._buffers.values()
            if buffer.blocked_by is not None
        }

    def _raise_blocked(self) -> None:
        for partition, reason in self.blocked().items():
            raise RefusedError(f"{partition} cannot be landed: {reason}")

    def facts(self) -> dict[str, Any]:
        """Numbers for status and the page."""
        now = self._clock()
        ages = [now - buffer.born for buffer in self._buffers.values() if buffer.born is not None]
        return {
            **self._counts,
            "positions": {str(place): buffer.start for place, buffer in self._buffers.items()},
            "buffered_bytes": self._buffered(),
            "oldest_age_s": round(max(ages, default=0.0), 3),
            "blocked": self.blocked(),
        }


def held_offsets(log: LogReader, store: Store) -> Callable[[TopicPartition], int]:
    """Tells below which offset of a partition the lake holds everything (for retention)."""

    def held(partition: TopicPartition) -> int:
        return choose_chain(log, store, partition, log.topic_id(partition)).tail()

    return held
