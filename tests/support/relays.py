"""Relays of a test: run until something holds, and what Kafka has then."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.kafka_topics import make_topics
from tests.servers.kafka import KafkaServer
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import LogReader
from tickhouse.stream.relay import Relay
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

TRADES = TopicPartition(Stream.TRADES, 0)
QUOTES = TopicPartition(Stream.QUOTES, 1)
WAIT_S = 80.0
ROOT = Path(__file__).parents[2]

Gaps = list[tuple[TopicPartition, int, int]]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def topics_of(kafka: KafkaServer, prefix: str) -> KafkaOptions:
    """Topics of a test's own on a broker."""
    options = KafkaOptions(bootstrap=kafka.bootstrap, prefix=prefix)
    make_topics(options)
    return options


@contextmanager
def relaying(
    spool: SqliteLog, options: KafkaOptions, *, drains: bool = False, gaps: Gaps | None = None
) -> Iterator[Relay]:
    found: Gaps = [] if gaps is None else gaps
    relay = Relay(
        lambda: SqliteReader(spool.path),
        spool,
        options,
        tell_gap=lambda place, first, end, _since: found.append((place, first, end)),
        drains=drains,
    )
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def carried(spool: SqliteLog, options: KafkaOptions) -> None:
    """Relay until Kafka holds the whole spool."""
    with relaying(spool, options) as relay:
        until(lambda: not any(relay.lags().values()))
        assert relay.failures() == {}


def values_of(log: LogReader, place: TopicPartition) -> list[bytes]:
    values: list[bytes] = []
    position = log.bounds(place).begin
    while (batch := log.read(place, position)) is not None:
        values += batch.values
        position = batch.next
    return values


def held(options: KafkaOptions, place: TopicPartition = TRADES) -> list[bytes]:
    reader = KafkaReader(options)
    try:
        return values_of(reader, place)
    finally:
        reader.close()


def stop_of(spool: SqliteLog, options: KafkaOptions) -> str:
    """Why the relay stops."""
    with relaying(spool, options) as relay:
        until(relay.failures)
        (error,) = set(map(str, relay.failures().values()))
    return error


RELAY = """
import sys, time
from pathlib import Path
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.relay import Relay
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

path = Path(sys.argv[1])
spool = SqliteLog(path)
options = KafkaOptions(bootstrap=sys.argv[2], prefix=sys.argv[3])
relay = Relay(lambda: SqliteReader(path), spool, options, tell_gap=print)
relay.start()
while not relay.failures():
    time.sleep(0.05)
print(relay.failures(), flush=True)
time.sleep(120)
"""


@contextmanager
def relay_process(
    path: Path, options: KafkaOptions, *, failpoints: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A relay in a process of its own, killed at the end; it prints what it stops at."""
    arguments = [str(path), options.bootstrap, options.prefix]
    with subprocess.Popen(
        [sys.executable, "-c", RELAY, *arguments],
        cwd=ROOT,
        env={**os.environ, "TICKHOUSE_FAILPOINTS": failpoints},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            yield child
        finally:
            child.kill()
