"""`land`: records from the log into the lake's offset chains, each offset exactly once.

The position of a partition is the tail of its chain, never a committed offset. Rotation (by bytes,
by age, by the memory of all partitions together) may be as irregular as it likes: whoever lands,
objects are disjoint and contiguous, because a start is always a `next` that the lake holds.

A partition that cannot go on (the store refuses, the log is damaged, its chain cannot be read)
waits alone, at its position, and is tried again; all others go on.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tickhouse.bronze.buffer import Buffer
from tickhouse.bronze.chain import Chain
from tickhouse.bronze.object import LINES_BYTES_MAX, Manifest
from tickhouse.bronze.restored import agrees, choose_chain, held_offsets
from tickhouse.bronze.store import Store
from tickhouse.errors import (
    CorruptError,
    CorruptLogError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch, LogReader, Position
from tickhouse.telemetry import Report, get_logger

__all__ = ["Lander", "held_offsets"]

POLL_S: Final = 0.05


_BLOCKING: Final = (RefusedError, TransientError, CorruptError, ObjectMissingError)
_log = get_logger("land")


class Lander:
    """Moves records from a log into a lake. Several may run at once.

    Args:
        log: where records come from.
        store: the lake.
        bytes_max: an object is closed when its lines reach this size.
        age_s_max: an object is closed when its first record has waited this long; checked without
            new data.
        memory_bytes_max: lines held over all partitions; above it nothing is read, and the largest
            object is closed.
        clock, sleep: monotonic seconds.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._log = log
        self._store = store
        self._bytes_max = min(bytes_max, LINES_BYTES_MAX)
        self._age_s_max = age_s_max
        self._memory_bytes_max = memory_bytes_max
        self._clock = clock
        self._sleep = sleep
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._log_away_until = clock()
        self._counts = {"records": 0, "objects": 0, "bytes": 0, "gaps": 0, "adopted": 0}
        self._subscription = log.subscribe(self._assign)

    # -- the loop -----------------------------------------------------------------------------

    def run(self, stop: threading.Event, report: Report = lambda _state, _facts: None) -> None:
        """Land until told to stop; what is buffered then is landed by `drain`."""
        while not stop.is_set():
            self.step(POLL_S)
            report("failed" if self.blocked() else "running", self.facts())

    def step(self, timeout_s: float) -> None:
        """One round: read what has come, close what is due."""
        self._retry()
        if self._buffered() < self._memory_bytes_max:
            for batch in self._poll(timeout_s):
                self._take(batch)
        elif not self._ready():
            self._make_room(timeout_s)
        for buffer in self._due():
            self._flush(buffer)

    def drain(self, *, patience_s: float = 60.0) -> None:
        """Land everything that the log holds now.

        Partitions that cannot be landed are told only when all others are.

        Args:
            patience_s: how long a fault that is expected to pass may last.

        Raises:
            RefusedError: the store refuses.
            CorruptError: the log or a chain's last object is damaged.
            TransientError: the store or the log was away for longer than `patience_s`.
        """
        ends = {place: self._log.bounds(place).end for place in self._log.partitions()}
        began = self._clock()
        for buffer in self._buffers.values():
            buffer.blocked_until = None if buffer.blocked_until is None else began
        self.step(0)
        while places := self._unfinished(ends):
            stuck = [self._stuck(place, began, patience_s) for place in places]
            if (first := stuck[0]) is not None and all(stuck):
                raise first
            self.step(POLL_S)
            for place in places:
                buffer = self._buffers.get(place)
                if buffer in self._ready() and buffer.next >= ends.get(place, 0):
                    self._flush(buffer)

    def _unfinished(self, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
        return [
            place
            for place in sorted({*ends, *self._buffers})
            if (buffer := self._buffers.get(place)) is None
            or buffer.next_life is not None
            or (buffer.start < ends[place] if place in ends else not buffer.is_empty)
        ]

    def _stuck(self, place: TopicPartition, began: float, patience_s: float) -> Exception | None:
        buffer = self._buffers.get(place)
        error = None if buffer is None else buffer.blocked_by
        if buffer is None or error is None or buffer.failed_at < began:
            return None
        if isinstance(error, TransientError):
            lasted = self._clock() - max(buffer.blocked_since, began)
            return error if lasted >= patience_s else None
        return None if isinstance(error, CorruptLogError) and not buffer.is_empty else error

    def close(self) -> None:
        """Stop reading; what is buffered is not landed, and is read again by whoever comes next."""
        self._subscription.close()

    # -- choosing the chain -------------------------------------------------------------------

    def _assign(self, partition: TopicPartition, topic_id: str) -> Position:
        """Where to read a partition; what it held of another life of the log is landed first."""
        buffer = self._buffers.setdefault(partition, Buffer(partition))
        buffer.next_life = topic_id
        self._settle(buffer)
        return Position(buffer.next)

    def _settle(self, buffer: Buffer) -> bool:
        """Choose the chain of the log's new life; False where that has to wait."""
        life = buffer.next_life
        if not buffer.is_empty and not self._publish(buffer):
            return False
        if life is None:
            return True
        try:
            chain = choose_chain(self._log, self._store, buffer.partition, life)
            chain.open()
            tail = chain.tail()
        except _BLOCKING as error:
            self._block(buffer, error)
            return False
        buffer.chain, buffer.life, buffer.next_life = chain, life, None
        buffer.restart(tail)
        buffer.succeed()
        self._tell_assigned(buffer, chain)
        return True

    def _tell_assigned(self, buffer: Buffer, chain: Chain) -> None:
        place = {"partition": str(buffer.partition), "chain": chain.id.prefix}
        if chain.id.topic_id != buffer.life and buffer.start == 0:
            _log.error(
                "log_was_restored",
                reason="its records are not those that the lake holds at these offsets",
                **place,
            )
        _log.info("partition_assigned", tail=buffer.start, **place)

    # -- reading ------------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> list[LogBatch]:
        if self._clock() < self._log_away_until:
            self._sleep(timeout_s)
            return []
        try:
            return self._subscription.poll(timeout_s)
        except TransientError as error:
            _log.warning("log_away", error=str(error), retry_s=error.retry_after_s)
            self._log_away_until = self._clock() + error.retry_after_s
        except CorruptLogError as error:
            self._wait_at_damage(error)
        return []

    def _wait_at_damage(self, error: CorruptLogError) -> None:
        """Take what lies before a damaged batch, then stop its partition."""
        place = (error.topic, error.part)
        found = [
            b for b in self._buffers.values() if (b.partition.topic, b.partition.part) == place
        ]
        if not found:
            raise error
        buffer = found[0]
        with contextlib.suppress(CorruptLogError, TransientError):
            while buffer.next < error.offset and not buffer.is_waiting:
                batch = self._log.read(buffer.partition, buffer.next, bytes_max=1)
                if batch is None or batch.topic_id != buffer.life:
                    break
                self._take(batch)
        self._block(buffer, error)
        self._pause(buffer)

    def _take(self, batch: LogBatch) -> None:
        buffer = self._buffers[batch.partition]
        if batch.topic_id != (buffer.next_life or buffer.life):
            buffer.next_life = batch.topic_id
            if self._settle(buffer):
                self._go_on(buffer)
        if batch.trimmed and not buffer.is_empty and not buffer.is_waiting:
            self._flush(buffer)
        if buffer.is_waiting:
            self._pause(buffer)
        elif batch.topic_id != buffer.life or batch.start != buffer.next:
            self._subscription.seek(batch.partition, buffer.next)
        else:
            self._add(buffer, batch)

    def _add(self, buffer: Buffer, batch: LogBatch) -> None:
        buffer.add(batch, self._clock())
        if batch.trimmed or buffer.bytes >= self._bytes_max:
            self._flush(buffer)

    # -- writing ------------------------------------------------------------------------------

    def _buffered(self) -> int:
        return sum(buffer.bytes for buffer in self._buffers.values())

    def _ready(self) -> list[Buffer]:
        return [
            buffer
            for buffer in self._buffers.values()
            if not buffer.is_empty and buffer.blocked_until is None and buffer.next_life is None
        ]

    def _due(self) -> list[Buffer]:
        now = self._clock()
        ready = self._ready()
        due = [
            buffer
            for buffer in ready
            if buffer.bytes >= self._bytes_max
            or buffer.blocked_by is not None
            or (buffer.born is not None and now - buffer.born >= self._age_s_max)
        ]
        if not due and ready and self._buffered() >= self._memory_bytes_max:
            due = [max(ready, key=lambda buffer: buffer.bytes)]
        return due

    def _flush(self, buffer: Buffer) -> bool:
        """Land what is buffered and go on behind it; False where that has to wait."""
        before = buffer.next
        if not self._publish(buffer) or not self._settle(buffer):
            return False
        if buffer.next != before:
            self._go_on(buffer)
        self._subscription.commit(buffer.partition, buffer.start)
        return True

    def _publish(self, buffer: Buffer) -> bool:
        """Put what is buffered, or adopt what is there instead; False where it has to wait."""
        chain = buffer.chain
        if chain is None:
            return True
        started = time.monotonic()
        body, manifest = buffer.pack()
        try:
            published = chain.publish(body, manifest)
        except _BLOCKING as error:
            self._block(buffer, error)
            return False
        if published.adopted:
            self._adopt(buffer, chain, published.manifest)
            return True
        self._counts["objects"] += 1
        self._counts["records"] += manifest.n
        self._counts["bytes"] += len(body)
        place = {"partition": str(buffer.partition), "start": manifest.start, "next": manifest.next}
        seconds = round(time.monotonic() - started, 4)
        _log.debug("object_landed", n=manifest.n, bytes=len(body), seconds=seconds, **place)
        if manifest.gap:
            self._counts["gaps"] += 1
            _log.error("records_lost_to_retention", **place)
        buffer.restart(manifest.next)
        buffer.succeed()
        return True

    def _adopt(self, buffer: Buffer, chain: Chain, found: Manifest) -> None:
        """The key was taken, by our own lost answer or a rival: go on behind what is there.

        Unless that is not what the log holds: then whoever wrote it read another copy of the log,
        and the chain is chosen anew.
        """
        self._counts["adopted"] += 1
        buffer.restart(found.next)
        buffer.succeed()
        place = {"start": found.start, "next": found.next}
        _log.info("object_adopted", partition=str(buffer.partition), **place)
        try:
            last = chain.follow(found)
            is_ours = last is not None and agrees(self._log, chain, buffer.partition, last)
        except _BLOCKING as error:
            _log.warning("adopted_object_unchecked", error=str(error), **place)
            last, is_ours = None, False
        if last is not None:
            buffer.restart(last.next)
        if not is_ours and buffer.next_life is None:
            buffer.next_life = buffer.life

    # -- what has to wait ---------------------------------------------------------------------

    def _block(self, buffer: Buffer, error: Exception) -> None:
        """Stop one partition for a while, keep its position; the others go on."""
        buffer.block(error, self._clock())
        _log.error("partition_blocked", partition=str(buffer.partition), error=str(error))

    def _retry(self) -> None:
        """Let partitions go on whose wait is over; what they hold is then due."""
        now = self._clock()
        for buffer in self._buffers.values():
            if buffer.blocked_until is not None and now < buffer.blocked_until:
                continue
            buffer.blocked_until = None
            if buffer.next_life is not None:
                if self._settle(buffer):
                    self._go_on(buffer)
            elif buffer.is_paused and buffer.is_empty:
                self._go_on(buffer)

    def _pause(self, buffer: Buffer) -> None:
        buffer.is_paused = True
        self._subscription.pause(buffer.partition)

    def _go_on(self, buffer: Buffer) -> None:
        """Read on where the chain ends, whatever was read and not taken."""
        self._subscription.seek(buffer.partition, buffer.next)
        if buffer.is_paused:
            buffer.is_paused = False
            self._subscription.resume(buffer.partition)

    def _make_room(self, timeout_s: float) -> None:
        """All memory is held by partitions that wait: drop the largest, to be read again."""
        waiting = [b for b in self._buffers.values() if b.bytes and b.next_life is None]
        if waiting:
            largest = max(waiting, key=lambda buffer: buffer.bytes)
            largest.restart(largest.start)
            self._pause(largest)
        else:
            self._sleep(timeout_s)

    def blocked(self) -> dict[str, str]:
        """Partitions that wait, and why."""
        return {
            str(buffer.partition): str(buffer.blocked_by)
            for buffer in self._buffers.values()
            if buffer.blocked_by is not None
        }

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
