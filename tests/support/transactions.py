"""Records in Kafka as a relay writes them: in transactions, each with its place in the spool."""

from collections.abc import Sequence

from confluent_kafka import Producer

from tests.servers.kafka import KafkaServer
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.kafka_client import SPOOL_HEADER, spool_header


class Transactions:
    """A transactional producer of one test.

    Args:
        kafka: the broker.
        prefix: of the topics; the transactional id as well.
        epoch: of the spool that the records are said to come from; None = a foreign producer's.
    """

    def __init__(self, kafka: KafkaServer, prefix: str, *, epoch: str | None = "s1") -> None:
        self._prefix = prefix
        self._epoch = epoch
        self._next: dict[TopicPartition, int] = {}
        settings = {
            "bootstrap.servers": kafka.bootstrap,
            "transactional.id": f"{prefix}-{epoch}",
            "linger.ms": 0,
        }
        self._producer = Producer(settings)
        self._producer.init_transactions(30)

    def write(
        self,
        place: TopicPartition,
        values: Sequence[bytes],
        *,
        first: int | None = None,
        is_aborted: bool = False,
    ) -> None:
        """One transaction, settled when this returns; `first` = spool offset of the first one."""
        start = self._next.get(place, 0) if first is None else first
        topic = f"{self._prefix}.{place.stream}.v1"
        self._producer.begin_transaction()
        for offset, value in enumerate(values, start):
            headers = (
                [] if self._epoch is None else [(SPOOL_HEADER, spool_header(self._epoch, offset))]
            )
            self._producer.produce(topic, value, partition=place.part, headers=headers)
        if is_aborted:
            self._producer.flush(30)
            self._producer.abort_transaction(30)
            return
        self._producer.commit_transaction(30)
        self._next[place] = start + len(values)
