"""`land`: records from the log into the lake's offset chains, each offset exactly once.

The position of a partition is the tail of its chain, never a committed offset. Rotation (by bytes,
by age, by the memory of all partitions together) may be as irregular as it likes: whoever lands,
objects are disjoint and contiguous, because a start is always a `next` that the lake holds.

Reading goes on while an object is packed and put: what is read then starts where that object ends,
and is dropped if another object turns out to lie there.

Markers of transactions take offsets but are no records. They are landed with the records that
follow or precede them; alone only after `MARKERS_AGE_S`, or by `drain`. So a chain whose tail
trails the log's end by markers is level (`restored.holds_records` tells).

A partition that cannot go on (the store refuses, the log is damaged, its chain cannot be read)
waits alone, at its position, and is tried again; all others go on.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from tickhouse.bronze.buffer import Buffer, Flight
from tickhouse.bronze.chain import Chain, Published
from tickhouse.bronze.draining import Draining
from tickhouse.bronze.object import LINES_BYTES_MAX, Manifest
from tickhouse.bronze.publishing import Executor, InlineExecutor
from tickhouse.bronze.restored import (
    agrees,
    choose_end,
    count_foreign,
    held_offsets,
    read_position,
)
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
MARKERS_AGE_S: Final = 600.0
"""Markers alone are landed after this time, well before retention could take them for a loss."""
REVOKE_S: Final = 2.0
"""How long a partition that is given up in an orderly way is still landed."""
FULL_S: Final = 0.5
"""How long reading as a whole waits for one partition's object, before that partition is paused."""

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
        executor: where objects are packed and put; at once and in this thread unless given.
    """

    def __init__(  # noqa: PLR0913 - each is a limit or a way to run it by hand
        self,
        log: LogReader,
        store: Store,
        *,
        bytes_max: int = 16 << 20,
        age_s_max: float = 1.0,
        memory_bytes_max: int = 128 << 20,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        executor: Executor | None = None,
    ) -> None:
        self._log = log
        self._store = store
        self._bytes_max = min(bytes_max, LINES_BYTES_MAX)
        self._age_s_max = age_s_max
        self._memory_bytes_max = memory_bytes_max
        self._clock = clock
        self._sleep = sleep
        self._executor = executor or InlineExecutor()
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._orphans: list[Flight] = []
        self._is_idle = False
        self._log_away_until = clock()
        self._counts = {"records": 0, "objects": 0, "bytes": 0, "gaps": 0, "adopted": 0}
        self._subscription = log.subscribe(self._assign, self._revoke)

    # -- the loop -----------------------------------------------------------------------------

    def run(self, stop: threading.Event, report: Report = lambda _state, _facts: None) -> None:
        """Land until told to stop; what is buffered then is landed by `drain`."""
        while not stop.is_set():
            self.step(POLL_S)
            report("failed" if self.blocked() else "running", self.facts())

    def step(self, timeout_s: float) -> None:
        """One round: take what was put, read what has come, close what is due."""
        self._finish()
        self._retry()
        if self._is_choked():
            self._executor.wait(self._running(), timeout_s)
        elif self._buffered() < self._memory_bytes_max:
            batches = self._poll(timeout_s)
            self._is_idle = not batches
            for batch in batches:
                self._take(batch)
        elif not self._ready() or not self._may_take_off():
            self._make_room(timeout_s)
        self._finish()
        for buffer in self._due():
            self._flush(buffer)

    def drain(self, *, patience_s: float = 60.0, everything: bool = True) -> None:
        """Land everything that the log holds now.

        Partitions that cannot be landed are told only when all others are. One that another reader
        has is finished when its chain covers the end.

        Args:
            patience_s: how long a fault that is expected to pass may last.
            everything: wait for other readers' partitions, too.

        Raises:
            RefusedError: the store refuses.
            CorruptError: the log or a chain's last object is damaged.
            TransientError: the store or the log was away for longer than `patience_s`, or another
                reader did not land its partition.
        """
        places = self._log.partitions() if everything else list(self._buffers)
        ends = {place: self._log.bounds(place).end for place in places}
        self._finish()
        draining = Draining(self._log, self._store, self._clock, ends, patience_s)
        for buffer in self._buffers.values():
            buffer.blocked_until = None if buffer.blocked_until is None else draining.began
        self.step(0)
        while unfinished := draining.unfinished(self._buffers):
            if (error := draining.error(unfinished, self._buffers)) is not None:
                raise error
            self.step(0 if self._running() else POLL_S)
            if self._is_idle and (running := self._running()):
                self._executor.wait(running, POLL_S)
            for place in unfinished:
                buffer = self._buffers.get(place)
                if buffer is not None and buffer.is_ready and buffer.next >= ends.get(place, 0):
                    self._flush(buffer)

    def close(self) -> None:
        """Stop reading; what is buffered is not landed, and is read again by whoever comes next."""
        self._subscription.close()

    # -- choosing the chain -------------------------------------------------------------------

    def _assign(self, partition: TopicPartition, topic_id: str, is_cut: bool) -> Position:  # noqa: FBT001
        """Where to read a partition; what it held of another life of the log is landed first."""
        buffer = self._buffers.setdefault(partition, Buffer(partition))
        buffer.next_life = topic_id
        buffer.is_cut = buffer.is_cut or is_cut
        is_chosen = self._settle(buffer)
        return Position(buffer.next, buffer.leader_epoch if is_chosen else None)

    def _revoke(self, partitions: Sequence[TopicPartition], is_lost: bool) -> None:  # noqa: FBT001
        """Land what is held of partitions that go to another reader, unless they are lost already.

        What is not landed by then is dropped: the next reader starts at the chain's tail. An object
        that is still on its way does no harm, wherever it lands.
        """
        leaving = [self._buffers[place] for place in partitions if place in self._buffers]
        if not is_lost:
            self._land_within(leaving, REVOKE_S)
        for buffer in leaving:
            del self._buffers[buffer.partition]
            if buffer.flight is not None and buffer.flight.is_running:
                self._orphans.append(buffer.flight)

    def _land_within(self, leaving: Sequence[Buffer], seconds: float) -> None:
        deadline = self._clock() + seconds
        while (remaining := deadline - self._clock()) > 0:
            for buffer in leaving:
                has_arrived = buffer.has_arrived and self._arrive(buffer)
                if buffer.is_ready and buffer.is_worthy and self._may_take_off():
                    has_arrived = self._publish(buffer) or has_arrived
                if has_arrived:
                    self._subscription.commit(buffer.partition, buffer.start)
            attempts = [b.flight.attempt for b in leaving if b.flight is not None]
            if not (running := [attempt for attempt in attempts if attempt is not None]):
                return
            self._executor.wait(running, remaining)

    def _settle(self, buffer: Buffer) -> bool:
        """Choose the chain of the log's new life; False where that has to wait."""
        life = buffer.next_life
        if life is None:
            return True
        if buffer.is_worthy and not self._publish(buffer):
            return False
        try:
            place, is_cut = buffer.partition, buffer.is_cut
            chain, last = choose_end(self._log, self._store, place, life, is_cut=is_cut)
            chain.open()
        except _BLOCKING as error:
            self._block(buffer, error)
            return False
        buffer.chain, buffer.life, buffer.next_life, buffer.is_cut = chain, life, None, False
        buffer.leader_epoch = None if last is None else last.leader_epoch
        buffer.restart(0 if last is None else last.next)
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
        buffers = {(at.topic, at.part): buffer for at, buffer in self._buffers.items()}
        if (buffer := buffers.get(place)) is None:
            raise error
        position = -1
        with contextlib.suppress(CorruptLogError, TransientError):
            while position < buffer.next < error.offset and not buffer.is_waiting:
                position = buffer.next
                batch = self._log.read(buffer.partition, position, bytes_max=1)
                if batch is None or batch.topic_id != buffer.life:
                    break
                self._take(batch)
        self._block(buffer, error)
        self._pause(buffer)

    def _take(self, batch: LogBatch) -> None:
        buffer = self._buffers.get(batch.partition)
        if buffer is None:
            return
        if batch.topic_id != (buffer.next_life or buffer.life):
            buffer.next_life = batch.topic_id
            if self._settle(buffer):
                self._go_on(buffer)
        if not buffer.is_waiting and not buffer.draft.takes(batch):
            self._flush(buffer)
        if buffer.is_waiting or buffer.full_since is not None:
            self._pause(buffer)
        elif batch.topic_id != buffer.life or batch.start != buffer.next:
            self._subscription.seek(batch.partition, buffer.next)
        else:
            self._add(buffer, batch)

    def _add(self, buffer: Buffer, batch: LogBatch) -> None:
        buffer.add(batch, self._clock())
        if batch.trimmed or buffer.draft.bytes >= self._bytes_max:
            self._flush(buffer)

    # -- writing ------------------------------------------------------------------------------

    def _buffered(self) -> int:
        held = sum(buffer.bytes for buffer in self._buffers.values())
        return held + sum(flight.bytes for flight in self._orphans)

    def _ready(self) -> list[Buffer]:
        return [b for b in self._buffers.values() if b.is_ready and b.is_worthy]

    def _running(self) -> list[Future[Published]]:
        flights = [*(buffer.flight for buffer in self._buffers.values()), *self._orphans]
        attempts = (flight.attempt for flight in flights if flight is not None)
        return [attempt for attempt in attempts if attempt is not None and not attempt.done()]

    def _may_take_off(self) -> bool:
        return len(self._running()) < self._executor.size

    def _is_choked(self) -> bool:
        """Whether reading waits a moment for an object that has to land before the next one."""
        full = [b.full_since for b in self._buffers.values() if b.full_since is not None]
        return bool(full) and self._clock() - min(full) < FULL_S and bool(self._running())

    def _due(self) -> list[Buffer]:
        now = self._clock()
        due = [b for b in self._buffers.values() if b.is_ready and self._is_due(b, now)]
        ready = self._ready()
        if not due and ready and self._buffered() >= self._memory_bytes_max:
            due = [max(ready, key=lambda buffer: buffer.bytes)]
        return sorted(due, key=lambda buffer: buffer.draft.born or 0.0)

    def _is_due(self, buffer: Buffer, now: float) -> bool:
        draft = buffer.draft
        if buffer.flight is not None or draft.is_gap or draft.bytes >= self._bytes_max:
            return True
        if buffer.blocked_by is not None or buffer.full_since is not None:
            return True
        age_s_max = self._age_s_max if draft.is_worthy else max(MARKERS_AGE_S, self._age_s_max)
        return draft.born is not None and now - draft.born >= age_s_max

    def _flush(self, buffer: Buffer) -> bool:
        """Have landed what is buffered and go on behind it; False where that goes on or waits."""
        if buffer.is_up or not self._may_take_off():
            buffer.full_since = self._clock() if buffer.full_since is None else buffer.full_since
            return False
        before = buffer.next
        return self._publish(buffer) and self._go_behind(buffer, before)

    def _go_behind(self, buffer: Buffer, before: int) -> bool:
        if not self._settle(buffer):
            return False
        if buffer.next != before:
            self._go_on(buffer)
        self._subscription.commit(buffer.partition, buffer.start)
        return True

    def _publish(self, buffer: Buffer) -> bool:
        """Send what is buffered on its way; False where it is not there yet or has to wait."""
        chain = buffer.chain
        if chain is None:
            return True
        if buffer.is_up or (buffer.flight is None and not self._check_life(buffer)):
            return False
        if buffer.is_empty:
            return True
        flight = buffer.take_off(chain)
        flight.attempt = self._executor.submit(flight.fly)
        return flight.attempt.done() and self._arrive(buffer)

    def _check_life(self, buffer: Buffer) -> bool:
        """Drop what was read of a topic that took ours' place unnoticed; False where it must wait.

        Asked after the last record was read and before it is put: a deleted topic is read on under
        its name when it is made again.
        """
        try:
            life = self._log.topic_id(buffer.partition)
            if life in ("", buffer.life):
                return True
            records = [found for line in buffer.draft.lines() if (found := read_position(line))]
            kept = count_foreign(self._log, buffer.partition, records)
        except _BLOCKING as error:
            self._block(buffer, error)
            return False
        if kept < len(records):
            buffer.draft.cut(kept, records[kept][0])
        _log.warning("topic_recreated", partition=str(buffer.partition), topic_id=life, kept=kept)
        buffer.next_life = buffer.next_life or life
        return True

    def _finish(self) -> None:
        """Take note of every object whose attempt has ended."""
        for buffer in list(self._buffers.values()):
            before = buffer.next
            if buffer.has_arrived and self._arrive(buffer):
                self._go_behind(buffer, before)
        self._orphans = [flight for flight in self._orphans if flight.is_running]

    def _arrive(self, buffer: Buffer) -> bool:
        """What became of an attempt: landed, adopted what is there instead, or has to wait."""
        flight, chain = buffer.flight, buffer.chain
        assert flight is not None and flight.attempt is not None and chain is not None  # noqa: S101, PT018
        attempt, flight.attempt = flight.attempt, None
        try:
            published = attempt.result()
        except _BLOCKING as error:
            self._block(buffer, error)
            return False
        buffer.flight = None
        if published.adopted:
            self._adopt(buffer, chain, published.manifest)
        else:
            buffer.succeed()
            self._count_landed(buffer, flight, published.manifest)
        return True

    def _count_landed(self, buffer: Buffer, flight: Flight, manifest: Manifest) -> None:
        size, seconds = flight.body_bytes, round(flight.seconds, 4)
        for name, count in (("objects", 1), ("records", manifest.n), ("bytes", size)):
            self._counts[name] += count
        place = {"partition": str(buffer.partition), "start": manifest.start, "next": manifest.next}
        _log.debug("object_landed", n=manifest.n, bytes=size, seconds=seconds, **place)
        if manifest.gap:
            self._counts["gaps"] += 1
            _log.error("records_lost_to_retention", **place)

    def _adopt(self, buffer: Buffer, chain: Chain, found: Manifest) -> None:
        """The key was taken, by our own lost answer or a rival: go on behind what is there.

        Unless that is not what the log holds: then whoever wrote it read another copy of the log,
        and the chain is chosen anew. What was read meanwhile is kept where it still follows.
        """
        self._counts["adopted"] += 1
        buffer.succeed()
        place = {"start": found.start, "next": found.next}
        _log.info("object_adopted", partition=str(buffer.partition), **place)
        try:
            last = chain.follow(found)
            is_ours = last is not None and agrees(self._log, chain, buffer.partition, last)
        except _BLOCKING as error:
            _log.warning("adopted_object_unchecked", error=str(error), **place)
            last, is_ours = None, False
        end = found.next if last is None else last.next
        if not is_ours or end != buffer.start:
            buffer.restart(end)
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
        for buffer in list(self._buffers.values()):
            if buffer.blocked_until is not None and now < buffer.blocked_until:
                continue
            buffer.blocked_until = None
            if buffer.next_life is not None:
                if self._settle(buffer):
                    self._go_on(buffer)
            elif buffer.is_paused and buffer.may_read:
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
        """Memory is full: drop the largest of what is blocked, to be read again, or wait."""
        held = [b for b in self._buffers.values() if b.bytes and not b.is_up]
        blocked = [b for b in held if b.next_life is None]
        if blocked and not self._ready():
            largest = max(blocked, key=lambda buffer: buffer.bytes)
            largest.restart(largest.start)
            self._pause(largest)
        elif running := self._running():
            self._executor.wait(running, timeout_s)
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
