"""The relay's failpoints on a real broker: whatever strikes, wire to Kafka is exactly once."""

import signal
import subprocess
from pathlib import Path

import pytest

from proofs.kills import TICKHOUSE, Road
from support.relays import values_of
from tests.servers.kafka import KafkaServer
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.sqlite import SqliteReader
from tickhouse.stream.topics import Topics

FRAMES = 200
SOURCE = f"sim://sp500?symbols=5&rate=max&frames={FRAMES}&date=2026-03-02"
POINTS = [
    "relay.tail.before",
    "relay.begin.after",
    "relay.produce.after",
    "relay.commit.before",
    "relay.commit.after",
]


class Recording:
    """One spool, its topics, and the verb that fills both."""

    def __init__(self, server: KafkaServer, prefix: str, data: Path) -> None:
        self.data = data
        self.options = KafkaOptions(bootstrap=server.bootstrap, prefix=prefix)
        Topics(self.options).ensure(partitions=1, replication=1, retention_ms=-1)

    def record(self, failpoints: str = "") -> subprocess.CompletedProcess[bytes]:
        environment = Road(self.data, SOURCE, log=self.options.url).environment
        environment["TICKHOUSE_FAILPOINTS"] = failpoints
        return subprocess.run(
            [*TICKHOUSE, "record", "--once"],
            env=environment,
            capture_output=True,
            check=False,
            timeout=90,
        )

    def check(self) -> None:
        """Kafka holds what the spool holds: every record once, in order."""
        done = self.record()
        assert done.returncode == 0, done.stderr
        spool = SqliteReader(next(self.data.rglob("*.db")))
        log = KafkaReader(self.options)
        places = [place for place in spool.partitions() if spool.bounds(place).end]
        kept = {place: values_of(spool, place) for place in places}
        carried = {place: values_of(log, place) for place in places}
        spool.close()
        log.close()

        assert sum(map(len, kept.values())) > FRAMES
        assert carried == kept


@pytest.fixture
def recording(kafka: KafkaServer, topics: str, tmp_path: Path) -> Recording:
    return Recording(kafka, topics, tmp_path / "data")


def test_kills_at_every_failpoint_of_the_relay_heal(recording: Recording) -> None:
    for point in POINTS:
        done = recording.record(f"{point}=kill:1")
        assert done.returncode == -signal.SIGKILL, f"{point} was never reached: {done.stderr!r}"

    recording.check()


@pytest.mark.long
def test_delays_at_every_failpoint_of_the_relay_do_no_harm(recording: Recording) -> None:
    delays = ";".join(f"{point}=sleep:0.2" for point in POINTS)

    assert recording.record(delays).returncode == 0
    recording.check()


@pytest.mark.long
def test_exceptions_at_every_failpoint_of_the_relay_heal(recording: Recording) -> None:
    done = recording.record(";".join(f"{point}=error:1" for point in POINTS))

    assert done.returncode == 0, done.stderr
    for point in POINTS:
        assert f"FailpointError: {point}".encode() in done.stderr, f"{point} was never reached"
    recording.check()
