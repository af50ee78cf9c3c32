"""Kafka in memory: partitions with transactions, markers, fencing, leader epochs and topic ids."""

from collections.abc import Callable, Sequence

import msgspec

from tickhouse.errors import TransientError
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import (
    Bounds,
    LogBatch,
    OnRevoked,
    PositionOf,
    SpoolRange,
    Subscription,
    nothing_revoked,
)

SpoolPosition = tuple[str, int]
Join = Callable[[PositionOf, OnRevoked], Subscription]


class FencedError(Exception):
    """Somebody else has taken this transactional id since."""


class Slot(msgspec.Struct):
    """One offset: a record, or the marker that ends a transaction.

    Attributes:
        value: the record; None for a marker.
        spool: what its header says.
        transaction: number of its transaction; 0 without one.
    """

    value: bytes | None
    at_ms: int
    leader_epoch: int
    spool: SpoolPosition | None = None
    transaction: int = 0


class Partition:
    """Offsets `low .. end` of one life of a partition.

    Attributes:
        ever: every value that a reader could have seen at an offset.
        epoch_starts: first offset of each leader epoch.
    """

    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id
        self.low = 0
        self.slots: list[Slot] = []
        self.first = 0
        self.epoch_starts: dict[int, int] = {0: 0}
        self.open: dict[int, int] = {}
        self.aborted: set[int] = set()
        self.ever: dict[int, set[bytes]] = {}

    @property
    def end(self) -> int:
        """The high watermark."""
        return self.first + len(self.slots)

    @property
    def stable(self) -> int:
        """How far committed reads go: up to the first open transaction."""
        return min(self.open.values(), default=self.end)

    @property
    def leader_epoch(self) -> int:
        return max(self.epoch_starts)

    def append(self, slot: Slot) -> int:
        offset = self.end
        slot.leader_epoch = self.leader_epoch
        self.slots.append(slot)
        if slot.transaction and slot.value is not None:
            self.open.setdefault(slot.transaction, offset)
        return offset

    def finish(self, transaction: int, *, is_committed: bool) -> None:
        """Write the marker that ends a transaction here."""
        if transaction not in self.open:
            return
        del self.open[transaction]
        if not is_committed:
            self.aborted.add(transaction)
        self.append(Slot(None, 0, 0, transaction=transaction))

    def records(self, start: int, end: int) -> list[tuple[int, Slot]]:
        """Committed records in `start .. end`, which a committed reader is given."""
        end = min(end, self.stable)
        found = []
        for offset in range(max(start, self.low), end):
            slot = self.slots[offset - self.first]
            if slot.value is not None and slot.transaction not in self.aborted:
                self.ever.setdefault(offset, set()).add(slot.value)
                found.append((offset, slot))
        return found

    def trim(self, before: int) -> None:
        """Retention: what lies below is gone."""
        self.low = max(self.low, min(before, self.stable))
        if self.low - self.first > 0:
            self.slots = self.slots[self.low - self.first :]
            self.first = self.low

    def lose_tail(self, start: int) -> None:
        """The broker comes back without what it had from `start` on, under a new leader."""
        del self.slots[max(0, start - self.first) :]
        self.open = {number: at for number, at in self.open.items() if at < start}
        epoch = self.leader_epoch + 1
        kept = {old: min(at, self.end) for old, at in self.epoch_starts.items()}
        self.epoch_starts = {**kept, epoch: self.end}

    def epoch_of(self, offset: int) -> int | None:
        """Leader epoch of what lies at an offset, record or marker."""
        number = offset - self.first
        return self.slots[number].leader_epoch if 0 <= number < len(self.slots) else None

    def end_of_epoch(self, epoch: int) -> int:
        """Where the records of a leader epoch end."""
        later = [at for other, at in self.epoch_starts.items() if other > epoch]
        return min(later, default=self.end)

    def transaction_starts(self) -> list[int]:
        """Offsets at which the log may be cut without splitting a transaction."""
        starts, previous = [], -1
        for number, slot in enumerate(self.slots):
            if slot.transaction == 0 or slot.transaction != previous:
                starts.append(self.first + number)
            previous = slot.transaction
        return starts


class SimulatedKafka:
    """Topics, the transaction coordinator, and the offsets that groups commit.

    Attributes:
        committed: what landers committed: a hint.
        commits_on_read: what a reader is given counts as committed at once (a mutant's way).
        before: asked before each call of a client; may raise, or let others act.
    """

    def __init__(self, partitions: Sequence[TopicPartition]) -> None:
        self.held = {place: Partition(f"T{place.stream[0]}0") for place in partitions}
        self.past: list[tuple[TopicPartition, Partition]] = []
        self.committed: dict[TopicPartition, int] = {}
        self.before: Callable[[str], None] = lambda _what: None
        self.commits_on_read = False
        self.now_ms = 1_700_000_000_000
        self.batch_records = 4
        self._lives = 0
        self._transactions = 0
        self._fences: dict[str, int] = {}
        self._running: dict[str, tuple[int, TopicPartition]] = {}
        self._outcomes: dict[int, bool] = {}

    # -- transactions -------------------------------------------------------------------------

    def fence(self, name: str) -> int:
        """A new epoch of a transactional id; what was in flight under an older one is aborted."""
        self._fences[name] = self._fences.get(name, 0) + 1
        running = self._running.pop(name, None)
        if running is not None:
            self._finish(running, is_committed=False)
        return self._fences[name]

    def _check_fence(self, name: str, epoch: int) -> None:
        if self._fences.get(name) != epoch:
            raise FencedError(name)

    def begin(self, name: str, epoch: int, place: TopicPartition) -> int:
        self._check_fence(name, epoch)
        self._transactions += 1
        self._running[name] = (self._transactions, place)
        return self._transactions

    def produce(
        self,
        name: str,
        epoch: int,
        place: TopicPartition,
        records: Sequence[tuple[bytes, SpoolPosition | None]],
    ) -> list[int]:
        """Append within the running transaction; the offsets."""
        self._check_fence(name, epoch)
        number, began_at = self._running.get(name, (0, place))
        if not number or began_at != place:
            raise FencedError(f"{name}: no transaction")
        partition = self.held[place]
        return [
            partition.append(Slot(value, self.now_ms, 0, spool, number)) for value, spool in records
        ]

    def end_transaction(
        self, name: str, epoch: int, transaction: int, *, is_committed: bool
    ) -> None:
        """Commit or abort; asked again, it is what it was."""
        self._check_fence(name, epoch)
        running = self._running.get(name)
        if running is None or running[0] != transaction:
            if self._outcomes.get(transaction) != is_committed:
                raise FencedError(f"{name}: the transaction ended otherwise")
            return
        del self._running[name]
        self._finish(running, is_committed=is_committed)

    def _finish(self, running: tuple[int, TopicPartition], *, is_committed: bool) -> None:
        self._outcomes[running[0]] = is_committed
        self.held[running[1]].finish(running[0], is_committed=is_committed)

    # -- what happens to it -------------------------------------------------------------------

    def append_plain(self, place: TopicPartition, value: bytes) -> int:
        """A record of somebody else, without a transaction."""
        return self.held[place].append(Slot(value, self.now_ms, 0))

    def recreate(self, place: TopicPartition) -> None:
        """The topic is deleted and made again; readers are not told."""
        self._lives += 1
        for other in [other for other in self.held if other.stream is place.stream]:
            self.past.append((other, self.held[other]))
            self.committed.pop(other, None)
            self.held[other] = Partition(f"T{place.stream[0]}{self._lives}")
        gone = [name for name, (_, at) in self._running.items() if at.stream is place.stream]
        for name in gone:
            del self._running[name]

    def lives(self) -> list[tuple[TopicPartition, Partition]]:
        """Every partition of every life."""
        return [*self.past, *self.held.items()]

    # -- what readers see ---------------------------------------------------------------------

    def read_batch(self, place: TopicPartition, start: int, *, count: int) -> LogBatch | None:
        """Committed records from `start` on; None at the end."""
        partition = self.held[place]
        if start < partition.low:
            return LogBatch(
                place, partition.topic_id, start, partition.low, [], [], [], trimmed=True
            )
        if start >= partition.stable:
            return None
        found = partition.records(start, min(partition.stable, start + count))
        end = min(partition.stable, start + count)
        taken = [slot for _, slot in found]
        return LogBatch(
            place,
            partition.topic_id,
            start,
            end,
            [offset for offset, _ in found],
            [slot.at_ms for slot in taken],
            [slot.value or b"" for slot in taken],
            leader_epoch=taken[-1].leader_epoch if taken else None,
            spool=_spool_of(taken),
        )


def _spool_of(slots: Sequence[Slot]) -> SpoolRange | None:
    """Where records came from, if all of them came from one spool."""
    found = [slot.spool for slot in slots if slot.spool is not None]
    if len(found) < len(slots) or len({epoch for epoch, _ in found}) != 1:
        return None
    return SpoolRange(found[0][0], found[0][1], found[-1][1])


class SimulatedReader:
    """`LogReader` over the simulated Kafka; `join` makes its subscription."""

    def __init__(self, kafka: SimulatedKafka, join: Join) -> None:
        self._kafka = kafka
        self._join = join

    def topic_id(self, partition: TopicPartition) -> str:
        self._kafka.before("metadata")
        return self._kafka.held[partition].topic_id

    def partitions(self) -> list[TopicPartition]:
        self._kafka.before("metadata")
        return sorted(self._kafka.held)

    def bounds(self, partition: TopicPartition) -> Bounds:
        self._kafka.before("bounds")
        held = self._kafka.held[partition]
        return Bounds(held.low, held.stable)

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        self._kafka.before("read")
        count = 1 if bytes_max == 1 else self._kafka.batch_records
        return self._kafka.read_batch(partition, start, count=count)

    def subscribe(
        self, position_of: PositionOf, on_revoked: OnRevoked = nothing_revoked
    ) -> Subscription:
        return self._join(position_of, on_revoked)

    def close(self) -> None:
        pass


class AwayError(TransientError):
    """The broker does not answer."""

    def __init__(self) -> None:
        super().__init__("the broker does not answer", retry_after_s=0.1)
