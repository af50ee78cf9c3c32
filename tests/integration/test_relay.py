"""The relay on real Kafka: whatever happens to it, the broker or the spool, each record once."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from support.kafka_topics import Writer, make_topics
from support.memory_log import frames
from support.relays import (
    QUOTES,
    TRADES,
    Gaps,
    carried,
    held,
    relay_process,
    relaying,
    stop_of,
    topics_of,
    until,
)
from tests.servers.kafka import KafkaServer, start_kafka
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka_client import client_config
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog
from tickhouse.stream.topics import topic_name


@pytest.fixture
def options(kafka: KafkaServer, topics: str) -> KafkaOptions:
    return topics_of(kafka, topics)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "spool" / "log.db")
    yield log
    log.close()


def test_every_record_of_every_partition_once_and_in_order(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    spool.append([Append(TRADES, frames(0, 2_500)), Append(QUOTES, frames(0, 3))])
    carried(spool, options)
    spool.append([Append(TRADES, frames(2_500, 10))])
    carried(spool, options)

    assert held(options) == frames(0, 2_510)
    assert held(options, QUOTES) == frames(0, 3)


def test_what_comes_while_it_runs_goes_on_at_once(spool: SqliteLog, options: KafkaOptions) -> None:
    with relaying(spool, options) as relay:
        for first in range(0, 50, 10):
            spool.append([Append(TRADES, frames(first, 10))])
            until(lambda first=first: relay.held(TRADES) == first + 10)

    assert held(options) == frames(0, 50)


def test_a_kill_at_any_time_loses_and_doubles_nothing(
    tmp_path: Path, options: KafkaOptions
) -> None:
    path = tmp_path / "log.db"
    spool = SqliteLog(path)
    spool.append([Append(TRADES, frames(first, 500)) for first in range(0, 30_000, 500)])
    spool.close()
    dice = random.Random(20261123)
    for _ in range(6):
        with relay_process(path, options):
            time.sleep(dice.uniform(0.8, 2.5))
    spool = SqliteLog(path)
    carried(spool, options)
    spool.close()

    assert held(options) == frames(0, 30_000)


def test_a_zombie_is_fenced_and_writes_nothing_more(tmp_path: Path, options: KafkaOptions) -> None:
    """A recorder is stopped, a fresh spool takes over its shard, then the first wakes."""
    old, new = SqliteLog(tmp_path / "old.db"), SqliteLog(tmp_path / "new.db")
    old.append([Append(TRADES, frames(0, 20))])
    with relaying(old, options) as zombie:
        until(lambda: zombie.held(TRADES) == 20)
        new.append([Append(TRADES, frames(1_000, 5))])
        carried(new, options)
        old.append([Append(TRADES, frames(20, 20))])
        until(zombie.failures)
        (reason,) = map(str, zombie.failures().values())
    old.close()
    new.close()

    assert held(options) == frames(0, 20) + frames(1_000, 5)
    assert "another spool" in reason
    assert "tickhouse drain" in reason


def test_drain_sends_what_a_replaced_spool_still_held_and_the_other_goes_on(
    tmp_path: Path, options: KafkaOptions
) -> None:
    old, new = SqliteLog(tmp_path / "old.db"), SqliteLog(tmp_path / "new.db")
    old.append([Append(TRADES, frames(0, 20))])
    carried(old, options)
    old.append([Append(TRADES, frames(20, 10))])
    new.append([Append(TRADES, frames(1_000, 5))])
    carried(new, options)
    for _ in range(2):
        with relaying(old, options, drains=True) as relay:
            until(lambda relay=relay: not any(relay.lags().values()))
    new.append([Append(TRADES, frames(1_005, 5))])
    carried(new, options)
    old.close()
    new.close()

    assert held(options) == frames(0, 20) + frames(1_000, 5) + frames(20, 10) + frames(1_005, 5)


def test_a_spool_restored_from_an_older_copy_stops_and_says_so(
    tmp_path: Path, options: KafkaOptions
) -> None:
    path = tmp_path / "log.db"
    spool = SqliteLog(path)
    spool.append([Append(TRADES, frames(0, 10))])
    spool.close()
    copy = path.read_bytes()
    spool = SqliteLog(path)
    spool.append([Append(TRADES, frames(10, 10))])
    carried(spool, options)
    spool.close()
    for leftover in tmp_path.glob("log.db-*"):
        leftover.unlink()
    path.write_bytes(copy)
    spool = SqliteLog(path)
    shorter = stop_of(spool, options)
    spool.append([Append(TRADES, frames(500, 30))])
    grown = stop_of(spool, options)
    spool.close()

    assert "older copy of itself" in shorter
    assert "older copy of itself" in grown
    assert held(options) == frames(0, 20)


def test_a_partition_that_retention_emptied_is_sent_what_the_spool_still_holds(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    """Whether the broker had lost its tail before cannot be told any more."""
    spool.append([Append(TRADES, frames(0, 10))])
    spool.append([Append(TRADES, frames(10, 5))])
    carried(spool, options)
    spool.trim(TRADES, 10)
    remove(options, before=-1)
    spool.append([Append(TRADES, frames(15, 5))])
    carried(spool, options)

    assert held(options) == frames(10, 10)


def remove(options: KafkaOptions, *, before: int) -> None:
    place = KafkaPlace(topic_name(options, Stream.TRADES), 0, before)
    admin = AdminClient(client_config(options))
    for answer in admin.delete_records([place]).values():
        answer.result(20)


def test_a_topic_made_anew_is_sent_everything_that_the_spool_holds(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    spool.append([Append(TRADES, frames(0, 10))])
    with relaying(spool, options) as relay:
        until(lambda: relay.held(TRADES) == 10)
        made = make_topics(options)
        made.delete()
        made.ensure(partitions=2, replication=1, retention_ms=-1)
        spool.append([Append(TRADES, frames(10, 5))])
        until(lambda: held(options) == frames(0, 15))


def test_what_is_neither_in_the_spool_nor_in_kafka_is_a_recorded_gap(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    spool.append([Append(TRADES, frames(0, 10))])
    carried(spool, options)
    for first in (10, 20, 30):
        spool.append([Append(TRADES, frames(first, 10))])
    spool.trim(TRADES, 20)
    gaps: Gaps = []
    with relaying(spool, options, gaps=gaps) as relay:
        until(lambda: not any(relay.lags().values()))

    assert gaps == [(TRADES, 10, 20)]
    assert held(options) == frames(0, 10) + frames(20, 20)


def test_a_foreign_transaction_on_the_partition_is_waited_for(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    spool.append([Append(TRADES, frames(0, 5))])
    carried(spool, options)
    foreign = Writer(options, "foreign")
    foreign.put(TRADES, [b"foreign"], leave_open=True)
    spool.append([Append(TRADES, frames(5, 5))])
    with relaying(spool, options) as relay:
        time.sleep(2)
        assert relay.held(TRADES) == 0
        foreign.producer.commit_transaction(20)
        until(lambda: relay.held(TRADES) == 10)

    assert held(options) == [*frames(0, 5), b"foreign", *frames(5, 5)]


@pytest.mark.long
def test_a_broker_that_dies_is_waited_for(tmp_path: Path, topics: str) -> None:
    server = start_kafka(tmp_path / "kafka")
    spool = SqliteLog(tmp_path / "log.db")
    try:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        make_topics(options)
        with relaying(spool, options) as relay:
            for first in range(0, 3_000, 1_000):
                spool.append([Append(TRADES, frames(first, 1_000))])
                server.kill()
                server.start()
            until(lambda: relay.held(TRADES) == 3_000)
        assert held(options) == frames(0, 3_000)
    finally:
        spool.close()
        server.stop()


def test_a_shard_without_a_partition_and_missing_topics_are_told(
    spool: SqliteLog,
    options: KafkaOptions,
    kafka: KafkaServer,
) -> None:
    missing = KafkaOptions(bootstrap=kafka.bootstrap, prefix=f"{options.prefix}x")
    spool.append([Append(TopicPartition(Stream.TRADES, 5), frames(0, 1))])

    assert "--partitions 6" in stop_of(spool, options)
    assert "tickhouse init" in stop_of(spool, missing)


def test_a_topic_that_would_refuse_an_envelope_is_found_at_the_start(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    limit_messages(options, 900_000)
    spool.append([Append(TRADES, frames(0, 1))])

    reason = stop_of(spool, options)

    assert "max.message.bytes is 900000" in reason
    assert "tickhouse init" in reason
    assert held(options) == []


def test_a_record_that_the_topic_refuses_stops_its_partition_and_is_not_skipped(
    spool: SqliteLog, options: KafkaOptions
) -> None:
    with relaying(spool, options) as relay:
        spool.append([Append(TRADES, frames(0, 1))])
        until(lambda: relay.held(TRADES) == 1)
        limit_messages(options, 2_000)
        large = random_bytes(frames(2, 1, size=100_000))
        spool.append([Append(TRADES, [*frames(1, 1), *large, *frames(3, 1)])])
        until(relay.failures)
        (error,) = relay.failures().values()
        assert held(options) == frames(0, 1)
        limit_messages(options, 2 << 20)
        until(lambda: relay.held(TRADES) == 4)

    assert "max.message.bytes" in str(error)
    assert held(options) == [*frames(0, 2), *large, *frames(3, 1)]


def limit_messages(options: KafkaOptions, limit: int) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic_name(options, Stream.TRADES))
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient(client_config(options))
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(20)


def random_bytes(values: list[bytes]) -> list[bytes]:
    """So that they do not compress."""
    noise = random.Random(1).randbytes(40_000).hex().encode()
    return [value.replace(b"x" * 80_000, noise) for value in values]


def test_options_show_no_secret() -> None:
    shown = repr(KafkaOptions(bootstrap="h:1", sasl_password="hunter2"))  # noqa: S106

    assert "hunter2" not in shown
