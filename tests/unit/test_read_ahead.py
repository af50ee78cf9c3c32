"""Reading ahead: several objects at a time, and none that was guessed wrongly."""

from collections.abc import Iterator, Sequence

import pytest

from support.lake_builder import chain_id, run_of
from support.memory_store import MemoryStore
from tickhouse.bronze.ahead import CHAINS_MAX, ReadAhead
from tickhouse.errors import ObjectMissingError
from tickhouse.warehouse.loader import fetch

CHAIN = chain_id()


class BulkMemory(MemoryStore):
    """Notes what was asked for one by one, and what ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.alone: list[str] = []
        self.ahead: list[str] = []

    def get(self, key: str) -> bytes:
        self.alone.append(key)
        return super().get(key)

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        for key in keys:
            self.ahead.append(key)
            yield super().get(key)


@pytest.fixture
def store() -> BulkMemory:
    store = BulkMemory()
    store.put_if_absent(CHAIN.genesis_key, b"{}", {})
    for item in run_of(CHAIN, objects=5, rows=2):
        store.put_if_absent(item.key, item.body, {})
    return store


def test_a_chain_is_read_ahead_from_its_second_object_on(store: BulkMemory) -> None:
    ahead = ReadAhead(store)

    found = [fetch(ahead, CHAIN, start) for start in (0, 2, 4, 6, 8, 10)]

    assert [item and item.key for item in found] == [CHAIN.key(at) for at in (0, 2, 4, 6, 8)] + [
        None
    ]
    assert store.alone == [CHAIN.key(0), CHAIN.key(10)]
    assert store.ahead == [CHAIN.key(at) for at in (2, 4, 6, 8)]


def test_a_chain_that_gets_one_object_at_a_time_is_not_listed(store: BulkMemory) -> None:
    fetch(ReadAhead(store), CHAIN, 0)
    fetch(ReadAhead(store), CHAIN, 2)

    assert store.alone == [CHAIN.key(0), CHAIN.key(2)]
    assert store.ahead == []


def test_an_object_that_lies_where_none_belongs_is_not_taken_for_the_next(
    store: BulkMemory,
) -> None:
    store.put_if_absent(CHAIN.key(5), b"by hand", {})
    ahead = ReadAhead(store)

    found = [fetch(ahead, CHAIN, start) for start in (0, 2, 4, 6, 8)]

    assert [item and item.key for item in found] == [CHAIN.key(at) for at in (0, 2, 4, 6, 8)]


def test_an_object_that_vanished_since_it_was_listed_is_missing(store: BulkMemory) -> None:
    ahead = ReadAhead(store)
    for start in (0, 2):
        fetch(ahead, CHAIN, start)
    del store.objects[CHAIN.key(4)]

    with pytest.raises(ObjectMissingError):
        ahead.get(CHAIN, CHAIN.key(4))


def test_few_chains_are_read_ahead_at_a_time() -> None:
    store = BulkMemory()
    chains = [chain_id(part) for part in range(CHAINS_MAX + 2)]
    for chain in chains:
        for item in run_of(chain, objects=3, rows=1):
            store.put_if_absent(item.key, item.body, {})
    ahead = ReadAhead(store)

    found = [fetch(ahead, chain, start) for start in (0, 1, 2) for chain in chains]

    assert all(found)
    assert len(store.ahead) == CHAINS_MAX * 2
