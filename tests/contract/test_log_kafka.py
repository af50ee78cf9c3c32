"""What a reader of real Kafka promises beyond what every log does: holes, groups, other topics."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient

from support.kafka_topics import Writer, make_topics
from tests.servers.kafka import KafkaServer, start_kafka
from tests.servers.process import free_ports
from tickhouse.errors import ConfigError, TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_client import client_config
from tickhouse.stream.kafka_group import KafkaSubscription
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import LogBatch, Position, SpoolRange, Subscription
from tickhouse.stream.topics import Topics, topic_name

TRADES = TopicPartition(Stream.TRADES, 0)
OTHER = TopicPartition(Stream.TRADES, 1)
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what a failed test leaves: a group's client that is merely collected never ends."""
    left: list[Subscription] = []
    subscribe, close = KafkaReader.subscribe, KafkaSubscription.close

    def remembered(reader: KafkaReader, *arguments: Any, **options: Any) -> Subscription:
        left.append(subscribe(reader, *arguments, **options))
        return left[-1]

    def closed(subscription: KafkaSubscription) -> None:
        left[:] = [each for each in left if each is not subscription]
        close(subscription)

    monkeypatch.setattr(KafkaReader, "subscribe", remembered)
    monkeypatch.setattr(KafkaSubscription, "close", closed)
    yield
    while left:
        left[-1].close()


@pytest.fixture
def options(kafka: KafkaServer, topics: str) -> KafkaOptions:
    return KafkaOptions(bootstrap=kafka.bootstrap, prefix=topics, group=f"{topics}-land")


@pytest.fixture
def made(options: KafkaOptions) -> Topics:
    return make_topics(options)


@pytest.fixture
def reader(options: KafkaOptions, made: Topics) -> Iterator[KafkaReader]:
    opened = KafkaReader(options)
    yield opened
    opened.close()


def records(first: int, count: int) -> list[bytes]:
    return [b"record %d" % n for n in range(first, first + count)]


def until(
    subscription: Subscription, found: list[LogBatch], enough: Callable[[], bool]
) -> list[LogBatch]:
    """Poll until there is enough."""
    deadline = time.monotonic() + WAIT_S
    while not enough():
        assert time.monotonic() < deadline, found
        found += subscription.poll(0.1)
    return found


def polled(subscription: Subscription, count: int) -> list[LogBatch]:
    found: list[LogBatch] = []
    return until(subscription, found, lambda: sum(len(batch.values) for batch in found) >= count)


def test_offsets_of_markers_and_aborted_records_are_holes(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    writer = Writer(options)
    writer.put(TRADES, records(0, 3), spool=("e", 0))
    writer.put(TRADES, records(90, 2), abort=True)
    writer.put(TRADES, records(3, 2), spool=("e", 3))

    assert reader.partitions() == [TRADES]
    bounds = reader.bounds(TRADES)
    batch = reader.read(TRADES, 0)

    assert (bounds.begin, bounds.end) == (0, 10)
    assert batch is not None
    assert list(batch.values) == records(0, 5)
    assert list(batch.offsets) == [0, 1, 2, 7, 8]
    assert batch.spool == SpoolRange("e", 0, 4)
    rest = reader.read(TRADES, 9)
    assert rest is not None
    assert (list(rest.values), rest.next) == ([], 10)
    assert reader.read(TRADES, 10) is None
    assert reader.read(OTHER, 0) is None


def test_a_read_resumes_at_any_offset_and_takes_one_record_if_asked(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    Writer(options).put(TRADES, records(0, 5))

    for start in (3, 0, 4, 1):
        batch = reader.read(TRADES, start, bytes_max=1)
        assert batch is not None
        assert (list(batch.values), batch.next) == (records(start, 1), start + 1)


def test_a_tombstone_is_an_empty_record_and_strange_headers_are_none(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    Writer(options).put(TRADES, [b"x", None])

    batch = reader.read(TRADES, 0)

    assert batch is not None
    assert (list(batch.values), batch.spool) == ([b"x", b""], None)


def test_what_is_not_committed_is_not_read(options: KafkaOptions, reader: KafkaReader) -> None:
    Writer(options).put(TRADES, records(0, 1))
    foreign = Writer(options, "foreign")
    foreign.put(TRADES, records(50, 1), leave_open=True)
    Writer(options, "third").put(TRADES, records(1, 1))

    assert reader.bounds(TRADES).end == 2
    foreign.producer.abort_transaction(20)
    deadline = time.monotonic() + WAIT_S
    while reader.bounds(TRADES).end < 6:
        assert time.monotonic() < deadline
    batch = reader.read(TRADES, 0)
    assert batch is not None
    assert list(batch.values) == records(0, 2)


def test_topics_that_are_not_there_are_told_with_what_to_do(kafka: KafkaServer) -> None:
    missing = KafkaReader(KafkaOptions(bootstrap=kafka.bootstrap, prefix="missing"))

    with pytest.raises(ConfigError, match="tickhouse init"):
        missing.partitions()
    with pytest.raises(ConfigError, match="tickhouse init"):
        missing.subscribe(lambda *_: Position(0))


def test_a_wrong_address_is_away_not_empty() -> None:
    (port,) = free_ports(1)
    reader = KafkaReader(KafkaOptions(bootstrap=f"127.0.0.1:{port}"))

    with pytest.raises(TransientError, match=f"127.0.0.1:{port}"):
        reader.partitions()


def test_topics_are_made_once_and_set_right(options: KafkaOptions) -> None:
    topics_of = Topics(options)

    done = topics_of.ensure(partitions=2, replication=1, retention_ms=60_000)
    again = topics_of.ensure(partitions=2, replication=1, retention_ms=60_000)
    more = topics_of.ensure(partitions=3, replication=1, retention_ms=-1)

    assert (len(done), again, len(more)) == (4, [], 4)
    facts = topics_of.describe()[Stream.TRADES]
    assert (facts.retention_ms, facts.timestamp_type) == (60_000, "LogAppendTime")
    assert facts.faults() == []


def test_a_topic_that_is_listed_but_gone_is_not_there(options: KafkaOptions) -> None:
    """One that was deleted is listed for a moment still, when its settings are not there."""
    assert Topics(options).describe({Stream.TRADES: ("gone", 1)}) == {}


# -- a subscription ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_position_is_the_callers_whatever_the_group_has_committed(
    options: KafkaOptions, made: Topics, protocol: str
) -> None:
    options = KafkaOptions(
        bootstrap=options.bootstrap, prefix=options.prefix, group_protocol=protocol  # type: ignore[arg-type]
    )  # fmt: skip
    Writer(options).put(TRADES, records(0, 6))
    reader = KafkaReader(options)
    first = reader.subscribe(lambda *_: Position(0))
    assert [v for batch in polled(first, 6) for v in batch.values] == records(0, 6)
    first.commit(TRADES, 6)
    first.close()

    second = reader.subscribe(lambda place, *_: Position(4 if place == TRADES else 0))
    found = polled(second, 2)
    second.close()
    reader.close()

    assert [v for batch in found for v in batch.values] == records(4, 2)
    assert found[0].start == 4


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_readers_share_the_partitions_and_one_takes_over(
    options: KafkaOptions, made: Topics, protocol: str
) -> None:
    options = KafkaOptions(
        bootstrap=options.bootstrap, prefix=options.prefix, group_protocol=protocol  # type: ignore[arg-type]
    )  # fmt: skip
    reader = KafkaReader(options)
    revoked: list[tuple[TopicPartition, bool]] = []

    def on_revoked(places: object, is_lost: bool) -> None:  # noqa: FBT001
        revoked.extend((place, is_lost) for place in places)  # type: ignore[attr-defined]

    first = reader.subscribe(lambda *_: Position(0), on_revoked)
    until(first, [], lambda: len(first.partitions()) == 8)
    second = reader.subscribe(lambda *_: Position(0))
    deadline = time.monotonic() + WAIT_S
    while not (len(first.partitions()) == len(second.partitions()) == 4):
        assert time.monotonic() < deadline
        first.poll(0.05)
        second.poll(0.05)

    assert not {*first.partitions()} & {*second.partitions()}
    assert {is_lost for _, is_lost in revoked} == {False}
    first.close()
    until(second, [], lambda: len(second.partitions()) == 8)
    second.close()
    reader.close()


def test_markers_at_the_end_move_the_position_without_records(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    Writer(options).put(TRADES, records(0, 2))
    subscription = reader.subscribe(lambda *_: Position(0))
    found: list[LogBatch] = []
    until(subscription, found, lambda: bool(found) and found[-1].next == 3)
    subscription.close()

    assert [v for batch in found for v in batch.values] == records(0, 2)


def test_retention_that_passed_the_reader_is_a_trimmed_batch(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    Writer(options).put(TRADES, records(0, 5))
    admin = AdminClient(client_config(options))
    name = topic_name(options, Stream.TRADES)
    for answer in admin.delete_records([KafkaPlace(name, 0, 3)]).values():
        answer.result(20)

    read = reader.read(TRADES, 1)
    subscription = reader.subscribe(lambda *_: Position(1))
    found = polled(subscription, 2)
    subscription.close()

    assert read is not None
    assert (read.trimmed, read.start, read.next) == (True, 1, 3)
    assert (found[0].trimmed, found[0].start, found[0].next) == (True, 1, 3)
    assert [v for batch in found for v in batch.values] == records(3, 2)


def test_an_end_below_the_position_asks_for_the_position_again(
    options: KafkaOptions, reader: KafkaReader
) -> None:
    """The broker has lost its tail: the chain is chosen anew, and begins with what there is."""
    Writer(options).put(TRADES, records(0, 3))
    asked: list[TopicPartition] = []

    def position_of(place: TopicPartition, *_: object) -> Position:
        asked.append(place)
        return Position(100 if asked.count(place) == 1 and place == TRADES else 0, 0)

    subscription = reader.subscribe(position_of)
    found = polled(subscription, 3)
    subscription.close()

    assert asked.count(TRADES) == 2
    assert [v for batch in found for v in batch.values] == records(0, 3)


def test_a_recreated_topic_is_another_log_at_the_latest_when_asked(
    options: KafkaOptions, made: Topics, reader: KafkaReader
) -> None:
    Writer(options).put(TRADES, records(0, 5))
    asked: list[str] = []

    def position_of(place: TopicPartition, topic_id: str, _is_cut: object) -> Position:
        if place == TRADES:
            asked.append(topic_id)
        return Position(0)

    subscription = reader.subscribe(position_of)
    polled(subscription, 5)
    before = reader.topic_id(TRADES)
    made.delete()
    made.ensure(partitions=2, replication=1, retention_ms=-1)
    Writer(options, "again").put(TRADES, records(50, 2))

    now = reader.topic_id(TRADES)
    found = polled(subscription, 2)
    subscription.seek(TRADES, 0)
    again = polled(subscription, 2)
    subscription.close()
    assert now != before
    assert [v for batch in found for v in batch.values] == records(50, 2)
    # A batch may still bear the old id; so a lander asks before it publishes, and seeks.
    assert found[0].topic_id in {before, now}
    assert {batch.topic_id for batch in again} == {now}
    assert asked[0] == before


@pytest.mark.long
def test_a_reader_lives_through_the_death_of_the_broker(
    tmp_path: Path,
    topics: str,
) -> None:
    server = start_kafka(tmp_path)
    try:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        make_topics(options)
        Writer(options).put(TRADES, records(0, 2))
        reader, ends = KafkaReader(options), dict[TopicPartition, int]()
        subscription = reader.subscribe(
            lambda place, *_: Position(ends.get(place, 0)),
        )
        ends[TRADES] = polled(subscription, 2)[-1].next
        server.kill()
        with pytest.raises(TransientError):
            until(subscription, [], lambda: False)
        server.start()
        Writer(options).put(TRADES, records(2, 2))
        deadline, found = time.monotonic() + WAIT_S, []
        while sum(len(batch.values) for batch in found) < 2:
            assert time.monotonic() < deadline
            try:
                found += subscription.poll(0.1)
            except TransientError:
                continue
        subscription.close()
        reader.close()
        assert [v for batch in found for v in batch.values] == records(2, 2)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "how", [pytest.param("as it reads on", marks=pytest.mark.long), "as it seeks"]
)
def test_a_tail_that_the_broker_lost_is_noticed_though_the_log_has_grown_again(
    tmp_path: Path,
    topics: str,
    how: str,
) -> None:
    """The broker dies before the end of its log is on the disk, and is written to again."""
    with start_kafka(tmp_path) as server:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        make_topics(options)
        log_file = server.data / f"{topic_name(options, Stream.TRADES)}-0" / f"{0:020}.log"
        asked: list[TopicPartition] = []

        def position_of(place: TopicPartition, *_: object) -> Position:
            asked.append(place)
            return Position(0)

        reader = KafkaReader(options)
        subscription = reader.subscribe(position_of)
        Writer(options).put(TRADES, records(0, 3))
        polled(subscription, 3)
        kept = log_file.stat().st_size
        Writer(options).put(TRADES, records(3, 3))
        last = polled(subscription, 3)[-1]
        server.kill()
        os.truncate(log_file, kept)
        server.start()
        Writer(options, "again").put(TRADES, records(50, 9))
        if how == "as it seeks":
            subscription.seek(TRADES, last.next)
        found = polled(subscription, 12)
        subscription.close()
        reader.close()

    assert asked.count(TRADES) == 2
    assert [v for batch in found for v in batch.values] == records(0, 3) + records(50, 9)


def read_from(reader: KafkaReader, offset: int) -> LogBatch:
    """What is there from an offset on; a broker that has just started takes its time."""
    deadline = time.monotonic() + WAIT_S
    while (batch := reader.read(TRADES, offset)) is None or not batch.values:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return batch


def make_again(made: Topics) -> None:
    """A topic that is being deleted is still listed for a moment."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            made.ensure(partitions=2, replication=1, retention_ms=-1)
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@pytest.mark.long
def test_a_topic_made_anew_after_its_broker_was_restarted_is_read(
    tmp_path: Path,
    topics: str,
) -> None:
    """The new topic's leader epochs are lower than those the client has seen: it would wait."""
    with start_kafka(tmp_path) as server:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        made, ends = make_topics(options), dict[tuple[TopicPartition, str], int]()
        Writer(options).put(TRADES, records(0, 5))
        reader = KafkaReader(options)
        subscription = reader.subscribe(
            lambda place, life, _cut: Position(ends.get((place, life), 0))
        )
        last = polled(subscription, 5)[-1]
        ends[TRADES, last.topic_id] = last.next
        server.kill()
        server.start()
        Writer(options, "later").put(TRADES, records(5, 1))
        last = polled(subscription, 1)[-1]
        ends[TRADES, last.topic_id] = last.next
        made.delete()
        make_again(made)
        Writer(options, "again").put(TRADES, records(50, 2))

        found = polled(subscription, 2)
        subscription.close()
        reader.close()

        assert [v for batch in found for v in batch.values] == records(50, 2)
        assert found[-1].topic_id != last.topic_id


def test_a_partition_is_read_again_after_its_topic_was_made_anew_on_a_restarted_broker(
    tmp_path: Path,
    topics: str,
) -> None:
    """The reader's client knows the old topic's leader epochs, which the new one's do not reach."""
    with start_kafka(tmp_path) as server:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        made = make_topics(options)
        reader = KafkaReader(options)
        Writer(options).put(TRADES, records(0, 5))
        read_from(reader, 0)
        server.kill()
        server.start()
        Writer(options, "later").put(TRADES, records(5, 1))
        batch = read_from(reader, 6)
        made.delete()
        make_again(made)
        Writer(options, "again").put(TRADES, records(50, 2))

        found = read_from(reader, 0)
        reader.close()

    assert list(found.values) == records(50, 2)
    assert found.topic_id != batch.topic_id
