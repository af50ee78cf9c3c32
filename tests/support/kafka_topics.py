"""Records put into topics behind the product's back."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from tickhouse.model.positions import TopicPartition
from tickhouse.stream.kafka_client import SPOOL_HEADER, client_config, spool_header
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.topics import Topics, topic_name


def make_topics(options: KafkaOptions, *, partitions: int = 2) -> Topics:
    """The topics of a prefix."""
    topics = Topics(options)
    topics.ensure(partitions=partitions, replication=1, retention_ms=-1)
    return topics


class Writer:
    """A transactional producer under a name of its own."""

    def __init__(self, options: KafkaOptions, name: str = "writer") -> None:
        self._options = options
        self.producer = Producer(
            {**client_config(options), "transactional.id": f"{options.prefix}-{name}"}
        )
        self.producer.init_transactions(20)

    def put(
        self,
        place: TopicPartition,
        values: Sequence[bytes | None],
        *,
        spool: tuple[str, int] | None = None,
        abort: bool = False,
        leave_open: bool = False,
    ) -> None:
        """One transaction; `spool` is the epoch and offset of the first record."""
        self.producer.begin_transaction()
        for n, value in enumerate(values):
            headers: list[tuple[str, Any]] = []
            if spool is not None:
                headers.append((SPOOL_HEADER, spool_header(spool[0], spool[1] + n)))
            topic = topic_name(self._options, place.stream)
            self.producer.produce(topic, value, partition=place.part, headers=headers)
        self.producer.flush(20)
        if leave_open:
            return
        if abort:
            self.producer.abort_transaction(20)
        else:
            self.producer.commit_transaction(20)
