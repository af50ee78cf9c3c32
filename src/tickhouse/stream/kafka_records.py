"""Reading records of Kafka: how a consumer is set up, and batches made of what it gives."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Consumer, Message
from confluent_kafka.admin import OffsetSpec

from tickhouse.model.positions import TopicPartition
from tickhouse.stream.kafka_client import client_config, read_spool_header
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import LogBatch, SpoolRange

EARLIEST: Final = OffsetSpec(-2)  # pyright: ignore[reportAbstractUsage] - gives the one it keeps
LATEST: Final = OffsetSpec(-1)  # pyright: ignore[reportAbstractUsage]
MESSAGES_MAX: Final = 2_000
"""So many at a time stay in the processor's cache."""


def reading_config(options: KafkaOptions, group: str) -> dict[str, Any]:
    """Configuration of a consumer that keeps its position elsewhere."""
    return {
        **client_config(options),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": 32_768,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 50,
    }


def take(consumer: Consumer, timeout_s: float) -> list[Message]:
    """What has come, at once; what comes first, if nothing has."""
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(MESSAGES_MAX - 1, 0)]


def make_batch(
    partition: TopicPartition,
    topic_id: str,
    start: int,
    messages: Sequence[Message],
    following: int,
) -> LogBatch:
    """A batch of records of one partition, in order; a tombstone is an empty record."""
    if not messages:
        return LogBatch(partition, topic_id, start, following, [], [], [])
    first, last = messages[0].offset() or 0, messages[-1].offset() or 0
    is_dense = last - first == len(messages) - 1
    return LogBatch(
        partition,
        topic_id,
        start,
        following,
        range(first, last + 1) if is_dense else [m.offset() or 0 for m in messages],
        [stamp[1] for stamp in map(Message.timestamp, messages)],
        [value or b"" for value in map(Message.value, messages)],
        leader_epoch=messages[-1].leader_epoch(),
        spool=_spool_of(messages),
    )


def _spool_of(messages: Sequence[Message]) -> SpoolRange | None:
    """The range of a spool that all of some records come from; None where they do not.

    As many records as the first and the last one span are not looked at one by one.
    """
    begins, ends = (read_spool_header(found.headers()) for found in (messages[0], messages[-1]))
    if begins is None or ends is None or begins[0] != ends[0]:
        return None
    if ends[1] - begins[1] != len(messages) - 1:
        found = map(read_spool_header, map(Message.headers, messages))
        if any(place is None or place[0] != begins[0] for place in found):
            return None
    return SpoolRange(begins[0], begins[1], ends[1])
