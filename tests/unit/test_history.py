"""What a live feed reads of the log: everything, from the newest back, and no more than it asks."""

import asyncio
from pathlib import Path

import pytest

from support.feeds import ListFeed
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.history import STEP, LogHistory
from tickhouse.stream.log import Append, LogBatch
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog


@pytest.mark.parametrize("count", [1, STEP, STEP + 1, 3 * STEP + 7])
def test_history_gives_every_frame_from_the_newest_back(tmp_path: Path, count: int) -> None:
    log = SqliteLog(tmp_path / "log.db")
    feed = ListFeed([b'{"n":%d}' % n for n in range(count)], batch=100)
    asyncio.run(Recorder(feed, log, commit_ms=1).run(asyncio.Event()))
    history = [envelope.seq for envelope in LogHistory(log).frames(Stream.TRADES, 0)]
    first_event = next(iter(LogHistory(log).events(0)))
    log.close()

    assert history == [*reversed(range(count))]
    assert type(first_event[1]).__name__ == "Closed"


def test_history_ends_where_the_log_was_trimmed(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    feed = ListFeed([b'{"n":%d}' % n for n in range(1000)], batch=50, pause_every=50)
    asyncio.run(Recorder(feed, log, commit_ms=1).run(asyncio.Event()))
    begin = log.trim(TopicPartition(Stream.TRADES, 0), 700)
    history = [envelope.seq for envelope in LogHistory(log).frames(Stream.TRADES, 0)]
    log.close()

    assert begin > 0
    assert history == [*reversed(range(begin, 1000))]


class CountingLog(SqliteLog):
    """Counts the records that are read."""

    read_count = 0

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        batch = super().read(partition, start, bytes_max=bytes_max)
        self.read_count += 0 if batch is None else len(batch.values)
        return batch


def test_history_reads_each_record_about_once_on_its_way_back(tmp_path: Path) -> None:
    log = CountingLog(tmp_path / "log.db")
    place, total = TopicPartition(Stream.TRADES, 0), 20 * STEP
    head = b'{"v":1,"src":"s","ses":"x","seq":%d,"rx":1,"sym":null,"raw":"' + b"x" * 200 + b'"}'
    for first in range(0, total, 100):
        log.append([Append(place, [head % n for n in range(first, min(first + 100, total))])])
    history = [envelope.seq for envelope in LogHistory(log).frames(Stream.TRADES, 0)]
    log.close()

    assert history == [*reversed(range(total))]
    assert log.read_count < 2 * total
