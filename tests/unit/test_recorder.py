"""`record`: acknowledged once durable, numbered densely, resumed from the log's own end."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from support.feeds import ListFeed
from support.processes import run_killed
from tickhouse.errors import RefusedError
from tickhouse.model.frame import FRAME_BYTES_MAX, Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Gap, Imported, Opened, SessionEvent, decode_event
from tickhouse.source.feed import Arrivals, Delivery, Together
from tickhouse.stream.log import Append
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

TRADES = TopicPartition(Stream.TRADES, 0)
EVENTS = TopicPartition(Stream.SESSIONS, 0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


def messages(count: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(count)]


def envelopes(log: SqliteLog, partition: TopicPartition) -> list[Envelope]:
    found: list[Envelope] = []
    position = 0
    while (batch := log.read(partition, position)) is not None:
        decoded = [decode_envelope(value) for value in batch.values]
        found += [envelope for envelope in decoded if envelope is not None]
        assert None not in decoded
        position = batch.next
    return found


def payloads(log: SqliteLog, partition: TopicPartition = TRADES) -> list[bytes]:
    return [bytes(envelope.raw) for envelope in envelopes(log, partition)]


def events(log: SqliteLog) -> list[SessionEvent]:
    return [decode_event(envelope.raw) for envelope in envelopes(log, EVENTS)]


def record(
    feed: ListFeed, log: SqliteLog, *, stop_when_delivered: bool = False, **options: int
) -> Recorder:
    async def run() -> Recorder:
        stop = asyncio.Event()
        recorder = Recorder(feed, log, commit_ms=2, **options)
        running = asyncio.create_task(recorder.run(stop))
        if stop_when_delivered:
            await feed.delivered.wait()
            stop.set()
        await running
        return recorder

    return asyncio.run(run())


class TogetherFeed(ListFeed):
    """Delivers events that name the three messages which follow them."""

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        for start in range(0, len(self.payloads), 3):
            payloads = self.payloads[start : start + 3]
            event = Imported(7, "list:", {"trades": start}, {}, [])
            arrivals = [Arrivals([payload], 1_700_000_000_000_000_000) for payload in payloads]
            yield Together((event, *arrivals))
            await asyncio.sleep(0.0005)


def test_an_event_and_its_messages_are_one_commit(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[dict[Stream, int]] = []
    append = log.append

    def noted(appends: Sequence[Append]) -> list[int]:
        commits.append({each.partition.stream: len(each.values) for each in appends})
        return append(appends)

    monkeypatch.setattr(log, "append", noted)
    record(TogetherFeed(messages(300)), log, commit_bytes=200, buffer_bytes=300)

    assert payloads(log) == messages(300)
    assert len(commits) > 20
    opened_and_closed = 2
    told = [commit.get(Stream.SESSIONS, 0) for commit in commits]
    assert sum(told) == 100 + opened_and_closed
    for commit in commits[1:-1]:
        assert commit[Stream.TRADES] == 3 * commit[Stream.SESSIONS]


def test_a_drained_feed_is_recorded_whole_and_in_order(log: SqliteLog) -> None:
    feed = ListFeed(messages(500), batch=7)

    record(feed, log)

    assert payloads(log) == messages(500)
    assert [envelope.seq for envelope in envelopes(log, TRADES)] == list(range(500))
    opened, closed = events(log)
    assert isinstance(opened, Opened)
    assert (opened.cursor, opened.previous) == (0, None)
    assert closed == Closed(closed.at, "drained", {"trades": 500})


def test_the_feed_is_told_only_of_durable_messages(log: SqliteLog) -> None:
    feed = ListFeed(messages(50), batch=5)
    told: list[tuple[int, int]] = []
    acknowledge = feed.acknowledge

    def check(shard: int, cursor: int) -> None:
        told.append((cursor, log.bounds(TRADES).end))
        acknowledge(shard, cursor)

    feed.acknowledge = check

    record(feed, log)

    assert feed.acknowledged == {0: 50}
    assert all(cursor <= durable for cursor, durable in told)


def test_a_stop_closes_the_session_and_keeps_everything_received(log: SqliteLog) -> None:
    feed = ListFeed(messages(30), waits=True)

    record(feed, log, stop_when_delivered=True)

    assert payloads(log) == messages(30)
    closed = events(log)[-1]
    assert isinstance(closed, Closed)
    assert closed.reason == "stopped"


def test_a_lost_connection_is_a_new_session_that_goes_on_at_the_cursor(log: SqliteLog) -> None:
    feed = ListFeed(messages(20), breaks_after=[7, 12])

    record(feed, log)

    assert payloads(log) == messages(20)
    opened = [event for event in events(log) if isinstance(event, Opened)]
    closed = [event for event in events(log) if isinstance(event, Closed)]
    assert [event.cursor for event in opened] == [0, 7, 12]
    assert [event.reason for event in closed] == ["dropped", "dropped", "drained"]
    sessions = list(dict.fromkeys(envelope.ses for envelope in envelopes(log, TRADES)))
    assert [event.previous.session for event in opened[1:] if event.previous] == sessions[:2]
    assert [event.previous.seq for event in opened[1:] if event.previous] == [6, 4]


def test_a_restart_goes_on_after_the_last_durable_message(log: SqliteLog) -> None:
    record(ListFeed(messages(8)), log)

    record(ListFeed(messages(20)), log)

    assert payloads(log) == messages(20)
    last_opened = [event for event in events(log) if isinstance(event, Opened)][-1]
    assert last_opened.cursor == 8


def test_another_feed_starts_at_its_own_cursor_and_the_first_goes_on_later(log: SqliteLog) -> None:
    record(ListFeed(messages(8), url="list:a"), log)
    record(ListFeed(messages(3), url="list:b"), log)

    record(ListFeed(messages(10), url="list:a"), log)

    assert payloads(log) == messages(8) + messages(3) + messages(10)[8:]


def test_a_feed_that_cannot_resume_starts_anew_and_names_the_session_before(log: SqliteLog) -> None:
    record(ListFeed(messages(5), resumes=False), log)

    record(ListFeed(messages(5), resumes=False), log)

    assert payloads(log) == messages(5) * 2
    last_opened = [event for event in events(log) if isinstance(event, Opened)][-1]
    assert last_opened.cursor is None
    assert last_opened.previous is not None
    assert last_opened.previous.seq == 4


def test_session_ids_are_random_not_from_a_seed(log: SqliteLog, tmp_path: Path) -> None:
    other = SqliteLog(tmp_path / "other.db")
    record(ListFeed(messages(2)), log)
    record(ListFeed(messages(2)), other)

    assert envelopes(log, TRADES)[0].ses != envelopes(other, TRADES)[0].ses
    other.close()


def test_each_shard_writes_to_its_own_partition(log: SqliteLog) -> None:
    record(ListFeed(messages(9), shards=3), log)

    for part in range(3):
        assert payloads(log, TopicPartition(Stream.TRADES, part)) == messages(9)


def test_a_larger_frame_is_a_recorded_gap_and_consumes_its_number(log: SqliteLog) -> None:
    oversized = b'"' + b"x" * FRAME_BYTES_MAX + b'"'
    feed = ListFeed([*messages(2), oversized, b'{"n":3}'], batch=4)

    recorder = record(feed, log)

    assert [envelope.seq for envelope in envelopes(log, TRADES)] == [0, 1, 3]
    (gap,) = [event for event in events(log) if isinstance(event, Gap)]
    assert (gap.stream, gap.seq_from, gap.seq_to) == ("trades", 2, 2)
    assert "over the limit" in gap.cause
    assert recorder.refused == 1


def test_a_refused_last_frame_is_not_asked_for_again(log: SqliteLog) -> None:
    oversized = b'"' + b"x" * FRAME_BYTES_MAX + b'"'
    record(ListFeed([*messages(2), oversized]), log)

    record(ListFeed([*messages(2), oversized, b'{"n":3}']), log)

    assert payloads(log) == [*messages(2), b'{"n":3}']


class FullLog:
    """A log on a disk that is full for a while."""

    def __init__(self, log: SqliteLog, refusals: int) -> None:
        self._log = log
        self.refusals = refusals
        self.reserve: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def append(self, appends: Sequence[Append]) -> list[int]:
        if self.refusals > 0:
            self.refusals -= 1
            message = "disk full"
            raise RefusedError(message)
        return self._log.append(appends)

    def release_reserve(self) -> None:
        self.reserve.append("released")

    def restore_reserve(self) -> None:
        self.reserve.append("restored")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickhouse.stream.recorder.RETRY_S", 0.01)


@pytest.mark.usefixtures("quick_retries")
def test_a_full_disk_makes_a_feed_that_can_resume_wait_and_loses_nothing(log: SqliteLog) -> None:
    full = FullLog(log, refusals=3)
    feed = ListFeed(messages(400))

    record(feed, full, buffer_bytes=2_000)  # type: ignore[arg-type]

    assert payloads(log) == messages(400)
    assert not [event for event in events(log) if isinstance(event, Gap)]
    assert full.reserve == ["released"] * 3 + ["restored"]


@pytest.mark.usefixtures("quick_retries")
def test_a_full_disk_sheds_a_feed_that_cannot_resume_with_a_recorded_gap(log: SqliteLog) -> None:
    full = FullLog(log, refusals=3)
    feed = ListFeed(messages(4000), resumes=False, pause_every=500)

    recorder = record(feed, full, buffer_bytes=20_000)  # type: ignore[arg-type]

    gaps = [event for event in events(log) if isinstance(event, Gap)]
    kept = [envelope.seq for envelope in envelopes(log, TRADES)]
    shed = [seq for gap in gaps for seq in range(gap.seq_from or 0, (gap.seq_to or 0) + 1)]
    assert shed
    assert sorted(kept + shed) == list(range(4000))
    assert all("disk full" in gap.cause for gap in gaps)
    assert recorder.refused == len(shed)


@pytest.mark.usefixtures("quick_retries")
def test_a_log_that_refuses_to_the_end_is_an_error_and_nothing_is_acknowledged(
    log: SqliteLog,
) -> None:
    feed = ListFeed(messages(3))

    with pytest.raises(RefusedError):
        record(feed, FullLog(log, refusals=10_000))  # type: ignore[arg-type]

    assert feed.acknowledged == {}


def _record_until_killed(path: str) -> None:
    log = SqliteLog(Path(path))
    record(ListFeed(messages(3000), pause_every=500), log)


@pytest.mark.parametrize("where", ["record.append.before", "record.append.after"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_kill_at_any_commit_leaves_no_hole_and_no_repeat(
    tmp_path: Path, where: str, nth: int
) -> None:
    path = tmp_path / "log.db"
    run_killed(_record_until_killed, str(path), failpoints=f"{where}=kill:{nth}")

    log = SqliteLog(path)
    record(ListFeed(messages(3000)), log)

    assert payloads(log) == messages(3000)
    opened = [event for event in events(log) if isinstance(event, Opened)]
    if len(opened) == 2:
        assert opened[1].previous is not None
    log.close()
