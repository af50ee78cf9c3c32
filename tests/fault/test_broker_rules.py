"""Rules about relay and Kafka that no broker of ours breaks by itself (DESIGN 9)."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.fault.simulation.chance import Chance
from tests.fault.simulation.clients import Clients
from tests.fault.simulation.group import Group
from tests.fault.simulation.kafka import SimulatedKafka, SimulatedReader
from tests.fault.simulation.relay import Relay
from tests.fault.simulation.spool import SimulatedSpool
from tests.servers.kafka import KafkaServer
from tests.support.memory_store import MemoryStore
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.object import unpack
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_client import client_config
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.topics import Topics, topic_name

PLACE = TopicPartition(Stream.TRADES, 0)


class Desk:
    """One partition on a simulated broker, its spool, relay and lander, and no chance at all."""

    def __init__(self) -> None:
        chance = Chance(0)
        chance.is_healed = True
        self.kafka = SimulatedKafka([PLACE])
        self.clients = Clients(self.kafka, chance, lambda: None)
        self.spool = SimulatedSpool(PLACE, 0)
        self.store = MemoryStore()
        self.now_s = 0.0
        self.group = Group(self.kafka, self._pass)

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds

    def relay(self) -> Iterator[None]:
        return Relay(self.kafka, self.spool, batch=2).run()

    def lander(self) -> Lander:
        reader: Any = SimulatedReader(self.kafka, self.group.join)
        return Lander(reader, self.store, clock=lambda: self.now_s, sleep=self._pass)

    def carried(self) -> list[bytes | None]:
        held = self.kafka.held[PLACE]
        return [slot.value for _, slot in held.records(held.low, held.end)]

    def landed(self) -> list[bytes]:
        """Records of every chain, without their positions."""
        return [
            line.split(b",", 4)[4]
            for found in find_chains(self.store)
            for key in sorted(self.store.objects)
            if key.startswith(found.prefix) and not key.endswith("GENESIS")
            for line in unpack(self.store.objects[key], key).splitlines()
        ]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.clients.close()


def advance(running: Iterator[None], turns: int = 20) -> None:
    for _ in range(turns):
        next(running)


def test_delivered_offsets_that_do_not_rise_restart_the_relay(desk: Desk) -> None:
    running = desk.relay()
    desk.spool.append(6)
    advance(running)
    desk.kafka.held[PLACE].lose_tail(3)
    desk.spool.append(2)
    advance(running)

    assert desk.carried() == desk.spool.frames


def test_a_tail_that_the_broker_lost_shows_by_its_leader_epoch_though_the_log_has_grown_again(
    desk: Desk,
) -> None:
    running, lander = desk.relay(), desk.lander()
    desk.spool.append(6)
    advance(running)
    lander.drain()
    desk.kafka.held[PLACE].lose_tail(3)
    desk.spool.append(20)
    advance(running, 40)
    lander.drain()

    assert len(find_chains(desk.store)) == 2
    assert set(desk.landed()) == {value[1:] for value in desk.spool.frames}
    assert desk.kafka.held[PLACE].end > 9


def test_a_lost_tail_that_was_written_again_and_trimmed_is_a_chain_that_begins_with_a_gap(
    desk: Desk,
) -> None:
    """What the lake holds there cannot be compared any more; that the log was cut is known."""
    running, lander = desk.relay(), desk.lander()
    desk.spool.append(6)
    advance(running)
    lander.drain()
    held = desk.kafka.held[PLACE]
    landed = held.end
    held.lose_tail(3)
    desk.spool.append(20)
    advance(running, 40)
    held.trim(landed - 1)
    kept = {slot.value for _, slot in held.records(held.low, held.end)}
    lander.drain()

    chains = find_chains(desk.store)
    first = next(iter(Chain(desk.store, chains[1]).walk()))[1]
    assert [chain.topic_id.partition(".")[2] for chain in chains] == ["", "1"]
    assert (first.gap, first.start, first.next) == (True, 0, landed - 1)
    assert {b"{" + value for value in desk.landed()} >= kept


def test_a_recorders_wrong_clock_lets_kafka_delete_nothing_too_early(
    kafka: KafkaServer,
    topics: str,
) -> None:
    """The log's time is the broker's, whatever a producer says."""
    options = KafkaOptions(bootstrap=kafka.bootstrap, prefix=topics)
    Topics(options).ensure(partitions=1, replication=1, retention_ms=3_600_000)
    producer = Producer(client_config(options))
    told_ms = [1_000_000_000_000, 4_000_000_000_000]
    for at_ms in told_ms:
        producer.produce(topic_name(options, Stream.TRADES), b"x", partition=0, timestamp=at_ms)
    assert producer.flush(20) == 0

    reader = KafkaReader(options)
    batch = reader.read(PLACE, 0)
    reader.close()
    assert batch is not None
    first, last = batch.log_times_ms[0], batch.log_times_ms[-1]
    assert len(batch.values) == 2
    assert told_ms[0] < first <= last < told_ms[1]
    assert last - first < 60_000
