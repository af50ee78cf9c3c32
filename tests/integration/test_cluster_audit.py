"""Audit over real Kafka: what the spool, the log and the lake hold of each other, exactly."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient

from support.audited import bad_layers, layer, texts
from support.transactions import Transactions
from tests.servers.kafka import KafkaServer
from tickhouse.audit.audit import audit
from tickhouse.audit.report import AuditReport, describe
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.local import LocalStore
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog
from tickhouse.stream.topics import Topics
from tickhouse.warehouse.duckdb import DuckDBWarehouse

PLACE = TopicPartition(Stream.TRADES, 0)
HOUR_MS = 3600 * 1000
WAIT_S = 20.0


class Bench:
    """A spool, topics of one partition, a lake in a folder; a relay and a lander by hand."""

    def __init__(self, kafka: KafkaServer, prefix: str, folder: Path) -> None:
        self.kafka = kafka
        self.options = KafkaOptions(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix)
        self.topics = Topics(self.options)
        self.topics.ensure(partitions=1, replication=1, retention_ms=HOUR_MS)
        self.spool = SqliteLog(folder / "spool.db")
        self.epoch = self.spool.topic_id(PLACE)
        self.store = LocalStore(folder / "lake")
        self.warehouse = DuckDBWarehouse(folder / "warehouse.duckdb")
        self.warehouse.prepare()
        self.relay = Transactions(kafka, prefix, epoch=self.epoch)

    def record(self, count: int) -> None:
        end = self.spool.bounds(PLACE).end
        values = [
            encode_frames(
                [b'{"type":"ping"}'],
                source="sim:finnhub.ws",
                session="s1",
                first_seq=end + number,
                received_at_ns=time.time_ns(),
            )[0]
            for number in range(count)
        ]
        self.spool.append([Append(PLACE, values)])

    def carry(self, first: int, last: int) -> None:
        """One transaction with these records of the spool."""
        batch = self.spool.read(PLACE, first)
        assert batch is not None
        self.relay.write(PLACE, list(batch.values[: last - first + 1]), first=first)

    def land(self) -> None:
        with closing(KafkaReader(self.options)) as log:
            lander = Lander(log, self.store)
            lander.drain()
            lander.close()

    def audit(self, **options: float) -> AuditReport:
        with closing(KafkaReader(self.options)) as log:
            return audit(
                log=log,
                store=self.store,
                warehouse=self.warehouse,
                spool=self.spool,
                deep=True,
                **options,  # type: ignore[arg-type]
            )

    def remove_below(self, offset: int) -> None:
        """Retention removes records, at once."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        place = KafkaPlace(self.topics.name(Stream.TRADES), 0, offset)
        admin.delete_records([place])[place].result(WAIT_S)

    def close(self) -> None:
        self.warehouse.close()
        self.spool.close()


@pytest.fixture
def bench(kafka: KafkaServer, topics: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka, topics, tmp_path)
    yield bench
    bench.close()


def test_holes_of_transactions_are_no_loss(bench: Bench) -> None:
    bench.record(30)
    bench.carry(0, 9)
    bench.relay.write(PLACE, [b"no"] * 4, is_aborted=True)
    bench.carry(10, 19)
    bench.land()
    bench.carry(20, 29)
    bench.land()

    report = bench.audit()

    assert report.ok, describe(report)
    assert 30 == layer(report, "spool_to_log").checked == layer(report, "log_to_bronze").checked


def test_what_is_on_its_way_from_the_spool_and_from_the_log_is_told_with_its_age(
    bench: Bench,
) -> None:
    bench.record(30)
    bench.carry(0, 9)
    bench.land()
    bench.carry(10, 14)

    report = bench.audit()

    assert report.ok, describe(report)
    spooled, logged = layer(report, "spool_to_log"), layer(report, "log_to_bronze")
    assert (15, 5) == (spooled.in_flight, logged.in_flight)
    assert 0 <= (spooled.in_flight_age_s or 0) < WAIT_S
    assert "late" in texts(bench.audit(lag_s_max=1e-6), "spool_to_log")


def test_a_record_that_the_relay_left_out_is_lost_and_named(bench: Bench) -> None:
    bench.record(20)
    bench.carry(0, 9)
    bench.carry(13, 19)
    bench.land()

    report = bench.audit()

    assert 3 == report.lost
    assert "spool_to_log" in bad_layers(report)


def test_a_record_that_was_relayed_twice_is_named(bench: Bench) -> None:
    bench.record(20)
    bench.carry(0, 9)
    bench.land()
    bench.carry(5, 19)
    bench.land()

    report = bench.audit()

    assert 5 == layer(report, "spool_to_log").duplicated
    assert "5 are in this chain already" in texts(report, "spool_to_log")


def test_a_spool_that_is_not_the_one_that_was_relayed_is_named(bench: Bench) -> None:
    """An older copy was restored: it gives out offsets again."""
    bench.record(20)
    bench.carry(0, 9)
    batch = bench.spool.read(PLACE, 0)
    assert batch is not None
    bench.relay.write(PLACE, [batch.values[11], *batch.values[11:]], first=10)
    bench.land()

    report = bench.audit()

    assert ["spool_to_log"] == [name for name in bad_layers(report) if name != "sessions"]
    assert "is not what the spool holds at 10" in texts(report, "spool_to_log")


def test_records_of_a_foreign_producer_are_landed_counted_and_no_loss(bench: Bench) -> None:
    bench.record(20)
    foreign = Transactions(bench.kafka, bench.options.prefix, epoch=None)
    bench.carry(0, 9)
    foreign.write(PLACE, [b"hello", b"", b'{"v":1,'])
    bench.carry(10, 19)
    bench.land()

    report = bench.audit()

    assert report.ok, describe(report)
    assert 23 == layer(report, "log_to_bronze").checked
    assert "3" == layer(report, "spool_to_log").sums["foreign"]


def test_a_missing_object_is_lost_once_in_records(bench: Bench) -> None:
    bench.record(30)
    for first in (0, 10, 20):
        bench.carry(first, first + 9)
        bench.land()
    chain = next(c for c in find_chains(bench.store) if c.stream is Stream.TRADES)
    keys = [key for key, _ in Chain(bench.store, chain).walk()]
    (bench.store.root / keys[1]).unlink()

    report = bench.audit()

    assert ["log_to_bronze"] == [name for name in bad_layers(report) if name != "sessions"]
    assert keys[1] in texts(report, "log_to_bronze")


def test_retention_that_removed_markers_alone_lost_nothing(bench: Bench) -> None:
    bench.record(20)
    bench.carry(0, 9)
    bench.land()
    bench.remove_below(11)
    bench.carry(10, 19)

    before = bench.audit()
    bench.land()
    after = bench.audit()

    assert before.ok, describe(before)
    assert after.ok, describe(after)
    assert 20 == layer(after, "spool_to_log").checked


def test_retention_that_passed_the_lander_is_lost_until_the_gap_is_recorded(bench: Bench) -> None:
    bench.record(30)
    bench.carry(0, 9)
    bench.land()
    bench.carry(10, 19)
    bench.carry(20, 29)
    bench.remove_below(22)

    before = bench.audit()
    bench.land()
    after = bench.audit()

    assert 10 == layer(before, "spool_to_log").lost
    assert layer(after, "spool_to_log").ok
    assert "10 records lie in recorded gaps" in texts(after, "spool_to_log")


def test_a_recreated_topic_is_another_chain_and_what_was_sent_again_is_counted(
    bench: Bench,
) -> None:
    bench.record(30)
    bench.carry(0, 19)
    bench.land()
    bench.topics.delete()
    bench.topics.ensure(partitions=1, replication=1, retention_ms=HOUR_MS)
    bench.relay = Transactions(bench.kafka, bench.options.prefix, epoch=bench.epoch)
    bench.carry(10, 29)
    bench.land()

    report = bench.audit()

    assert report.ok, describe(report)
    assert "10" == layer(report, "spool_to_log").sums["sent_again"]
    chains = [chain for chain in find_chains(bench.store) if chain.stream is Stream.TRADES]
    assert 2 == len(chains)
