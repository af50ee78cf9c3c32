"""Where a relay goes on: behind the last record of its own spool that the partition holds.

Read only after the transactional id was fenced: before that, a killed relay's last batch may still
arrive. And only where everything up to the high watermark is settled: an open transaction of
somebody else would hide committed records of ours.
"""

# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient, OffsetSpec

from tickhouse.errors import TransientError
from tickhouse.stream.kafka_client import (
    DRAINED_HEADER,
    TIMEOUT_S,
    answer_of,
    client_config,
    raise_kafka,
    read_spool_header,
)
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.kafka_records import EARLIEST, LATEST, reading_config, take

REACH: Final = 256
"""Offsets looked at first; further and further back while none is found."""
WIDER: Final = 8
SETTLE_S: Final = 0.2
WAIT_TOLD_S: Final = 2.0
"""So long a transaction of a drain, or of a relay that was just fenced, may take."""


class Tail(msgspec.Struct, frozen=True):
    """The end of a partition, as far as it concerns one spool.

    Attributes:
        low, end: first offset held and high watermark.
        offset: spool offset of the last record of the own spool; None where there is none.
        value: that record.
        at_ms: when the log took it, UNIX milliseconds UTC.
        rival: epoch of another spool that has records behind it, drained ones apart; None = none.
    """

    low: int
    end: int
    offset: int | None = None
    value: bytes = b""
    at_ms: int = 0
    rival: str | None = None


def read_tail(
    options: KafkaOptions,
    place: KafkaPlace,
    epoch: str,
    stop: threading.Event,
    *,
    looks_behind_rivals: bool,
    tell_wait: Callable[[str], None],
) -> Tail | None:
    """The tail of a partition, settled; None where told to stop before.

    Args:
        options: the cluster.
        place: topic and partition.
        epoch: of the own spool.
        stop: ends the wait for what is open.
        looks_behind_rivals: whether to go on looking where only another spool's records are found.
        tell_wait: told what is waited for.

    Raises:
        ConfigError, RefusedError, TransientError: see `raise_kafka`.
    """
    admin = AdminClient(client_config(options))
    end = _settled_end(admin, options, place, stop, tell_wait)
    if end is None:
        return None
    low = _offset(admin, options, place, EARLIEST, IsolationLevel.READ_UNCOMMITTED)
    tail = Tail(low, end)
    if end <= low:
        return tail
    consumer = Consumer(reading_config(options, f"{options.group}-relay"))
    try:
        reach = REACH
        while True:
            start = max(low, end - reach)
            tail = _look(consumer, options, tail, place, start, epoch)
            if tail.offset is not None or start <= low:
                return tail
            if tail.rival is not None and not looks_behind_rivals:
                return tail
            reach *= WIDER
    finally:
        consumer.close()


def _settled_end(
    admin: AdminClient,
    options: KafkaOptions,
    place: KafkaPlace,
    stop: threading.Event,
    tell_wait: Callable[[str], None],
) -> int | None:
    """The high watermark, once everything below it is settled.

    What others begin behind it does not matter: whoever writes our own records was fenced.
    """
    end, tell_at = -1, time.monotonic() + WAIT_TOLD_S
    while not stop.is_set():
        high = _offset(admin, options, place, LATEST, IsolationLevel.READ_UNCOMMITTED)
        end = high if end < 0 else min(end, high)
        stable = _offset(admin, options, place, LATEST, IsolationLevel.READ_COMMITTED)
        if stable >= end:
            return end
        if time.monotonic() >= tell_at:
            tell_wait(
                f"a transaction of another producer is open on {place.topic}[{place.partition}] at"
                f" offset {stable}, and hides what comes behind it, up to {end}"
            )
        stop.wait(SETTLE_S)
    return None


def _offset(
    admin: AdminClient,
    options: KafkaOptions,
    place: KafkaPlace,
    spec: OffsetSpec,
    isolation: IsolationLevel,
) -> int:
    asked = KafkaPlace(place.topic, place.partition)
    answers = admin.list_offsets(
        {asked: spec}, isolation_level=isolation, request_timeout=TIMEOUT_S
    )
    what = f"{options.url}: end of {place.topic}[{place.partition}]"
    return answer_of(next(iter(answers.values())), what).offset


def _look(
    consumer: Consumer,
    options: KafkaOptions,
    tail: Tail,
    place: KafkaPlace,
    start: int,
    epoch: str,
) -> Tail:
    """The tail as the records from `start` on tell it."""
    tail = Tail(tail.low, tail.end)
    for message in _records(consumer, options, place, start, tail.end):
        headers = message.headers()
        found = read_spool_header(headers)
        if found is None:
            continue
        if found[0] == epoch:
            at_ms, value = message.timestamp()[1], message.value() or b""
            tail = msgspec.structs.replace(
                tail, offset=found[1], value=value, at_ms=at_ms, rival=None
            )
        elif DRAINED_HEADER not in dict(headers or ()):
            tail = msgspec.structs.replace(tail, rival=found[0])
    return tail


def _records(
    consumer: Consumer, options: KafkaOptions, place: KafkaPlace, start: int, end: int
) -> Iterator[Message]:
    consumer.assign([KafkaPlace(place.topic, place.partition, start)])
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for message in take(consumer, 0.5):
            error = message.error()
            if error is None:
                if (message.offset() or 0) >= end:
                    return
                deadline = time.monotonic() + TIMEOUT_S
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's name
                if (message.offset() or 0) >= end:
                    return
            elif not error.retriable():
                raise_kafka(error, f"{options.url}: read the end of {place.topic}")
    raise TransientError(f"{options.url}: {place.topic}: its end cannot be read now")
