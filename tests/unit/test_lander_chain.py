"""The chain: opened at 0, found from the lake alone, walked by position."""

import os
from pathlib import Path

import pytest

from support.landing import chain_of, landed_offsets
from support.memory_log import TRADES, MemoryLog, frames
from support.memory_store import FaultyStore, MemoryStore
from tickhouse.bronze.chain import GENESIS, Chain, find_chains, find_foreign_folders
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.object import pack, read_manifest
from tickhouse.errors import CorruptObjectError, ObjectMissingError, TransientError
from tickhouse.model.positions import ChainId, Stream, TopicPartition

ID = chain_of()


def publish(chain: Chain, start: int, next_offset: int, *, topic_id: str = "") -> int:
    lines = [b'{"o":%d}' % offset for offset in range(start, next_offset)]
    body = pack(
        lines, chain=chain.id, start=start, next_offset=next_offset, rx_min=None, rx_max=None
    )
    return chain.publish(body, read_manifest(body, "")).next


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def chain(store: MemoryStore) -> Chain:
    chain = Chain(store, ID)
    chain.open()
    return chain


def test_genesis_is_always_0_whoever_opens_the_chain(store: MemoryStore, chain: Chain) -> None:
    Chain(store, ID).open()

    assert store.objects == {ID.genesis_key: b'{"start":0}'}
    chain.check_genesis()
    assert chain.tail() == 0


@pytest.mark.parametrize("content", [None, b'{"start":5}', b""])
def test_a_chain_without_a_right_genesis_is_named(
    store: MemoryStore, chain: Chain, content: bytes | None
) -> None:
    del store.objects[ID.genesis_key]
    if content is not None:
        store.objects[ID.genesis_key] = content

    with pytest.raises(CorruptObjectError, match="GENESIS"):
        chain.check_genesis()


def test_the_tail_is_the_next_of_the_last_object(chain: Chain) -> None:
    publish(chain, 0, 3)
    publish(chain, 3, 11)

    assert chain.tail() == 11


def test_what_was_found_is_made_durable_before_a_position_is_derived_from_it(
    store: MemoryStore, chain: Chain
) -> None:
    publish(chain, 0, 3)
    store.secured.clear()
    chain.tail()
    assert store.secured == [ID.key(0)]

    store.secured.clear()
    chain.get(0)
    assert store.secured == [ID.key(0)]

    store.secured.clear()
    publish(chain, 0, 3)
    assert store.secured == [ID.key(0)], "adopting, too"


def test_a_taken_key_is_not_somebody_else_its_next_is_adopted(chain: Chain) -> None:
    assert publish(chain, 0, 7) == 7

    assert publish(chain, 0, 3) == 7
    assert publish(chain, 0, 9) == 7


def test_a_taken_key_that_cannot_be_read_is_not_adopted(store: MemoryStore, chain: Chain) -> None:
    store.objects[ID.key(0)] = b"torn"

    with pytest.raises(CorruptObjectError, match=ID.key(0)):
        publish(chain, 0, 3)


def test_a_taken_key_with_the_manifest_of_another_position_is_not_adopted(
    store: MemoryStore, chain: Chain
) -> None:
    publish(chain, 0, 3)
    store.objects[ID.key(3)] = store.objects[ID.key(0)]

    with pytest.raises(CorruptObjectError, match=r"covers 0\.\.3"):
        publish(chain, 3, 5)


def test_after_an_unknown_outcome_what_is_there_decides() -> None:
    answers = [TransientError("reset")]
    store = FaultyStore(
        lambda operation, _key: None if operation != "put.after" or not answers else _raise(answers)
    )
    chain = Chain(store, ID)

    with pytest.raises(TransientError):
        publish(chain, 0, 3)

    assert publish(chain, 0, 3) == 3
    assert chain.tail() == 3


def _raise(errors: list[TransientError]) -> None:
    raise errors.pop()


def test_an_object_that_vanished_after_it_was_found_is_tried_again(chain: Chain) -> None:
    publish(chain, 0, 3)

    def gone(key: str, length: int) -> bytes:
        raise ObjectMissingError(key)

    chain._store.get_head = gone  # type: ignore[method-assign]

    with pytest.raises(TransientError, match="taken, yet not there"):
        publish(chain, 0, 3)


def test_an_object_is_found_only_by_where_it_starts(store: MemoryStore, chain: Chain) -> None:
    publish(chain, 0, 3)

    manifest = chain.head(0)
    assert manifest is not None
    assert (manifest.start, manifest.next) == (0, 3)
    assert chain.get(0) == (ID.key(0), store.objects[ID.key(0)])
    assert chain.head(1) is None
    assert chain.get(3) is None


def test_a_walk_follows_next_and_ends_at_a_hole(store: MemoryStore, chain: Chain) -> None:
    for start in range(0, 50, 5):
        publish(chain, start, start + 5)
    del store.objects[ID.key(30)]

    assert [key for key, _ in chain.walk()] == [ID.key(start) for start in range(0, 30, 5)]
    assert [m.start for _, m in chain.walk(35)] == [35, 40, 45]
    assert chain.tail() == 50


def test_a_walk_names_an_object_that_cannot_be_read(store: MemoryStore, chain: Chain) -> None:
    publish(chain, 0, 3)
    publish(chain, 3, 5)
    store.objects[ID.key(3)] = store.objects[ID.key(3)][:30]

    with pytest.raises(CorruptObjectError, match=ID.key(3)):
        list(chain.walk())


def test_a_walk_reads_heads_only(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(chain, 0, 3)
    monkeypatch.setattr(MemoryStore, "list_objects", None)
    heads: list[int] = []
    read = chain._store.get_head
    monkeypatch.setattr(
        chain._store, "get_head", lambda key, length: heads.append(length) or read(key, length)
    )

    assert len(list(chain.walk())) == 1
    assert heads == [4096, 4096]


@pytest.mark.parametrize("name", ["9.bak", "00000000000000000009.jsonl.gz.bak", "99999999"])
def test_a_foreign_file_in_the_folder_does_not_hide_the_tail(
    store: MemoryStore, chain: Chain, name: str
) -> None:
    publish(chain, 0, 9)
    publish(chain, 9, 12)
    store.objects[f"{ID.prefix}/{name}"] = b""

    assert chain.tail() == 12


def test_chains_are_found_from_their_folders_and_foreign_folders_are_told() -> None:
    store = MemoryStore()
    chains = [
        ChainId(Stream.SESSIONS, "tickhouse.sessions.v1", "e1", 0),
        ChainId(Stream.TRADES, "tickhouse.trades.v1", "Ab_-9", 2),
        ChainId(Stream.TRADES, "tickhouse.trades.v1", "e1", 0),
        ChainId(Stream.TRADES, "tickhouse.trades.v1", "e1", 123_456),
        ChainId(Stream.TRADES, "tickhouse.trades.v1", "e1.1", 0),
    ]
    foreign = [
        "bronze/v1/trades/tickhouse.trades.v1",
        "bronze/v1/trades/tickhouse.trades.v1~a~b",
        "bronze/v1/trades/tickhouse.trades.v1~e1/p=000001",
        "bronze/v1/trades/tickhouse.trades.v1~e1/p=1",
        "bronze/v1/trades/tickhouse.trades.v1~e1/tmp",
        "bronze/v1/weather",
    ]
    for chain in chains:
        Chain(store, chain).open()
    for folder in foreign:
        store.objects[f"{folder}/x"] = b""

    assert sorted(find_chains(store)) == sorted(chains)
    assert sorted(find_foreign_folders(store)) == foreign
    assert find_chains(MemoryStore()) == []


def test_five_partitions_of_1001_small_objects_all_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    partitions = [TopicPartition(Stream.TRADES, part) for part in range(5)]
    log = MemoryLog(batch_records=1)
    for partition in partitions:
        log.append(partition, frames(0, 1_001))
    store = LocalStore(tmp_path)

    Lander(log, store, bytes_max=1).drain()

    for partition in partitions:
        assert landed_offsets(store, chain_of(partition)) == list(range(1_001))
        assert len(list(store.list_objects(chain_of(partition).prefix))) == 1_002


def test_the_key_depends_on_the_position_alone() -> None:
    assert ID.key(100) == (
        f"bronze/v1/trades/{TRADES.topic}~e1/p=00000/00000000000000000100.jsonl.gz"
    )
    assert GENESIS == b'{"start":0}'
