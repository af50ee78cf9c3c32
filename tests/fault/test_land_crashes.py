"""`land` as a process: killed at each durable step, beside a rival, over a full disk."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.landing import chain_of, landed_offsets, lines_of
from support.memory_log import frames
from support.processes import run_killed, run_with_failpoints
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.local import TEMPORARY, LocalStore
from tickhouse.errors import RefusedError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

PARTITIONS = [TopicPartition(Stream.TRADES, part) for part in range(2)]
PARTITIONS.append(TopicPartition(Stream.SESSIONS, 0))
BATCHES, RECORDS = 6, 5
STEPS = ["land.genesis.before", "land.genesis.after", "land.put.before", "land.put.after"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = SqliteLog(tmp_path / "log.db", clock_ms=lambda: 1)
    for number in range(BATCHES):
        values = frames(number * RECORDS, RECORDS)
        log.append([Append(partition, values) for partition in PARTITIONS])
    log.close()
    return tmp_path


def land(folder: str) -> None:
    """Run in a process of its own: land batch by batch, then leave without a word."""
    reader = SqliteReader(Path(folder) / "log.db")
    store = LocalStore(Path(folder) / "lake")
    landing = Lander(_Slowly(reader), store, bytes_max=1)  # type: ignore[arg-type]
    landing.drain()
    os._exit(0)


class _Slowly:
    """A log that gives one of its batches at a time, so that there are many objects."""

    def __init__(self, reader: SqliteReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)

    def read(self, partition: TopicPartition, start: int, *, bytes_max: int = 1) -> object:
        return self._reader.read(partition, start, bytes_max=1)

    def subscribe(self, position_of: object, _on_revoked: object = None) -> object:
        from tickhouse.stream.following import Following

        return Following(self, position_of)  # type: ignore[arg-type]


@pytest.fixture
def reader(folder: Path) -> Iterator[SqliteReader]:
    opened = SqliteReader(folder / "log.db")
    yield opened
    opened.close()


def check(folder: Path, reader: SqliteReader, count: int = BATCHES * RECORDS) -> None:
    """Each record of each partition is landed once, with its own bytes."""
    store = LocalStore(folder / "lake")
    for partition in PARTITIONS:
        chain = chain_of(partition, reader.topic_id(partition))
        assert landed_offsets(store, chain) == list(range(count))
        lines = lines_of(store, chain)
        expected = frames(0, BATCHES * RECORDS)
        assert all(line.endswith(value[1:]) for line, value in zip(lines, expected, strict=False))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("where", STEPS)
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    folder: Path, reader: SqliteReader, where: str, times: int
) -> None:
    run_killed(land, str(folder), failpoints=f"{where}=kill:{times}")

    Lander(reader, LocalStore(folder / "lake")).drain()

    check(folder, reader)


@pytest.mark.parametrize("times", [2, 9])
def test_kills_one_after_the_other_lose_and_double_nothing(
    folder: Path, reader: SqliteReader, times: int
) -> None:
    for _ in range(3):
        run_with_failpoints(land, str(folder), failpoints=f"land.put.after=kill:{times}")

    assert run_with_failpoints(land, str(folder), failpoints="") == 0
    check(folder, reader)
    assert not list((folder / "lake" / TEMPORARY).iterdir()), "no kill was inside a write"


def test_two_landers_at_once_one_stopped_and_woken_as_a_zombie(
    folder: Path, reader: SqliteReader
) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import importlib.util as u;"
        "s = u.spec_from_file_location('landing_module', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); m.land(sys.argv[3])"
    )
    command = [sys.executable, "-c", script, __file__, str(Path(__file__).parents[1]), str(folder)]
    environment = {**os.environ, "TICKHOUSE_FAILPOINTS": "land.put.before=sleep:0.05"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as zombie:
        _wait_for_object(folder)
        zombie.send_signal(signal.SIGSTOP)
        assert run_with_failpoints(land, str(folder), failpoints="") == 0
        zombie.send_signal(signal.SIGCONT)
        assert zombie.wait(60) == 0

    check(folder, reader)


def _wait_for_object(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list((folder / "lake" / "bronze").rglob("*.gz")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def land_on_a_full_disk(folder: str) -> None:
    """Run in a process of its own: no file may grow beyond 100 bytes."""
    reader = SqliteReader(Path(folder) / "log.db")
    store = LocalStore(Path(folder) / "lake")
    landing = Lander(reader, store)
    reader.partitions()
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        landing.drain()
    except RefusedError as error:
        os._exit(41 if "Make room or allow it" in str(error) else 43)
    os._exit(42)


def test_a_full_disk_is_refused_leaves_nothing_half_written_and_is_made_good_later(
    folder: Path, reader: SqliteReader
) -> None:
    assert run_with_failpoints(land_on_a_full_disk, str(folder), failpoints="") == 41
    store = LocalStore(folder / "lake")
    written = [found.key for found in store.list_objects("bronze")]

    assert [key.rpartition("/")[2] for key in written] == ["GENESIS"] * len(PARTITIONS)
    assert not list((folder / "lake" / TEMPORARY).iterdir())

    Lander(reader, store).drain()
    check(folder, reader)


def test_a_torn_temp_file_is_ignored_and_the_object_landed_whole(
    folder: Path, reader: SqliteReader
) -> None:
    store = LocalStore(folder / "lake")
    torn = folder / "lake" / TEMPORARY / "9-torn"
    torn.write_bytes(b"\x1f\x8b half of an object")

    Lander(reader, store).drain()

    check(folder, reader)
    assert torn.exists()


def test_a_restored_copy_of_the_log_file_is_noticed_and_landed_in_a_chain_of_its_own(
    folder: Path, reader: SqliteReader
) -> None:
    copy = (folder / "log.db").read_bytes()
    lander = Lander(reader, LocalStore(folder / "lake"))
    log = SqliteLog(folder / "log.db", clock_ms=lambda: 2)
    log.append([Append(partition, frames(500, 3)) for partition in PARTITIONS])
    lander.drain()
    check(folder, reader, BATCHES * RECORDS + 3)
    log.close()
    for path in folder.glob("log.db*"):
        path.rename(path.with_name(f"lost-{path.name}"))
    (folder / "log.db").write_bytes(copy)
    reader.bounds(PARTITIONS[0])

    lander.drain()

    store = LocalStore(folder / "lake")
    for partition in PARTITIONS:
        epoch = reader.topic_id(partition)
        assert landed_offsets(store, chain_of(partition, f"{epoch}.1")) == list(
            range(BATCHES * RECORDS)
        )
