"""`record` and `drain` with a log on Kafka, as processes; a gap of the relay reaches silver."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from support.kafka_topics import Writer, make_topics
from support.memory_log import frames
from support.relays import TRADES, held, until, values_of
from tests.servers.kafka import KafkaServer, start_kafka
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.runtime import relaying
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.relay import Relay
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

SOURCE = "sim://sp500?symbols=5&rate=max&frames=200"


@pytest.fixture
def options(kafka: KafkaServer, topics: str) -> KafkaOptions:
    return KafkaOptions(bootstrap=kafka.bootstrap, prefix=topics)


def run(
    data: Path, *arguments: str, log: str = "", source: str = SOURCE
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
    environment |= {"TICKHOUSE_DATA": str(data), "TICKHOUSE_SOURCE": source, "TICKHOUSE_LOG": log}
    return subprocess.run(
        [sys.executable, "-m", "tickhouse", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def status_of(data: Path) -> dict[str, Any]:
    return json.loads((data / "run" / "record.json").read_text())


def spooled(data: Path, place: TopicPartition = TRADES) -> list[bytes]:
    reader = SqliteReader(data / "log" / "log.db")
    try:
        return values_of(reader, place)
    finally:
        reader.close()


def test_record_once_ends_when_everything_is_relayed_sessions_too(
    tmp_path: Path, options: KafkaOptions
) -> None:
    make_topics(options)
    done = run(tmp_path, "record", "--once", log=options.url)
    sessions = TopicPartition(Stream.SESSIONS, 0)

    assert done.returncode == 0, done.stderr
    assert len(held(options)) == 200
    assert held(options) == spooled(tmp_path)
    assert held(options, sessions) == spooled(tmp_path, sessions)


def test_without_topics_frames_are_safe_in_the_spool_and_the_error_says_what_to_do(
    tmp_path: Path, options: KafkaOptions
) -> None:
    done = run(tmp_path, "record", "--once", log=options.url)

    assert done.returncode != 0
    assert "tickhouse init" in done.stderr
    assert len(spooled(tmp_path)) == 200


@pytest.mark.long
def test_with_a_wrong_address_recording_goes_on_and_status_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "record", "--once", "--for", "14s", log="kafka://127.0.0.1:1")
    shown = status_of(tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(spooled(tmp_path)) == 200
    assert "relay_stands" in done.stderr
    assert "kafka://127.0.0.1:1" in done.stderr
    assert shown["state"] == "stopped"


def test_drain_sends_the_backlog_says_how_much_and_nothing_twice(
    tmp_path: Path, options: KafkaOptions
) -> None:
    """The spool was recorded while no Kafka was configured at all."""
    make_topics(options)
    assert run(tmp_path, "record", "--once").returncode == 0
    first = run(tmp_path, "drain", "--json", log=options.url)
    again = run(tmp_path, "drain", "--json", log=options.url)

    assert first.returncode == again.returncode == 0, first.stderr
    sent = json.loads(first.stdout)
    assert sent["left"] == 0
    assert sent["sent"] > 200
    assert json.loads(again.stdout) == {"ok": True, "sent": 0, "left": 0}
    assert held(options) == spooled(tmp_path)


def test_drain_without_kafka_in_time_says_what_is_left(tmp_path: Path) -> None:
    assert run(tmp_path, "record", "--once").returncode == 0
    done = run(tmp_path, "drain", "--json", "--for", "1s", log="kafka://127.0.0.1:1")

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["left"] > 200


@pytest.mark.long
def test_a_gap_that_the_relay_records_is_in_silver(tmp_path: Path, options: KafkaOptions) -> None:
    """What was trimmed from the spool, and Kafka has lost: on the road of all gaps."""
    make_topics(options)
    assert run(tmp_path, "record", "--once", log=options.url).returncode == 0
    spool = SqliteLog(tmp_path / "log" / "log.db")
    tell = relaying._gap_teller(spool)
    tell(TRADES, 10, 20, 1_732_300_000_000)
    relay = Relay(lambda: SqliteReader(spool.path), spool, options, tell_gap=tell)
    relay.start()
    relay.wait_until_level(threading.Event())
    relay.stop()
    spool.close()
    for verb in ("land", "load", "build"):
        done = run(tmp_path, verb, "--once", log=options.url)
        assert done.returncode == 0, done.stderr
    query = "select cause from silver.gaps where cause like '%trimmed%'"
    asked = run(tmp_path, "query", query, "--json", log=options.url)
    audit = run(tmp_path, "audit", "--json", log=options.url)

    assert json.loads(asked.stdout)["rows"] == [
        ["spool offsets 10 to 19 were trimmed, and Kafka has lost them"]
    ]
    assert audit.returncode == 0, audit.stdout


def test_a_stopped_recorder_leaves_its_last_event_in_kafka(
    tmp_path: Path, options: KafkaOptions
) -> None:
    make_topics(options)
    endless = "sim://sp500?symbols=5&rate=50"
    done = run(tmp_path, "record", "--for", "4s", log=options.url, source=endless)
    sessions = TopicPartition(Stream.SESSIONS, 0)
    reader = KafkaReader(options)
    until(lambda: reader.bounds(sessions).end > 0)
    reader.close()

    assert done.returncode == 0, done.stderr
    assert held(options) == spooled(tmp_path)
    assert held(options, sessions) == spooled(tmp_path, sessions)
    assert b'"closed"' in held(options, sessions)[-1]


@pytest.mark.long
def test_land_waits_for_a_broker_that_is_away_at_its_start(
    tmp_path: Path,
    topics: str,
) -> None:
    with start_kafka(tmp_path / "kafka") as server:
        options = KafkaOptions(bootstrap=server.bootstrap, prefix=topics)
        make_topics(options)
        Writer(options).put(TRADES, frames(0, 5))
        # Killed before it wrote the marker, this broker leaves the transaction open for minutes.
        until(lambda: len(held(options)) == 5)
        server.kill()
        environment = {
            **os.environ,
            "TICKHOUSE_DATA": str(tmp_path),
            "TICKHOUSE_LOG": options.url,
        }
        command = [sys.executable, "-m", "tickhouse", "land"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as lander:
            try:
                status = tmp_path / "run" / "land.json"
                until(lambda: status.exists() and b"failed" in status.read_bytes())
                assert lander.poll() is None
                server.start()
                until(lambda: list(tmp_path.glob("lake/bronze/v1/trades/*/*/0000*.gz")))
            finally:
                lander.terminate()

        assert lander.returncode == 0
