"""Records in Kafka as a relay writes them: in transactions, each with its place in the spool."""

from collections.abc import Sequence

from support.kafka_topics import Writer
from tests.servers.kafka import KafkaServer
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.kafka_options import KafkaOptions


class Transactions:
    """A transactional producer of one test.

    Args:
        kafka: the broker.
        prefix: of the topics; the transactional id as well.
        epoch: of the spool that the records are said to come from; None = a foreign producer's.
    """

    def __init__(self, kafka: KafkaServer, prefix: str, *, epoch: str | None = "s1") -> None:
        self._writer = Writer(KafkaOptions(bootstrap=kafka.bootstrap, prefix=prefix), str(epoch))
        self._epoch = epoch
        self._next: dict[TopicPartition, int] = {}

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
        spool = None if self._epoch is None else (self._epoch, start)
        self._writer.put(place, values, spool=spool, abort=is_aborted)
        if not is_aborted:
            self._next[place] = start + len(values)
