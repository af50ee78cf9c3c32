"""A lander over fakes, moved by hand, and the oracle of what it landed."""

import msgspec

from support.memory_log import TRADES, MemoryLog
from support.memory_store import FaultyStore
from tickhouse.bronze.chain import Chain
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.object import Manifest, unpack, verify
from tickhouse.bronze.store import Store
from tickhouse.model.positions import ChainId, TopicPartition


class Clock:
    """Monotonic seconds that pass a little whenever they are read, and by sleeping."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def chain_of(partition: TopicPartition = TRADES, topic_id: str = "e1") -> ChainId:
    return ChainId(partition.stream, partition.topic, topic_id, partition.part)


class Bench:
    """One log, one store, one lander that rotates only when told to."""

    def __init__(self, *, batch_records: int = 4) -> None:
        self.clock = Clock()
        self.log = MemoryLog(batch_records=batch_records)
        self.store = FaultyStore()

    def lander(
        self,
        *,
        bytes_max: int = 1 << 20,
        age_s_max: float = 1e9,
        memory_bytes_max: int = 1 << 30,
    ) -> Lander:
        return Lander(
            self.log,
            self.store,
            bytes_max=bytes_max,
            age_s_max=age_s_max,
            memory_bytes_max=memory_bytes_max,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def landed(self, partition: TopicPartition = TRADES, topic_id: str = "e1") -> list[int]:
        return landed_offsets(self.store, chain_of(partition, topic_id))

    def manifests(self, partition: TopicPartition = TRADES, topic_id: str = "e1") -> list[Manifest]:
        return [m for _, m in Chain(self.store, chain_of(partition, topic_id)).walk()]


class Position(msgspec.Struct):
    """What the lander put in front of a frame."""

    t: str
    p: int
    o: int
    lt: int


def lines_of(store: Store, chain_id: ChainId) -> list[bytes]:
    """All lines of a chain, each object verified on the way."""
    lines: list[bytes] = []
    for key, manifest in Chain(store, chain_id).walk():
        body = store.get(key)
        assert verify(body, key, chain_id) == manifest
        lines += unpack(body, key).splitlines()
    return lines


def landed_offsets(store: Store, chain_id: ChainId) -> list[int]:
    """Offsets of a chain in the order of its lines; every object of the folder must be in it."""
    keys = [found.key for found in store.list_objects(chain_id.prefix)]
    walked = [key for key, _ in Chain(store, chain_id).walk()]
    assert walked == [key for key in keys if key != chain_id.genesis_key]
    positions = [msgspec.json.decode(line, type=Position) for line in lines_of(store, chain_id)]
    assert {(at.t, at.p) for at in positions} <= {(chain_id.topic_id, chain_id.part)}
    return [at.o for at in positions]
