"""What every log promises; the embedded one is the only backend so far."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import run_killed
from tickhouse.errors import (
    BusyError,
    ConfigError,
    CorruptLogError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream import sqlite as sqlite_log
from tickhouse.stream.log import Append, Position
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

TRADES = TopicPartition(Stream.TRADES, 0)
OTHER = TopicPartition(Stream.TRADES, 4)
EVENTS = TopicPartition(Stream.SESSIONS, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path, clock_ms=lambda: 1_000)
    yield log
    log.close()


def records(first: int, count: int) -> list[bytes]:
    return [b"record %d" % n for n in range(first, first + count)]


def test_offsets_are_dense_over_batches_and_partitions(log: SqliteLog) -> None:
    bases = log.append([Append(TRADES, records(0, 3)), Append(OTHER, records(0, 2))])
    again = log.append([Append(TRADES, records(3, 2))])

    assert (bases, again) == ([0, 0], [3])
    assert log.bounds(TRADES).end == 5
    assert log.partitions() == [TRADES, OTHER]


@pytest.mark.parametrize("start", range(7))
def test_a_read_resumes_from_any_offset_without_gaps(log: SqliteLog, start: int) -> None:
    for first, count in ((0, 3), (3, 1), (4, 3)):
        log.append([Append(TRADES, records(first, count))])

    batch = log.read(TRADES, start)

    assert batch is not None
    assert list(batch.values) == records(start, 7 - start)
    assert (list(batch.offsets), batch.next) == (list(range(start, 7)), 7)


def test_a_read_at_the_end_finds_nothing(log: SqliteLog) -> None:
    log.append([Append(TRADES, records(0, 3))])

    assert log.read(TRADES, 3) is None
    assert log.read(OTHER, 0) is None


def test_a_read_is_bounded_by_bytes_but_gives_at_least_one_batch(log: SqliteLog) -> None:
    for first in (0, 3):
        log.append([Append(TRADES, records(first, 3))])

    batch = log.read(TRADES, 0, bytes_max=1)

    assert batch is not None
    assert batch.next == 3


def test_records_may_hold_any_bytes(log: SqliteLog) -> None:
    values = [b"", b"\n", b"\x00\xff", b"{}" * 1000]
    log.append([Append(TRADES, values)])

    batch = log.read(TRADES, 0)

    assert batch is not None
    assert list(batch.values) == values


def test_offsets_never_restart_after_everything_else_was_trimmed(
    log: SqliteLog, path: Path
) -> None:
    for first in (0, 3, 6):
        log.append([Append(TRADES, records(first, 3))])
    assert log.trim(TRADES, 100) == 6
    log.close()

    with_new_epoch = SqliteLog(path)
    base = with_new_epoch.append([Append(TRADES, records(9, 1))])
    with_new_epoch.close()

    assert base == [9]


def test_a_reader_whom_retention_passed_is_told_how_far(log: SqliteLog) -> None:
    for first in (0, 3, 6):
        log.append([Append(TRADES, records(first, 3))])
    log.trim(TRADES, 6)

    batch = log.read(TRADES, 1)

    assert batch is not None
    assert batch.trimmed
    assert (batch.start, batch.next, list(batch.values)) == (1, 6, [])


def test_trim_keeps_batches_that_reach_beyond_the_offset(log: SqliteLog) -> None:
    for first in (0, 3, 6):
        log.append([Append(TRADES, records(first, 3))])

    assert log.trim(TRADES, 5) == 3
    assert log.bounds(TRADES).begin == 3


@pytest.mark.parametrize(
    ("now_ms", "bytes_max", "held", "begin"),
    [
        pytest.param(90_000, 1 << 30, 100, 0, id="young: kept"),
        pytest.param(200_000, 1 << 30, 100, 6, id="old and landed: the last batch stays"),
        pytest.param(200_000, 1 << 30, 4, 3, id="old, not landed: kept"),
        pytest.param(90_000, 1, 100, 6, id="log too large: gone after the grace period"),
        pytest.param(30_000, 1, 100, 0, id="log too large, within the grace period: kept"),
    ],
)
def test_trimmed_only_behind_what_the_lake_holds_and_after_a_grace_period(
    path: Path, now_ms: int, bytes_max: int, held: int, begin: int
) -> None:
    clock = [1_000]
    log = SqliteLog(path, clock_ms=lambda: clock[0])
    for first in (0, 3, 6):
        log.append([Append(TRADES, records(first, 3)), Append(EVENTS, records(first, 3))])
    clock[0] = now_ms

    log.retain(age_s_max=100, bytes_max=bytes_max, grace_s=60, held=lambda _partition: held)

    assert log.bounds(TRADES).begin == begin
    assert log.bounds(EVENTS).begin == 0
    log.close()


def test_one_recorder_a_spool_a_second_one_refuses(log: SqliteLog, path: Path) -> None:
    with pytest.raises(BusyError, match="another recorder"):
        SqliteLog(path)


def test_the_epoch_is_a_random_id_made_with_the_file(log: SqliteLog, tmp_path: Path) -> None:
    other = SqliteLog(tmp_path / "other.db")

    assert log.topic_id(TRADES) != other.topic_id(TRADES)
    assert len(log.topic_id(TRADES)) == 22
    other.close()


def test_the_epoch_stays_when_the_log_is_opened_again(log: SqliteLog, path: Path) -> None:
    epoch = log.topic_id(TRADES)
    log.close()

    again = SqliteLog(path)

    assert again.topic_id(TRADES) == epoch
    again.close()


def test_a_reader_waits_for_a_log_that_is_not_there_yet(path: Path) -> None:
    reader = SqliteReader(path)

    assert reader.partitions() == []
    assert reader.topic_id(TRADES) == ""
    assert reader.subscribe(lambda *_: Position(0)).poll(0) == []
    reader.close()


def test_a_subscription_follows_new_partitions_and_records(log: SqliteLog, path: Path) -> None:
    reader = SqliteReader(path)
    subscription = reader.subscribe(lambda partition, *_: Position(2 if partition == TRADES else 0))
    log.append([Append(TRADES, records(0, 3))])
    first = subscription.poll(0)
    log.append([Append(TRADES, records(3, 1)), Append(OTHER, records(0, 1))])
    second = subscription.poll(0)

    assert [list(batch.values) for batch in first] == [records(2, 1)]
    assert {batch.partition: list(batch.values) for batch in second} == {
        TRADES: records(3, 1),
        OTHER: records(0, 1),
    }
    assert subscription.poll(0) == []
    reader.close()


def test_readers_notice_a_replaced_file_and_start_on_the_new_epoch(
    log: SqliteLog, path: Path, tmp_path: Path
) -> None:
    log.append([Append(TRADES, records(0, 3))])
    reader = SqliteReader(path)
    asked: list[str] = []

    def position_of(_partition: TopicPartition, topic_id: str, _is_cut: object) -> Position:
        asked.append(topic_id)
        return Position(0)

    subscription = reader.subscribe(position_of)
    subscription.poll(0)
    log.close()
    for leftover in path.parent.glob("log.db*"):
        leftover.rename(tmp_path / leftover.name)
    replacement = SqliteLog(path)
    replacement.append([Append(TRADES, records(50, 1))])

    (batch,) = subscription.poll(0)

    assert list(batch.values) == records(50, 1)
    assert batch.topic_id == replacement.topic_id(TRADES)
    assert len(set(asked)) == 2
    replacement.close()
    reader.close()


def test_readers_never_block_the_writer(log: SqliteLog, path: Path) -> None:
    log.append([Append(TRADES, records(0, 3))])
    reading = sqlite3.connect(path)
    reading.execute("begin")
    reading.execute("select count(*) from batches").fetchone()

    assert log.append([Append(TRADES, records(3, 1))]) == [3]
    reading.close()


def test_a_damaged_batch_is_named_by_topic_partition_and_offset(log: SqliteLog, path: Path) -> None:
    for first in (0, 3):
        log.append([Append(TRADES, records(first, 3))])
    vandal = sqlite3.connect(path)
    vandal.execute("update batches set body = x'00' where base = 3")
    vandal.commit()
    vandal.close()

    with pytest.raises(CorruptLogError, match=r"tickhouse\.trades\.v1\[0\]@3: checksum differs"):
        log.read(TRADES, 0)


def test_a_deleted_batch_is_named_not_skipped(log: SqliteLog, path: Path) -> None:
    for first in (0, 3, 6):
        log.append([Append(TRADES, records(first, 3))])
    vandal = sqlite3.connect(path)
    vandal.execute("delete from batches where base = 3")
    vandal.commit()
    vandal.close()

    with pytest.raises(CorruptLogError, match="@3"):
        log.read(TRADES, 0)


@pytest.mark.parametrize("content", [b"torn" * 1000, b"SQLite format 3\x00" + b"\x07" * 5000])
def test_a_torn_log_file_is_refused_with_what_to_do(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="move this file away"):
        SqliteLog(path)

    assert path.read_bytes() == content


def test_a_full_disk_refuses_the_batch_whole(log: SqliteLog) -> None:
    log.append([Append(TRADES, records(0, 3))])
    pages = log._writer.execute("pragma page_count").fetchone()[0]
    log._writer.execute(f"pragma max_page_count = {pages}")

    with pytest.raises(RefusedError, match="full"):
        log.append([Append(TRADES, [b"x" * 200_000])])

    assert log.bounds(TRADES).end == 3
    log._writer.execute("pragma max_page_count = 1000000")
    assert log.append([Append(TRADES, records(3, 1))]) == [3]


def test_a_small_reserve_is_kept_for_the_gap_event_of_a_full_disk(
    log: SqliteLog, path: Path
) -> None:
    reserve = path.with_name("log.db.reserve")
    assert reserve.stat().st_size == 1 << 20

    log.release_reserve()
    assert not reserve.exists()
    log.restore_reserve()

    assert reserve.stat().st_size == 1 << 20


def _append_until_killed(path: str) -> None:
    log = SqliteLog(Path(path))
    for number in range(10):
        log.append([Append(TRADES, [b"%d" % number]), Append(OTHER, [b"%d" % number])])
        Path(path).with_suffix(".acknowledged").write_text(str(number + 1))
    os._exit(0)


@pytest.mark.parametrize("where", ["record.append.before", "record.append.after"])
def test_a_kill_around_the_commit_loses_nothing_acknowledged(path: Path, where: str) -> None:
    run_killed(_append_until_killed, str(path), failpoints=f"{where}=kill:4")
    acknowledged = int(path.with_suffix(".acknowledged").read_text())

    log = SqliteLog(path)
    ends = [log.bounds(partition).end for partition in (TRADES, OTHER)]
    batch = log.read(TRADES, 0)
    log.close()

    assert acknowledged == 3
    assert ends == ([3, 3] if where.endswith("before") else [4, 4])
    assert batch is not None
    assert list(batch.values) == [b"%d" % number for number in range(ends[0])]


def test_a_disk_that_fails_at_the_start_is_told_and_holds_nothing_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_log, "sync_folder", fail)
        with pytest.raises(TransientError, match=r"its disk fails: .*Input/output error"):
            SqliteLog(path)

    SqliteLog(path).close()
