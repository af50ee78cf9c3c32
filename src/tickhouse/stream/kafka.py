"""The log on Apache Kafka: read committed, at any offset, with the holes that transactions leave.

Control records and aborted transactions use offsets, so a batch's `next` may lie further than its
last record; at the end of a partition it lies behind the last marker.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false
# (the futures of the client's admin calls say nothing of what they hold)

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    Message,
)
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient, OffsetSpec

from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka_client import (
    MISSING,
    TIMEOUT_S,
    answer_of,
    client_config,
    raise_kafka,
)
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.kafka_records import EARLIEST, LATEST, make_batch, reading_config, take
from tickhouse.stream.log import (
    Bounds,
    LogBatch,
    OnRevoked,
    PositionOf,
    Subscription,
    nothing_revoked,
)
from tickhouse.stream.topics import Topics, kafka_place, missing_topics

PLACED_S: Final = 5.0
"""Topics and their partitions are looked up again after this time."""
TOPIC_ID_S: Final = 1.0
ATTEMPTS: Final = 3
FIRST_S: Final = 10.0
"""A position is given so long to yield its first record, or the end."""


class KafkaReader:
    """A reader of the topics of a prefix. Threads may share it.

    Args:
        options: the cluster and the prefix.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._admin = AdminClient(client_config(options))
        self._topics = Topics(options, self._admin)
        self._placed: dict[Stream, tuple[str, int]] = {}
        self._placed_until = 0.0
        self._readers: dict[TopicPartition, _PartitionReader] = {}
        self._lock = threading.Lock()

    def topic_id(self, partition: TopicPartition) -> str:
        """See `LogReader.topic_id`; asks the broker.

        Raises:
            ConfigError, RefusedError, TransientError: see `raise_kafka`.
        """
        return self._topics.topic_id(partition.stream)

    def partitions(self) -> list[TopicPartition]:
        """See `LogReader.partitions`.

        Raises:
            ConfigError: no topic is there.
            TransientError: the cluster cannot be reached.
        """
        places = [
            TopicPartition(stream, part)
            for stream, (_, count) in self._where().items()
            for part in range(count)
        ]
        ends = self._offsets(places, LATEST)
        return sorted(place for place, end in ends.items() if end > 0)

    def _where(self) -> dict[Stream, tuple[str, int]]:
        now = time.monotonic()
        if now >= self._placed_until:
            self._placed = self._topics.placed()
            self._placed_until = now + PLACED_S
        if not self._placed:
            self._placed_until = 0.0
            raise missing_topics(self._options)
        return self._placed

    def bounds(self, partition: TopicPartition) -> Bounds:
        """See `LogReader.bounds`; the end is that of what is committed, markers included."""
        begin = self._offsets([partition], EARLIEST).get(partition, 0)
        end = self._offsets([partition], LATEST).get(partition, 0)
        return Bounds(min(begin, end), end)

    def _offsets(
        self, places: Sequence[TopicPartition], spec: OffsetSpec
    ) -> dict[TopicPartition, int]:
        """An offset of each partition that is there."""
        names = {kafka_place(self._options, place): place for place in places}
        if not names:
            return {}
        answers = self._admin.list_offsets(
            dict.fromkeys(names, spec),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=TIMEOUT_S,
        )
        found: dict[TopicPartition, int] = {}
        for place, answer in answers.items():
            facts = answer_of(answer, f"{self._options.url}: ends of {place.topic}", but=MISSING)
            if facts is not None:
                found[names[place]] = facts.offset
        return found

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        """See `LogReader.read`. Where records follow one another, so should calls.

        Raises:
            ConfigError, RefusedError, TransientError: see `raise_kafka`.
        """
        with self._lock:
            reader = self._readers.get(partition)
            if reader is None:
                reader = _PartitionReader(self._options, partition, self.topic_id)
                self._readers[partition] = reader
        with reader.lock:
            for _ in range(ATTEMPTS):
                try:
                    found = reader.read(start, bytes_max)
                except TransientError:
                    self._leave(partition, reader)
                    raise
                if found is not None:
                    messages, following = found
                    return make_batch(partition, reader.topic_id(), start, messages, following)
                if reader.is_level:
                    return None
                bounds = self.bounds(partition)
                if start < bounds.begin:
                    return self._trimmed(partition, start, bounds.begin)
                if start >= bounds.end:
                    return None
        raise TransientError(f"{self._options.url}: {partition}@{start} is there, but not read yet")

    def _leave(self, partition: TopicPartition, reader: "_PartitionReader") -> None:
        """Begin with a new client next time: whatever this one waits for may never come."""
        with self._lock:
            if self._readers.get(partition) is reader:
                del self._readers[partition]
        reader.end()

    def _trimmed(self, partition: TopicPartition, start: int, following: int) -> LogBatch:
        topic_id = self.topic_id(partition)
        return LogBatch(partition, topic_id, start, following, [], [], [], trimmed=True)

    def subscribe(
        self, position_of: PositionOf, on_revoked: OnRevoked = nothing_revoked
    ) -> Subscription:
        """See `LogReader.subscribe`: as a member of the consumer group.

        Raises:
            ConfigError: no topic is there.
        """
        from tickhouse.stream.kafka_group import KafkaSubscription

        self._where()
        return KafkaSubscription(self._options, self, position_of, on_revoked)

    def close(self) -> None:
        """See `LogReader.close`."""
        with self._lock:
            readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.close()


class _PartitionReader:
    """Reads one partition at any offset; going on where the last read ended costs nothing.

    Args:
        options: the cluster and the prefix.
        partition: which.
        ask_topic_id: asks the cluster for the topic's life.

    Attributes:
        is_level: the end was reached; what comes after it comes by itself.
    """

    def __init__(
        self,
        options: KafkaOptions,
        partition: TopicPartition,
        ask_topic_id: Callable[[TopicPartition], str],
    ) -> None:
        self.lock = threading.Lock()
        self._partition = partition
        self._ask_topic_id = ask_topic_id
        self._place = kafka_place(options, partition)
        self._options = options
        self._url = options.url
        self._consumer = self._open()
        self._position = -1
        self._ahead: deque[Message] = deque()
        self._end = -1
        self.is_level = False
        self._topic_id = ""
        self._topic_id_until = 0.0

    def _open(self) -> Consumer:
        return Consumer(reading_config(self._options, f"{self._options.group}-reader"))

    def topic_id(self) -> str:
        """Topic id, asked for now and then: a topic may be made anew under a reader."""
        now = time.monotonic()
        if now >= self._topic_id_until:
            self._topic_id = self._ask_topic_id(self._partition)
            self._topic_id_until = now + TOPIC_ID_S
        return self._topic_id

    def read(self, start: int, bytes_max: int) -> tuple[list[Message], int] | None:
        """Messages from `start` on and where to go on; None at the end, and where nothing is."""
        if start != self._position:
            self._seek(start)
        if not self._ahead and not self._fill():
            following, self._end = self._end, -1
            if following <= start or self._position < 0:
                return None
            self._position = following
            return [], following
        messages, size = [self._ahead.popleft()], 0
        while self._ahead and size < bytes_max and bytes_max > 1:
            messages.append(self._ahead.popleft())
            size += len(messages[-1])
        following = (messages[-1].offset() or 0) + 1
        if not self._ahead and self._end > following:
            following, self._end = self._end, -1
        self._position = following
        return messages, following

    def _seek(self, start: int) -> None:
        self._ahead.clear()
        self._end, self.is_level, self._topic_id_until = -1, False, 0.0
        known = self._topic_id
        if known not in ("", self.topic_id()):
            # The client would wait for the leader epochs of the topic that was there before.
            self._consumer.close()
            self._consumer = self._open()
        self._consumer.assign([KafkaPlace(self._place.topic, self._place.partition, start)])
        self._position = start

    def _fill(self) -> bool:
        """Take what has come; of a new position, wait for its first record or the end."""
        deadline = time.monotonic() + (0.0 if self.is_level else FIRST_S)
        while True:
            wait_s = max(0.0, min(0.5, deadline - time.monotonic()))
            for message in take(self._consumer, wait_s):
                self._take(message)
            if self._ahead or self.is_level or self._position < 0:
                return bool(self._ahead)
            if time.monotonic() >= deadline:
                raise TransientError(f"{self._url}: nothing from {self._place.topic} yet")

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._ahead.append(message)
            return
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own name
            self._end, self.is_level = message.offset() or 0, True
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):  # noqa: SLF001
            self._position = -1
        elif not error.retriable():
            raise_kafka(error, f"{self._url}: read {self._place.topic}[{self._place.partition}]")

    def end(self) -> None:
        """Close its client; the caller has the lock."""
        self._consumer.close()

    def close(self) -> None:
        with self.lock:
            self.end()
