"""The group's member without a broker: when it begins with a new client."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka import TopicPartition as KafkaPlace

from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream import kafka_group
from tickhouse.stream.kafka_group import KafkaSubscription
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Bounds, Position, nothing_revoked


class Client:
    """Stands for the library's consumer."""

    def __init__(self, _config: dict[str, Any]) -> None:
        self.assigned: list[KafkaPlace] = []
        self.sought: list[int] = []

    def subscribe(self, _topics: list[str], **_callbacks: object) -> None:
        pass

    def incremental_assign(self, places: list[KafkaPlace]) -> None:
        self.assigned += places

    def seek(self, place: KafkaPlace) -> None:
        self.sought.append(place.offset)

    def close(self) -> None:
        pass


def delivered(stream: Stream, offset: int, error: KafkaError | None = None) -> Message:
    return Message(
        topic=f"tickhouse.{stream}.v1",
        partition=0,
        offset=offset,
        value=b"record %d" % offset,
        timestamp=(1, 1_000),
        leader_epoch=0,
        error=error,
    )


class Ids:
    """Stands for the reader: topic ids as a test sets them."""

    def __init__(self) -> None:
        self.of = dict.fromkeys(Stream, "first")
        self.is_away = False

    def topic_id(self, partition: TopicPartition) -> str:
        return self.of[partition.stream]

    def bounds(self, _partition: TopicPartition) -> Bounds:
        if self.is_away:
            raise TransientError("away")
        return Bounds(0, 100)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    made: list[Client] = []

    def make(config: dict[str, Any]) -> Client:
        made.append(Client(config))
        return made[-1]

    monkeypatch.setattr(kafka_group, "Consumer", make)
    monkeypatch.setattr(kafka_group, "take", lambda *_: [])
    return made


def member(ids: Ids) -> KafkaSubscription:
    options = KafkaOptions(bootstrap="nowhere:9092")
    reader: Any = ids
    return KafkaSubscription(options, reader, lambda *_: Position(0), nothing_revoked)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_topic_made_anew_whose_partitions_it_never_had_is_read_by_a_new_client(
    clients: list[Client], *, is_new: bool
) -> None:
    """The old client knows that topic's leader epochs all the same, and would wait for good."""
    ids = Ids()
    subscription = member(ids)
    if is_new:
        ids.of[Stream.SESSIONS] = "second"
    given: Any = clients[0]
    subscription._assigned(given, [KafkaPlace("tickhouse.sessions.v1", 0)])
    subscription.poll(0)

    assert len(clients) == (2 if is_new else 1)
    subscription.poll(0)
    assert len(clients) == (2 if is_new else 1)


@pytest.fixture
def coming(monkeypatch: pytest.MonkeyPatch, clients: list[Client]) -> list[list[Message]]:
    """What the polls to come are given."""
    assert clients == []
    found: list[list[Message]] = []
    monkeypatch.setattr(kafka_group, "take", lambda *_: found.pop(0) if found else [])
    return found


def assigned(ids: Ids, clients: list[Client]) -> KafkaSubscription:
    subscription = member(ids)
    given: Any = clients[0]
    places = [KafkaPlace(f"tickhouse.{each}.v1", 0) for each in (Stream.TRADES, Stream.SESSIONS)]
    subscription._assigned(given, places)
    return subscription


def test_records_that_come_with_another_partitions_error_are_not_passed_over(
    clients: list[Client], coming: list[list[Message]]
) -> None:
    subscription = assigned(Ids(), clients)
    gone = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    coming += [
        [delivered(Stream.TRADES, 0, gone), delivered(Stream.SESSIONS, 0)],
        [delivered(Stream.SESSIONS, 1)],
    ]

    (first,) = subscription.poll(0)
    with pytest.raises(TransientError, match="is gone"):
        subscription.poll(0)
    (second,) = subscription.poll(0)

    assert (first.start, first.next, list(first.offsets)) == (0, 1, [0])
    assert (second.start, second.next, list(second.offsets)) == (1, 2, [1])


def test_a_position_that_cannot_be_looked_up_now_is_looked_up_again(
    clients: list[Client], coming: list[list[Message]]
) -> None:
    """The client stops at it, and tells it only once."""
    ids = Ids()
    subscription = assigned(ids, clients)
    lost = KafkaError(KafkaError._AUTO_OFFSET_RESET)
    coming += [[delivered(Stream.SESSIONS, 0, lost)], [delivered(Stream.SESSIONS, 0)]]
    assert subscription.poll(0) == []
    ids.is_away = True
    with pytest.raises(TransientError):
        subscription.poll(0)
    ids.is_away = False
    (batch,) = subscription.poll(0)

    assert clients[0].sought == [0]
    assert list(batch.offsets) == [0]
