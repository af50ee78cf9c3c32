"""Rules of the relay that take more than one spool, a second process or a broken broker."""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from support.kafka_topics import Writer, make_topics
from support.memory_log import frames
from support.relays import (
    TRADES,
    carried,
    held,
    relay_process,
    relaying,
    stop_of,
    topics_of,
    until,
)
from tests.servers.kafka import KafkaServer, start_kafka
from tickhouse.stream.carrier import Carrier
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog


@pytest.fixture
def options(kafka: KafkaServer, topics: str) -> KafkaOptions:
    return topics_of(kafka, topics)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[SqliteLog]:
    yield from opened(tmp_path / "old.db")


@pytest.fixture
def new(tmp_path: Path) -> Iterator[SqliteLog]:
    yield from opened(tmp_path / "new.db")


def opened(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    log.close()


def test_a_zombie_process_that_wakes_in_a_transaction_is_fenced(
    tmp_path: Path, new: SqliteLog, options: KafkaOptions
) -> None:
    """Stopped (SIGSTOP) with records written and not committed; a fresh spool takes over."""
    path = tmp_path / "zombie.db"
    log = SqliteLog(path)
    log.append([Append(TRADES, frames(0, 20_000))])
    log.close()
    with relay_process(path, options, failpoints="relay.commit.before=sleep:2") as zombie:
        until(lambda: held(options))
        time.sleep(1)
        zombie.send_signal(signal.SIGSTOP)
        new.append([Append(TRADES, frames(90_000, 5))])
        carried(new, options)
        before = held(options)
        zombie.send_signal(signal.SIGCONT)
        assert zombie.stdout is not None
        assert any(b"another spool" in line for line in zombie.stdout)

    assert before == frames(0, len(before) - 5) + frames(90_000, 5)
    assert 1_000 <= len(before) < 20_000
    assert held(options) == before


def test_a_fresh_spool_that_died_before_its_first_commit_may_still_take_over(
    old: SqliteLog, new: SqliteLog, options: KafkaOptions
) -> None:
    old.append([Append(TRADES, frames(0, 5))])
    carried(old, options)
    new.append([Append(TRADES, frames(100, 5))])
    new.note_relayed(TRADES, is_sure=False)
    carried(new, options)

    assert held(options) == frames(0, 5) + frames(100, 5)


def test_one_that_died_after_its_first_commit_is_not_taken_for_fresh(
    old: SqliteLog, new: SqliteLog, options: KafkaOptions
) -> None:
    """It had no time to note that it has relayed; its records lie far behind the other's."""
    old.append([Append(TRADES, frames(0, 5))])
    carried(old, options)
    old.note_relayed(TRADES, is_sure=False)
    new.append([Append(TRADES, frames(100, 3_000))])
    carried(new, options)

    assert "another spool" in stop_of(old, options)
    assert held(options) == frames(0, 5) + frames(100, 3_000)


def test_a_spool_that_stopped_does_not_disturb_the_one_that_goes_on(
    old: SqliteLog, new: SqliteLog, options: KafkaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fenced: Counter[str] = Counter()
    fence = Carrier._fence

    def counted(carrier: Carrier) -> Producer:
        fenced[carrier._epoch] += 1
        return fence(carrier)

    monkeypatch.setattr(Carrier, "_fence", counted)
    old.append([Append(TRADES, frames(0, 5))])
    carried(old, options)
    new.append([Append(TRADES, frames(100, 5))])
    carried(new, options)
    fenced.clear()
    with relaying(new, options) as going, relaying(old, options) as stopped:
        until(stopped.failures)
        for first in range(105, 115):
            new.append([Append(TRADES, frames(first, 1))])
            until(lambda first=first: going.held(TRADES) == first - 99)
            time.sleep(0.2)
        assert fenced[old.topic_id(TRADES)] == 1
        assert fenced[new.topic_id(TRADES)] <= 2

    assert held(options) == frames(0, 5) + frames(100, 15)


def test_a_backlog_is_drained_while_the_next_spool_goes_on(
    old: SqliteLog, new: SqliteLog, options: KafkaOptions
) -> None:
    old.append([Append(TRADES, frames(0, 5))])
    carried(old, options)
    old.append([Append(TRADES, frames(5, 4_000))])
    new.append([Append(TRADES, frames(10_000, 5))])
    carried(new, options)
    with relaying(new, options) as going:
        until(lambda: going.held(TRADES) == 5)
        with relaying(old, options, drains=True) as draining:
            first = 10_005
            while any(draining.lags().values()):
                new.append([Append(TRADES, frames(first, 1))])
                first += 1
                time.sleep(0.01)
        new.append([Append(TRADES, frames(first, 1))])
        until(lambda: going.held(TRADES) == first + 1 - 10_000)
        assert going.failures() == {}

    got = held(options)
    assert sorted(got) == sorted(frames(0, 4_005) + frames(10_000, first + 1 - 10_000))
    backlog, followed = set(frames(0, 4_005)), frames(10_000, first + 1 - 10_000)
    assert [value for value in got if value in backlog] == frames(0, 4_005)
    assert [value for value in got if value not in backlog] == followed


def test_the_own_tail_is_found_far_behind_foreign_and_aborted_records(
    old: SqliteLog, options: KafkaOptions
) -> None:
    old.append([Append(TRADES, frames(0, 5))])
    carried(old, options)
    foreign = Writer(options, "foreign")
    foreign.put(TRADES, [b"foreign"] * 3_000)
    foreign.put(TRADES, [b"aborted"] * 300, abort=True)
    old.append([Append(TRADES, frames(5, 5))])
    carried(old, options)

    assert held(options) == frames(0, 5) + [b"foreign"] * 3_000 + frames(5, 5)


def test_a_topic_made_anew_is_noticed_though_nothing_comes(
    old: SqliteLog, options: KafkaOptions
) -> None:
    old.append([Append(TRADES, frames(0, 10))])
    with relaying(old, options) as relay:
        until(lambda: relay.held(TRADES) == 10)
        made = make_topics(options)
        made.delete()
        made.ensure(partitions=2, replication=1, retention_ms=-1)
        until(lambda: held(options) == frames(0, 10))


def test_a_tail_that_the_broker_lost_is_sent_again(
    tmp_path: Path,
    old: SqliteLog,
    topics: str,
) -> None:
    """The broker comes back with an older copy of its data: the same topic, a shorter log."""
    server = start_kafka(tmp_path / "kafka")
    copy = tmp_path / "copy"
    try:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        make_topics(options)
        with relaying(old, options) as relay:
            old.append([Append(TRADES, frames(0, 10))])
            until(lambda: relay.held(TRADES) == 10)
            server.stop()
            shutil.copytree(server.data, copy)
            server.start()
            old.append([Append(TRADES, frames(10, 10))])
            until(lambda: relay.held(TRADES) == 20)
            server.stop()
            shutil.rmtree(server.data)
            copy.rename(server.data)
            server.start()
            old.append([Append(TRADES, frames(20, 10))])
            until(lambda: relay.held(TRADES) == 30)
        assert held(options) == frames(0, 30)
    finally:
        server.stop()


@pytest.mark.long
def test_a_relay_without_a_broker_holds_nothing_and_stops_at_once(
    tmp_path: Path,
    old: SqliteLog,
    topics: str,
) -> None:
    """Away from the start, and away in the middle of its work."""
    server = start_kafka(tmp_path / "kafka")
    options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
    make_topics(options)
    old.append([Append(TRADES, frames(0, 5))])
    try:
        with relaying(old, options) as relay:
            until(lambda: relay.held(TRADES) == 5)
            server.kill()
            old.append([Append(TRADES, frames(5, 5))])
            until(relay.failures)
            (error,) = map(str, relay.failures().values())
            assert relay.held(TRADES) == 0
            assert sum(relay.lags().values()) == 5
            started = time.monotonic()
        in_the_middle_s = time.monotonic() - started
        with relaying(old, options) as relay:
            time.sleep(1)
            started = time.monotonic()
        at_the_start_s = time.monotonic() - started
    finally:
        server.stop()

    assert options.url in error
    assert in_the_middle_s < 5
    assert at_the_start_s < 15
