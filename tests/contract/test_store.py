"""What every store promises; the fake of other tests keeps the same promises."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.memory_store import FaultyStore, MemoryStore
from tests.support.buckets import open_bucket
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.store import Store, get_many
from tickhouse.errors import ObjectExistsError, ObjectMissingError

FOLDER = "bronze/v1/trades/tickhouse.trades.v1~e1/p=00000"
S3_SERVERS = ["seaweedfs", "minio", "moto"]
FAKES: dict[str, Callable[[], Store]] = {"memory": MemoryStore, "faulty": FaultyStore}


@pytest.fixture(params=["local", *S3_SERVERS, *FAKES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "lake")
    if request.param in FAKES:
        return FAKES[request.param]()
    server = request.getfixturevalue(request.param)
    return open_bucket(server, request.getfixturevalue("bucket_name"), prefix="team/lake")


def put(store: Store, *names: str, body: bytes = b"body") -> None:
    for name in names:
        store.put_if_absent(f"{FOLDER}/{name}", body, {})


def names(store: Store, prefix: str, *, start_after: str = "") -> list[str]:
    return [found.key for found in store.list_objects(prefix, start_after=start_after)]


def test_an_object_can_be_read_whole_or_from_its_head(store: Store) -> None:
    put(store, "1", body=b"0123456789")

    assert store.get(f"{FOLDER}/1") == b"0123456789"
    assert store.get_head(f"{FOLDER}/1", 4) == b"0123"
    assert store.get_head(f"{FOLDER}/1", 40) == b"0123456789"


def test_an_empty_object_and_a_large_one_come_back_as_they_were(store: Store) -> None:
    large = bytes(range(256)) * 20_000
    put(store, "empty", body=b"")
    put(store, "large", body=large)

    assert store.get(f"{FOLDER}/empty") == b""
    assert store.get(f"{FOLDER}/large") == large


def test_a_taken_key_is_refused_and_what_is_there_stays(store: Store) -> None:
    put(store, "1", body=b"first")

    with pytest.raises(ObjectExistsError, match=f"{FOLDER}/1"):
        put(store, "1", body=b"second")
    assert store.get(f"{FOLDER}/1") == b"first"


def test_of_many_writers_of_one_key_exactly_one_wins(store: Store) -> None:
    if isinstance(store, MemoryStore):
        pytest.skip("the fakes are for one thread")
    won: list[tuple[int, int]] = []
    barrier = threading.Barrier(4)

    def write(writer: int) -> None:
        for number in range(25):
            barrier.wait()
            try:
                put(store, f"{number}", body=b"%d" % writer)
            except ObjectExistsError:
                continue
            won.append((number, writer))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(number for number, _ in won) == list(range(25))
    assert all(store.get(f"{FOLDER}/{number}") == b"%d" % writer for number, writer in won)


def test_a_missing_object_is_named(store: Store) -> None:
    put(store, "1")

    for read in (store.get, lambda key: store.get_head(key, 10)):
        with pytest.raises(ObjectMissingError, match=f"{FOLDER}/2"):
            read(f"{FOLDER}/2")
        with pytest.raises(ObjectMissingError):
            read(f"{FOLDER}/1/below-an-object")


def test_many_objects_come_back_in_the_order_that_was_asked_for(store: Store) -> None:
    wanted = [f"{FOLDER}/{number}" for number in (7, 3, 19, 0, 11, 12, 13, 14, 15, 16, 17, 18)]
    for key in wanted:
        store.put_if_absent(key, key.encode() * 1000, {})

    assert list(get_many(store, wanted)) == [key.encode() * 1000 for key in wanted]
    assert list(get_many(store, [])) == []


def test_of_many_objects_a_missing_one_is_named_when_its_turn_comes(store: Store) -> None:
    put(store, "1", "2", "4")
    found = get_many(store, [f"{FOLDER}/{number}" for number in (1, 2, 3, 4)])

    assert [next(found), next(found)] == [b"body", b"body"]
    with pytest.raises(ObjectMissingError, match=f"{FOLDER}/3"):
        next(found)


def test_objects_are_listed_in_the_order_of_their_keys_with_their_sizes(store: Store) -> None:
    for key in ("a/b/2", "a/b.c/1", "a/b/10", "a/b=c", "a/0", "b/1"):
        store.put_if_absent(key, key.encode(), {})

    listed = list(store.list_objects("a"))

    keys = [found.key for found in listed]
    assert sorted(keys) == ["a/0", "a/b.c/1", "a/b/10", "a/b/2", "a/b=c"]
    assert [key for key in keys if key.startswith("a/b/")] == ["a/b/10", "a/b/2"]
    assert all(found.size == len(found.key) for found in listed)


def test_a_listing_goes_on_after_any_key_of_its_folder(store: Store) -> None:
    keys = [f"{FOLDER}/{name}" for name in ("00", "05", "05.gz", "10", "1=", "GENESIS", "a~b")]
    for key in reversed(keys):
        store.put_if_absent(key, b"", {})
    store.put_if_absent(f"{FOLDER}9/00", b"", {})

    for after in [*keys, *(f"{FOLDER}/{name}" for name in ("0", "04", "1", "99", "zz")), ""]:
        assert names(store, FOLDER, start_after=after) == [key for key in keys if key > after]


def test_a_listing_of_nothing_is_empty(store: Store) -> None:
    assert names(store, "bronze") == []
    assert store.folders("bronze") == []
    assert store.last("bronze") is None


def test_the_last_object_is_the_greatest_name_that_begins_with_a_digit(store: Store) -> None:
    put(store, "GENESIS")
    assert store.last(FOLDER) is None

    put(store, "00000000000000000009.jsonl.gz", "00000000000000000100.jsonl.gz")
    store.put_if_absent(f"{FOLDER}9/99999999999999999999.jsonl.gz", b"", {})

    assert store.last(FOLDER) == f"{FOLDER}/00000000000000000100.jsonl.gz"


def test_folders_are_those_that_hold_objects_below_them(store: Store) -> None:
    for key in ("a/z/1", "a/b/c/1", "a/1", "ab/c/1"):
        store.put_if_absent(key, b"", {})

    assert store.folders("a") == ["b", "z"]
    assert store.folders("a/b") == ["c"]
    assert store.folders("a/z") == []


def test_securing_what_is_there_changes_nothing(store: Store) -> None:
    put(store, "1")

    store.secure(f"{FOLDER}/1")

    assert names(store, "bronze") == [f"{FOLDER}/1"]
