"""A disk that is nearly full: pollers wait, sockets are shed with one gap, all goes on after it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from support.fake_time import FakeTime
from support.feeds import ListFeed
from tickhouse.clock import ScaledClock
from tickhouse.errors import RefusedError
from tickhouse.model.frame import FRAME_BYTES_MAX, decode_envelope, encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Coverage, Gap, Remote, SessionEvent, decode_event
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.stream.log import Append
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.shedding import CHECK_S, FreeSpace, runs_of_numbers
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


class RefusingLog(SqliteLog):
    """Takes nothing until told to."""

    refuses = True

    def append(self, appends: Sequence[Append]) -> list[int]:
        if self.refuses:
            raise RefusedError("disk full")
        return super().append(appends)


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        def note(event: str, **_facts: object) -> None:
            self.events.append(event)

        return note


def test_numbers_shed_before_and_on_a_full_disk_are_in_one_gap_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickhouse.stream.recorder.RETRY_S", 0.01)
    disk = Disk()
    log = RefusingLog(tmp_path / "log.db")

    class FullFeed(StepFeed):
        async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
            yield Arrivals([b"1"] * 2, 1)
            disk.free = SHORT
            await CLOCK.sleep(1.5)
            yield Arrivals([b"2"] * 3, 2)
            yield Coverage(3, "socket", ["X" * 2000], "refused meanwhile")
            disk.free = ROOM
            await CLOCK.sleep(1.5)
            yield Arrivals([b"3"] * 4, 4)
            log.refuses = False
            yield Arrivals([b"4"], 5)

    async def run() -> None:
        recorder = Recorder(
            FullFeed([], disk, {}, waits=False), log, commit_ms=1, buffer_bytes=1000, clock=CLOCK
        )
        recorder.space = FreeSpace(disk, MINIMUM, clock=CLOCK)
        await asyncio.wait_for(recorder.run(asyncio.Event()), 20)
        assert recorder.refused == 10 - len(numbers(log))

    asyncio.run(run())
    gaps = [event for event in events(log) if isinstance(event, Gap)]
    named = [n for gap in gaps for n in range(gap.seq_from or 0, (gap.seq_to or 0) + 1)]
    stored = numbers(log)
    log.close()

    assert {2, 3, 4} <= set(named)
    assert sorted(named + stored) == [*range(10)]
    assert {gap.cause.split(":")[1].strip() for gap in gaps} == {"disk nearly full", "disk full"}


def test_a_shortage_and_its_end_are_logged_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, time, disk = Lines(), FakeTime(), Disk()
    monkeypatch.setattr("tickhouse.stream.shedding._log", lines)
    free = FreeSpace(disk, MINIMUM, clock=time)
    for disk.free in [ROOM, SHORT, SHORT, ROOM, ROOM]:
        free.shortage()
        time.elapsed_s += CHECK_S

    assert lines.events == ["disk_nearly_full", "disk_has_room_again"]


def test_free_space_is_looked_at_about_once_a_second() -> None:
    time, looks = FakeTime(), list[float]()

    def look() -> int:
        looks.append(time.elapsed_s)
        return ROOM

    free = FreeSpace(look, MINIMUM, clock=time)
    for _ in range(1000):
        free.shortage()
        time.elapsed_s += 0.01

    assert 8 <= len(looks) <= 11


def test_the_status_says_why_nothing_is_taken(tmp_path: Path) -> None:
    disk, said = Disk(), list[tuple[str, object]]()

    async def run() -> None:
        log = SqliteLog(tmp_path / "log.db")
        recorder = Recorder(
            StepFeed(arrivals(9), disk, {4: SHORT, 8: ROOM}, waits=False),
            log,
            commit_ms=1,
            clock=CLOCK,
            report=lambda state, facts: said.append((state, facts.get("error"))),
        )
        recorder.space = FreeSpace(disk, MINIMUM, clock=CLOCK)
        await asyncio.wait_for(recorder.run(asyncio.Event()), 10)
        log.close()

    disk.free = SHORT
    asyncio.run(run())

    assert ("failed", "disk nearly full: 0 MiB free, 0 MiB are kept (record_free_bytes)") in said
    assert said[-1] == ("running", None)


def test_an_idle_recorder_sleeps_and_still_reports(tmp_path: Path) -> None:
    reports: list[int] = []

    async def run() -> None:
        log = SqliteLog(tmp_path / "log.db")
        recorder = Recorder(
            ListFeed([], waits=True),
            log,
            commit_ms=1,
            report=lambda _state, facts: reports.append(len(facts)),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        await asyncio.sleep(2.5)
        stop.set()
        await running
        log.close()

    asyncio.run(run())

    assert 2 <= len(reports) <= 20


def test_an_oversize_frame_names_its_stream_and_symbol(tmp_path: Path) -> None:
    body = json.dumps("x" * FRAME_BYTES_MAX).encode()
    items = [Arrivals([b"1"], 1, Stream.QUOTES), Arrivals([body], 2, Stream.QUOTES, "AAPL")]
    log = record(tmp_path / "log.db", StepFeed(items, Disk(), {}, waits=False), Disk())
    (gap,) = [event for event in events(log) if isinstance(event, Gap)]
    stored = numbers(log, Stream.QUOTES)
    log.close()

    assert (gap.stream, gap.seq_from, gap.seq_to, gap.symbols) == ("quotes", 1, 1, ["AAPL"])
    assert stored == [0]


@pytest.mark.parametrize(
    ("given", "runs"),
    [([], []), ([3], [(3, 1)]), ([0, 1, 2, 5, 6, 9], [(0, 3), (5, 2), (9, 1)])],
)
def test_runs_of_numbers_are_exact(given: list[int], runs: list[tuple[int, int]]) -> None:
    frames = [
        encode_frames([b"1"], source="s", session="x", first_seq=seq, received_at_ns=1)[0]
        for seq in given
    ]

    assert list(runs_of_numbers(frames)) == runs
