"""What `record` says of its relay, the gap it records, and the limit of a spool."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.fake_time import FakeTime
from support.memory_log import TRADES, frames
from tickhouse.errors import BusyError, ConfigError, TickhouseError, TransientError
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import SESSION_SOURCE
from tickhouse.runtime import relaying
from tickhouse.settings import Settings
from tickhouse.stream.log import Append
from tickhouse.stream.shedding import CHECK_S, SpoolRoom
from tickhouse.stream.sqlite import SqliteLog


class FakeRelay:
    def __init__(self) -> None:
        self.found: dict[str, TickhouseError] = {}

    def failures(self) -> dict[str, TickhouseError]:
        return self.found

    def facts(self) -> dict[str, Any]:
        return {"relay_lag": 3}


class Told:
    def __init__(self) -> None:
        self.reports: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, state: str, facts: Mapping[str, Any]) -> None:
        self.reports.append((state, facts))


def test_a_relay_that_stands_is_a_failed_stage_that_says_why() -> None:
    relay, told = FakeRelay(), Told()
    report = relaying.RelayReport(told, relay)  # type: ignore[arg-type]
    report("running", {"frames": 1})
    relay.found = {"trades/0": TransientError("no broker"), "quotes/0": TransientError("none")}
    report("running", {"frames": 2})

    assert told.reports == [
        ("running", {"frames": 1, "relay_lag": 3}),
        (
            "failed",
            {"frames": 2, "relay_lag": 3, "error": "relay of trades/0: no broker (and 1 more)"},
        ),
    ]


def test_the_relays_facts_are_not_looked_up_at_each_commit() -> None:
    told = Told()
    report = relaying.RelayReport(told, FakeRelay())  # type: ignore[arg-type]
    for count in range(50):
        report("running", {"frames": count})

    assert len(told.reports) == 1


def test_what_is_neither_here_nor_there_becomes_a_gap_event_of_its_shard(tmp_path: Path) -> None:
    spool = SqliteLog(tmp_path / "log.db")
    tell = relaying._gap_teller(spool)
    tell(TRADES, 10, 20, 1_732_300_000_000)
    batch = spool.read(TopicPartition(Stream.SESSIONS, 0), 0)
    spool.close()

    assert batch is not None
    envelope = decode_envelope(batch.values[0])
    assert envelope is not None
    assert envelope.src == SESSION_SOURCE
    event = msgspec.json.decode(envelope.raw or b"")
    assert event["event"] == "gap"
    assert event["stream"] == "trades"
    assert event["cause"] == "spool offsets 10 to 19 were trimmed, and Kafka has lost them"
    assert event["time_from"] == 1_732_300_000_000_000_000
    assert event["time_to"] > event["time_from"]


def test_a_spool_that_kafka_does_not_empty_is_short_of_room_at_its_limit(tmp_path: Path) -> None:
    clock, spool = FakeTime(), SqliteLog(tmp_path / "log.db")
    room = SpoolRoom(
        lambda: 1 << 40,
        1 << 20,
        clock=clock,
        spool_bytes=spool.size_bytes,
        spool_bytes_max=1 << 20,
    )
    assert room.shortage() is None
    spool.append([Append(TRADES, frames(0, 20, size=100_000))])
    clock.elapsed_s += CHECK_S
    full = room.shortage()
    spool.append([Append(TRADES, frames(20, 1))])
    spool.trim(TRADES, 20)
    clock.elapsed_s += CHECK_S
    after = room.shortage()
    spool.close()

    assert full == "spool full: 1 MiB wait for Kafka (spool_bytes)"
    assert after is None


def test_drain_wants_a_log_on_kafka_and_a_spool_that_nobody_records_into(tmp_path: Path) -> None:
    arguments = argparse.Namespace(for_s=None)
    with pytest.raises(ConfigError, match="not on Kafka"):
        relaying.drain(Settings(data=tmp_path), arguments)
    settings = Settings(data=tmp_path, log="kafka://127.0.0.1:1")
    recorder = SqliteLog(tmp_path / "log" / "log.db")
    with pytest.raises(BusyError, match="another recorder"):
        relaying.drain(settings, arguments)
    recorder.close()
