"""Follows the live end of the log within a budget of time; behind too far, it skips ahead.

The page shows what happens now. A reader that cannot keep up with the log must not show minutes-old
trades as live, nor take the machine from the stages that must not lose anything: it jumps to the
end, says what it left out, and published gold fills that in.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from tickhouse.errors import CorruptLogError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import LogBatch, LogReader

RECORDS_A_STEP: Final = 256
BYTES_A_READ: Final = 1 << 20
FOLLOWED: Final = frozenset({Stream.TRADES, Stream.QUOTES, Stream.SESSIONS})


class Chunk(NamedTuple):
    """Records that follow each other in one partition; `log_ms` is when the log took the last."""

    partition: TopicPartition
    offsets: Sequence[int]
    values: Sequence[bytes]
    log_ms: int


class _Place:
    """Where the reader is in one partition: a batch in hand and the next record in it."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.batch: LogBatch | None = None
        self.index = 0

    def go_to(self, position: int) -> None:
        self.position, self.batch, self.index = position, None, 0


class LogTail:
    """Reads new records of trades, quotes and sessions, their partitions in turn.

    Args:
        log: the log; its writer is never blocked.
        clock_ms: wall clock, UNIX milliseconds; compared with the log's times.
        lag_ms_max: with unread records older than this at the end of the budget, skip ahead.

    Attributes:
        is_resting: nobody looks at trades: none are read.
    """

    def __init__(
        self, log: LogReader, *, clock_ms: Callable[[], int], lag_ms_max: int = 3_000
    ) -> None:
        self._log = log
        self._clock_ms = clock_ms
        self._lag_ms_max = lag_ms_max
        self._places: dict[TopicPartition, _Place] = {}
        self._jumps: dict[TopicPartition, int] = {}
        self._topic_ids: dict[Stream, str] = {}
        self.is_resting = False
        self.skipped_records = 0
        self.damage: str | None = None

    def discover(self, start_of: Callable[[TopicPartition], int]) -> bool:
        """Look for new partitions, each read from `start_of`; True if the log was replaced."""
        partitions = [place for place in self._log.partitions() if place.stream in FOLLOWED]
        firsts = {partition.stream: partition for partition in reversed(partitions)}
        topic_ids = {stream: self._log.topic_id(first) for stream, first in firsts.items()}
        was_replaced = any(
            topic_ids.get(stream, known) != known for stream, known in self._topic_ids.items()
        )
        if was_replaced:
            self._places.clear()
            self._topic_ids.clear()
        self._topic_ids |= topic_ids
        for partition in partitions:
            if partition not in self._places:
                self._places[partition] = _Place(start_of(partition))
        return was_replaced

    def topic_id(self, stream: Stream) -> str:
        """Life of the stream's topic, "" while it has none."""
        return self._topic_ids.get(stream, "")

    def partitions(self) -> list[TopicPartition]:
        """Partitions that are followed."""
        return list(self._places)

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be read."""
        place = self._places.get(partition)
        return place.position if place is not None else 0

    def move(self, place_of: Callable[[TopicPartition], int]) -> None:
        """Go on elsewhere: nobody misses what lies between."""
        for partition, place in self._places.items():
            if partition.stream is Stream.TRADES:
                place.go_to(place_of(partition))

    def read(self, is_spent: Callable[[], bool]) -> Iterator[Chunk]:
        """New records in small chunks, the partitions in turn, until level or `is_spent`."""
        waiting = [
            place
            for place in self._places
            if not (self.is_resting and place.stream is Stream.TRADES)
        ]
        while waiting and not is_spent():
            for partition in list(waiting):
                chunk = self._next_chunk(partition)
                if chunk is None:
                    waiting.remove(partition)
                    continue
                yield chunk
                if is_spent():
                    break

    def skip_if_behind(self) -> dict[TopicPartition, int]:
        """Go to the end of each partition that is too far behind; session events are all read.

        Returns:
            Where reading went on after records were left out since the last call, for this or
            another reason (retention, damage).
        """
        limit_ms = self._clock_ms() - self._lag_ms_max
        for partition, place in self._places.items():
            if place.batch is None or place.batch.log_times_ms[place.index] >= limit_ms:
                continue
            if partition.stream is Stream.SESSIONS:
                continue
            self._jump(partition, place, self._log.bounds(partition).end)
        jumps, self._jumps = self._jumps, {}
        return jumps

    def _jump(self, partition: TopicPartition, place: _Place, position: int) -> None:
        self.skipped_records += position - place.position
        self._jumps[partition] = position
        place.go_to(position)

    def _next_chunk(self, partition: TopicPartition) -> Chunk | None:
        place = self._places[partition]
        while place.batch is None:
            if not self._fetch(partition, place):
                return None
        batch, start = place.batch, place.index
        end = min(start + RECORDS_A_STEP, len(batch.values))
        chunk = Chunk(
            partition,
            batch.offsets[start:end],
            batch.values[start:end],
            batch.log_times_ms[end - 1],
        )
        if end == len(batch.values):
            place.go_to(batch.next)
        else:
            place.index, place.position = end, batch.offsets[end]
        return chunk

    def _fetch(self, partition: TopicPartition, place: _Place) -> bool:
        """Take the next batch in hand, or pass a trimmed range; False at the end."""
        try:
            batch = self._log.read(partition, place.position, bytes_max=BYTES_A_READ)
        except CorruptLogError as error:
            self.damage = str(error)
            self._jump(partition, place, self._log.bounds(partition).end)
            return False
        if batch is None:
            return False
        if batch.values:
            place.batch, place.index = batch, 0
        elif batch.trimmed:
            self._jump(partition, place, batch.next)
        else:
            place.go_to(batch.next)
        return True
