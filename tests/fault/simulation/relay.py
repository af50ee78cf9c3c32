"""The relay of one partition in a schedule: the real carrier, a call or a batch at a time."""

from collections.abc import Generator
from typing import Any

from confluent_kafka import KafkaException

from tests.fault.simulation.kafka import SimulatedKafka
from tests.fault.simulation.spool import SimulatedSpool
from tickhouse.errors import ConfigError, TickhouseError
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.carrier import Again, Carrier
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Bounds, LogBatch


class SpoolReader:
    """A spool as the carrier reads it, a few records at a time."""

    def __init__(self, spool: SimulatedSpool, records: int) -> None:
        self._spool = spool
        self._records = records

    def topic_id(self, _partition: TopicPartition) -> str:
        return self._spool.epoch

    def bounds(self, _partition: TopicPartition) -> Bounds:
        return Bounds(self._spool.begin, self._spool.end)

    def read(self, partition: TopicPartition, start: int, *, bytes_max: int = 0) -> LogBatch | None:
        spool = self._spool
        if start < spool.begin:
            return LogBatch(partition, spool.epoch, start, spool.begin, [], [], [], trimmed=True)
        values = spool.frames[start : start + (1 if bytes_max == 1 else self._records)]
        if not values:
            return None
        end = start + len(values)
        times = [0] * len(values)
        return LogBatch(partition, spool.epoch, start, end, range(start, end), times, values)


class SpoolHints:
    """Notes, durable with the spool."""

    def __init__(self, spool: SimulatedSpool) -> None:
        self._spool = spool

    def has_relayed(self, _partition: TopicPartition) -> bool | None:
        return self._spool.has_relayed

    def note_relayed(self, _partition: TopicPartition, *, is_sure: bool) -> None:
        self._spool.has_relayed = is_sure


class Turns:
    """Stands for the event that stops a thread: set after a few looks at it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def wait(self, _seconds: float = 0.0) -> bool:
        return False

    def clear(self) -> None:
        pass


class Relay(Carrier):
    """A carrier that gives way between its calls.

    Attributes:
        resent: records were trimmed unseen, so that it could not tell its position from them.
    """

    def __init__(self, kafka: SimulatedKafka, spool: SimulatedSpool, *, batch: int) -> None:
        reader: Any = SpoolReader(spool, batch)
        super().__init__(
            partition=spool.place,
            spool=reader,
            hints=SpoolHints(spool),
            options=KafkaOptions(bootstrap="simulated:9092"),
            topic_id=lambda place: kafka.held[place].topic_id,
            tell_gap=self._note_gap,
        )
        self.spool = spool
        self.place = spool.place
        self.resent = False
        self._kafka = kafka
        self._came = Turns(0)  # type: ignore[assignment]

    def _note_gap(self, _place: TopicPartition, start: int, end: int, _since_ms: int) -> None:
        self.spool.told_gaps.append((start, end))

    def run(self) -> Generator[None]:
        """Life after life, as `Carrier.run`; ends where a person has to act."""
        while True:
            try:
                yield from self.live()
            except (ConfigError, KafkaException):
                return
            except (Again, TickhouseError):
                yield

    def live(self) -> Generator[None]:
        """One life, as `Carrier._live`."""
        producer = self._fence()
        yield
        position = yield from self.find_position()
        yield
        yield from self.carry_from(position, producer)

    def find_position(self) -> Generator[None, None, int]:
        while (position := self._find_position(Turns(2))) is None:
            yield
        return position

    def carry_from(self, position: int, producer: Any) -> Generator[None]:
        self.position = position
        while True:
            self._carry(producer, Turns(1))
            yield

    def _position_after(self, tail: Any) -> int:
        self.resent = self.resent or (tail.offset is None and tail.low > 0)
        return super()._position_after(tail)
