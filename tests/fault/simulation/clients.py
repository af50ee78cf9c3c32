"""The Kafka clients that the relay uses, answered by the simulated broker."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException

from tests.fault.simulation.chance import Chance, Crash
from tests.fault.simulation.kafka import FencedError, SimulatedKafka, Slot, SpoolPosition
from tickhouse.model.positions import TopicPartition
from tickhouse.stream import carrier, relay_tail
from tickhouse.stream.kafka import EARLIEST
from tickhouse.stream.kafka_client import SPOOL_HEADER, read_spool_header, spool_header

Request = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Method of the broker, and what it is called with."""


class Message:
    """What a client is given: a record, its acknowledgement, or an error."""

    def __init__(
        self, offset: int, slot: Slot | None = None, error: KafkaError | None = None
    ) -> None:
        self._offset = offset
        self._slot = slot
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return None if self._slot is None else self._slot.value

    def timestamp(self) -> tuple[int, int]:
        return 2, 0 if self._slot is None else self._slot.at_ms

    def headers(self) -> list[tuple[str, bytes]] | None:
        if self._slot is None or self._slot.spool is None:
            return None
        return [(SPOOL_HEADER, spool_header(*self._slot.spool))]


class Clients:
    """Makes producers and consumers of one schedule, and puts them in the relay's hands.

    Args:
        kafka: the broker.
        chance: decides what is lost.
        interrupt: lets others act while a call is on its way.

    Attributes:
        in_flight: what dead clients had sent, not yet arrived at the broker.
    """

    def __init__(
        self, kafka: SimulatedKafka, chance: Chance, interrupt: Callable[[], None]
    ) -> None:
        self.kafka = kafka
        self.in_flight: list[Request] = []
        self._chance = chance
        self._interrupt = interrupt
        self._places = {(place.topic, place.part): place for place in kafka.held}
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(carrier, "Producer", lambda config: Producer(self, config))
        self._patch.setattr(relay_tail, "Consumer", lambda _config: Consumer(self))
        self._patch.setattr(relay_tail, "AdminClient", lambda _config: None)
        self._patch.setattr(relay_tail, "_offset", self._offset)
        self._patch.setattr(relay_tail, "time", self)
        self._now_s = 0.0

    def close(self) -> None:
        self._patch.undo()

    def monotonic(self) -> float:
        """Seconds for the relay's time-outs: they pass by being looked at."""
        self._now_s += 0.5
        return self._now_s

    def place(self, topic: str, part: int) -> TopicPartition:
        return self._places[topic, part]

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Ask the broker; the request or its answer may be lost, or the caller die.

        Raises:
            KafkaException: as the client raises it.
        """
        strikes = self._chance.strikes
        self._interrupt()
        if strikes("kill_relay", 0.02):
            may_arrive = method in ("produce", "end_transaction")
            if may_arrive and strikes("late_request", 0.8):
                self.in_flight.append((method, arguments, options))
            raise Crash
        if strikes("kafka_away", 0.01):
            raise lost_answer()
        try:
            answer = getattr(self.kafka, method)(*arguments, **options)
        except FencedError:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", True)) from None
        if strikes("kill_relay", 0.01):
            raise Crash
        if strikes("kafka_answer_lost", 0.02):
            raise lost_answer()
        return answer

    def _offset(self, _admin: Any, _options: Any, place: Any, spec: Any, isolation: Any) -> int:
        self._interrupt()
        held = self.kafka.held[self.place(place.topic, place.partition)]
        if spec is EARLIEST:
            return held.low
        return held.stable if isolation == IsolationLevel.READ_COMMITTED else held.end


def lost_answer() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", False, True))


class Producer:
    """A transactional producer: what it is given goes out when it is flushed."""

    def __init__(self, clients: Clients, config: dict[str, Any]) -> None:
        self._clients = clients
        self._name = config["transactional.id"]
        self._epoch = 0
        self._transaction = 0
        self._queued: list[tuple[bytes, SpoolPosition | None]] = []
        self._answer: Callable[[KafkaError | None, Message], None] | None = None
        self._place: TopicPartition | None = None

    def init_transactions(self, _timeout: float) -> None:
        self._epoch = self._clients.call("fence", self._name)

    def begin_transaction(self) -> None:
        self._queued, self._transaction = [], 0

    def produce(self, topic: str, value: bytes, _key: bytes, **options: Any) -> None:
        self._place = self._clients.place(topic, options["partition"])
        self._answer = options["on_delivery"]
        self._queued.append((value, read_spool_header(options["headers"])))

    def flush(self, _timeout: float) -> None:
        """Send; where the answer is lost, nothing is told of the records."""
        place, answer = self._place, self._answer
        assert place is not None
        assert answer is not None
        try:
            number = self._clients.kafka.begin(self._name, self._epoch, place)
        except FencedError:
            answer(KafkaError(KafkaError._FENCED, "fenced", True), Message(-1))
            return
        self._transaction = number
        try:
            offsets = self._clients.call("produce", self._name, self._epoch, place, self._queued)
        except KafkaException as error:
            if error.args[0].fatal():
                answer(error.args[0], Message(-1))
            return
        for offset in offsets:
            answer(None, Message(offset))

    def poll(self, _timeout: float) -> None:
        """Nothing waits."""

    def commit_transaction(self, _timeout: float) -> None:
        self._end(is_committed=True)

    def abort_transaction(self, _timeout: float) -> None:
        self._end(is_committed=False)

    def _end(self, *, is_committed: bool) -> None:
        self._clients.call(
            "end_transaction",
            self._name,
            self._epoch,
            self._transaction,
            is_committed=is_committed,
        )

    def purge(self) -> None:
        self._queued = []


class Consumer:
    """A consumer that reads one partition, committed records only, up to its end."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._messages: list[Message] = []

    def assign(self, places: Sequence[Any]) -> None:
        kafka = self._clients.kafka
        held = kafka.held[self._clients.place(places[0].topic, places[0].partition)]
        records = held.records(places[0].offset, held.end)
        self._messages = [Message(offset, slot) for offset, slot in records]
        end = KafkaError(KafkaError._PARTITION_EOF, "end")
        self._messages.append(Message(held.stable, error=end))

    def poll(self, _timeout: float) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def consume(self, _count: int, _timeout: float) -> list[Message]:
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        pass
