"""The group's member without a broker: when it begins with a new client."""

from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaPlace

from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream import kafka_group
from tickhouse.stream.kafka_group import KafkaSubscription
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Position, nothing_revoked


class Client:
    """Stands for the library's consumer."""

    def __init__(self, _config: dict[str, Any]) -> None:
        self.assigned: list[KafkaPlace] = []

    def subscribe(self, _topics: list[str], **_callbacks: object) -> None:
        pass

    def incremental_assign(self, places: list[KafkaPlace]) -> None:
        self.assigned += places

    def close(self) -> None:
        pass


class Ids:
    """Stands for the reader: topic ids as a test sets them."""

    def __init__(self) -> None:
        self.of = dict.fromkeys(Stream, "first")

    def topic_id(self, partition: TopicPartition) -> str:
        return self.of[partition.stream]


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
