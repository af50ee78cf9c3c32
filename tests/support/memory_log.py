"""A log in memory that can be trimmed, damaged, recreated and restored from an older copy."""

import copy

from tickhouse.errors import CorruptLogError, TransientError
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.following import Following
from tickhouse.stream.log import (
    Bounds,
    LogBatch,
    OnRevoked,
    PositionOf,
    Subscription,
    nothing_revoked,
)

SESSION = "0192f0a0-0000-7000-8000-000000000000"
RECEIVED_AT_NS = 1_732_300_000_000_000_000
TRADES = TopicPartition(Stream.TRADES, 0)


def frames(first: int, count: int, *, session: str = SESSION, size: int = 0) -> list[bytes]:
    """Envelopes; frame n was received n seconds after the first."""
    return [
        value
        for seq in range(first, first + count)
        for value in encode_frames(
            [b'{"data":[],"n":%d,"pad":"%b"}' % (seq, b"x" * size)],
            source="sim:finnhub.ws",
            session=session,
            first_seq=seq,
            received_at_ns=RECEIVED_AT_NS + seq * 1_000_000_000,
        )
    ]


class Partition:
    """Records by offset; an offset without one is a marker that holds no record."""

    def __init__(self) -> None:
        self.records: dict[int, tuple[int, bytes]] = {}
        self.begin = 0
        self.end = 0


class MemoryLog:
    """A log of any partitions, read through the subscription that the embedded log uses."""

    def __init__(self, topic_id: str = "e1", *, batch_records: int = 4) -> None:
        self.life = topic_id
        self.batch_records = batch_records
        self.held: dict[TopicPartition, Partition] = {}
        self.damaged: set[tuple[TopicPartition, int]] = set()
        self.is_away = False
        self.bytes_read = 0
        self._identity = 0
        self._version = 0

    # -- what tests do to it ------------------------------------------------------------------

    def append(self, partition: TopicPartition, values: list[bytes], *, at_ms: int = 7) -> None:
        place = self.held.setdefault(partition, Partition())
        for value in values:
            place.records[place.end] = (at_ms, value)
            place.end += 1
        self._version += 1

    def skip(self, partition: TopicPartition, count: int) -> None:
        """Offsets without records."""
        self.held.setdefault(partition, Partition()).end += count
        self._version += 1

    def trim(self, partition: TopicPartition, before: int) -> None:
        place = self.held[partition]
        place.begin = max(place.begin, min(before, place.end))
        place.records = {at: value for at, value in place.records.items() if at >= place.begin}
        self._version += 1

    def snapshot(self) -> dict[TopicPartition, Partition]:
        return copy.deepcopy(self.held)

    def restore(self, snapshot: dict[TopicPartition, Partition], *, topic_id: str = "") -> None:
        """Another file takes the log's place: an older copy, or (with a new id) another log."""
        self.held = copy.deepcopy(snapshot)
        self.life = topic_id or self.life
        self._identity += 1
        self._version += 1

    def recreate(self, topic_id: str) -> None:
        """The topic is deleted and made again, and readers are not told."""
        self.held = {partition: Partition() for partition in self.held}
        self.life = topic_id
        self._version += 1

    # -- what readers see ---------------------------------------------------------------------

    def topic_id(self, partition: TopicPartition) -> str:
        return self.life

    def partitions(self) -> list[TopicPartition]:
        self._check()
        return sorted(self.held)

    def bounds(self, partition: TopicPartition) -> Bounds:
        self._check()
        place = self.held.get(partition, Partition())
        return Bounds(place.begin, place.end)

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        self._check()
        place = self.held.get(partition, Partition())
        if start >= place.end:
            return None
        if start < place.begin:
            return LogBatch(partition, self.life, start, place.begin, [], [], [], trimmed=True)
        count = 1 if bytes_max == 1 else self.batch_records
        end = min(place.end, start + count)
        for offset in range(start, end):
            if (partition, offset) in self.damaged:
                raise CorruptLogError(partition.topic, partition.part, offset, "checksum differs")
        offsets = [offset for offset in range(start, end) if offset in place.records]
        taken = [place.records[offset] for offset in offsets]
        self.bytes_read += sum(len(value) for _, value in taken)
        times, values = [at for at, _ in taken], [value for _, value in taken]
        return LogBatch(partition, self.life, start, end, offsets, times, values)

    def subscribe(
        self, position_of: PositionOf, on_revoked: OnRevoked = nothing_revoked
    ) -> Subscription:
        return Following(self, position_of)

    def identity(self) -> object:
        return self._identity

    def data_version(self) -> int:
        self._check()
        return self._version

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.is_away:
            raise TransientError("the log is away", retry_after_s=0.1)
