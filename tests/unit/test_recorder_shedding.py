"""A disk that is nearly full: pollers wait, sockets are shed with one gap, all goes on after it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from support.feeds import ListFeed
from tickhouse.clock import ScaledClock
from tickhouse.errors import FeedClosedError
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Coverage, Gap, Remote, SessionEvent, decode_event
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.stream.history import STEP, LogHistory
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.shedding import FreeSpace
from tickhouse.stream.sqlite import SqliteLog

CLOCK = ScaledClock(100, start_ns=1_700_000_000 * 10**9)
ROOM, SHORT = 10**9, 10**3
MINIMUM = 10**6


class Disk:
    def __init__(self) -> None:
        self.free = ROOM

    def __call__(self) -> int:
        return self.free


class StepFeed(ListFeed):
    """Fills the disk before some steps and frees it before others."""

    def __init__(
        self, items: Sequence[Delivery], disk: Disk, changes: dict[int, int], *, waits: bool
    ) -> None:
        super().__init__([], resumes=waits)
        self.items, self.disk, self.changes = items, disk, changes

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        for number, item in enumerate(self.items):
            if number in self.changes:
                self.disk.free = self.changes[number]
                await CLOCK.sleep(1.5)
            yield item


def arrivals(count: int, stream: Stream = Stream.TRADES, start: int = 0) -> list[Delivery]:
    return [Arrivals([b'{"n":%d}' % n], CLOCK.time_ns(), stream) for n in range(start, count)]


def record(path: Path, feed: ListFeed, disk: Disk) -> SqliteLog:
    log = SqliteLog(path)
    recorder = Recorder(feed, log, commit_ms=1, clock=CLOCK)
    recorder.space = FreeSpace(disk, MINIMUM, clock=CLOCK)
    asyncio.run(asyncio.wait_for(recorder.run(asyncio.Event()), 20))
    return log


def numbers(log: SqliteLog, stream: Stream = Stream.TRADES) -> list[int]:
    batch = log.read(TopicPartition(stream, 0), 0)
    envelopes = [decode_envelope(value) for value in batch.values] if batch is not None else []
    return [envelope.seq for envelope in envelopes if envelope is not None]


def events(log: SqliteLog) -> list[SessionEvent]:
    batch = log.read(TopicPartition(Stream.SESSIONS, 0), 0)
    assert batch is not None
    envelopes = [decode_envelope(value) for value in batch.values]
    return [decode_event(envelope.raw) for envelope in envelopes if envelope is not None]


def test_a_socket_is_shed_with_one_gap_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    disk = Disk()
    log = record(
        tmp_path / "log.db",
        StepFeed(arrivals(20), disk, {5: SHORT, 12: ROOM}, waits=False),
        disk,
    )
    gaps = [event for event in events(log) if isinstance(event, Gap)]
    stored = numbers(log)
    log.close()

    assert stored == [*range(5), *range(12, 20)]
    assert [(gap.stream, gap.seq_from, gap.seq_to) for gap in gaps] == [("trades", 5, 11)]
    assert "disk nearly full" in gaps[0].cause


def test_each_stream_that_was_shed_has_a_gap_of_its_own(tmp_path: Path) -> None:
    disk = Disk()
    items = [*arrivals(3), *arrivals(4, Stream.QUOTES), *arrivals(6, start=3)]
    log = record(tmp_path / "log.db", StepFeed(items, disk, {1: SHORT, 8: ROOM}, waits=False), disk)
    gaps = {e.stream: (e.seq_from, e.seq_to) for e in events(log) if isinstance(e, Gap)}
    stored = numbers(log), numbers(log, Stream.QUOTES)
    log.close()

    assert gaps == {"trades": (1, 3), "quotes": (0, 3)}
    assert stored == ([0, 4, 5], [])


def test_a_shortage_that_lasts_to_the_end_is_told_before_the_session_closes(
    tmp_path: Path,
) -> None:
    disk = Disk()
    log = record(tmp_path / "log.db", StepFeed(arrivals(9), disk, {4: SHORT}, waits=False), disk)
    kinds = [type(event).__name__ for event in events(log)]
    gap = next(event for event in events(log) if isinstance(event, Gap))
    log.close()

    assert kinds == ["Opened", "Gap", "Closed"]
    assert (gap.seq_from, gap.seq_to) == (4, 8)


def test_a_shard_that_waits_is_paused_and_loses_nothing(tmp_path: Path) -> None:
    disk = Disk()

    async def run() -> None:
        log = SqliteLog(tmp_path / "log.db")
        recorder = Recorder(
            StepFeed(arrivals(20), disk, {5: SHORT}, waits=True), log, commit_ms=1, clock=CLOCK
        )
        recorder.space = FreeSpace(disk, MINIMUM, clock=CLOCK)
        running = asyncio.create_task(recorder.run(asyncio.Event()))
        await asyncio.sleep(0.3)
        paused = numbers(log)
        disk.free = ROOM
        await asyncio.wait_for(running, 10)
        stored, told = numbers(log), events(log)
        log.close()

        assert paused == [*range(6)]
        assert stored == [*range(20)]
        assert not any(isinstance(event, Gap) for event in told)

    asyncio.run(run())


def test_a_shortage_is_in_the_status_with_what_to_do() -> None:
    free = FreeSpace(lambda: 400 << 20, 512 << 20, clock=CLOCK)

    assert free.shortage() == (
        "disk nearly full: 400 MiB free, 512 MiB are kept (record_free_bytes)"
    )
    assert FreeSpace(lambda: 0, 0, clock=CLOCK).shortage() is None


def test_what_the_server_said_and_coverage_are_recorded(tmp_path: Path) -> None:
    told = [Remote(1, "ray-1", 20), Coverage(2, "socket", ["AAPL"], "subscribed")]
    log = record(tmp_path / "log.db", StepFeed(told, Disk(), {}, waits=False), Disk())
    found = events(log)[1:3]
    log.close()

    assert found == told


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


class DroppedFeed(ListFeed):
    """Is dropped at once, or after a while, and notes when it was connected."""

    def __init__(self, clock: ScaledClock, lives_s: Sequence[float]) -> None:
        super().__init__([], resumes=False)
        self.clock, self.lives_s = clock, list(lives_s)
        self.connected_at: list[float] = []
        self.dropped_at: list[float] = []

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        self.connected_at.append(self.clock.monotonic())
        if not self.lives_s:
            return
        await self.clock.sleep(self.lives_s.pop(0))
        self.dropped_at.append(self.clock.monotonic())
        raise FeedClosedError("dropped")
        yield


def test_reconnects_back_off_and_begin_anew_after_a_minute_without_trouble(
    tmp_path: Path,
) -> None:
    clock = ScaledClock(400)
    log = SqliteLog(tmp_path / "log.db")
    feed = DroppedFeed(clock, [0, 0, 0, 0, 0, 61, 0])
    asyncio.run(
        asyncio.wait_for(Recorder(feed, log, commit_ms=1, clock=clock).run(asyncio.Event()), 30)
    )
    log.close()
    waits = [
        connected - dropped
        for dropped, connected in zip(feed.dropped_at, feed.connected_at[1:], strict=True)
    ]

    assert waits[4] >= 8
    assert waits[5] < waits[4]
