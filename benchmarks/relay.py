"""From receipt to readable in Kafka: recorder, spool and relay here, a reader in another process.

In one run: ours (durable in the spool, then a transaction), and for comparison the same frames
given straight to an idempotent producer, which keeps nothing on this machine. The first seconds,
in which both begin, do not count. `python -m benchmarks.relay`
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.measuring import FramesFeed, quiet, show, simulated_frames
from tests.servers.kafka import start_kafka
from tests.servers.kafka.broker import FAST
from tickhouse.model.frame import decode_envelope, encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_client import client_config
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import Position
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.relay import Relay
from tickhouse.stream.sqlite import SqliteLog, SqliteReader
from tickhouse.stream.topics import Topics, topic_name

TRADES = TopicPartition(Stream.TRADES, 0)
TICK_S = 0.01
WARM_S = 2.0
BEGIN_S = 8.0


def read(bootstrap: str, prefix: str, count: int) -> None:
    """The reader's process: milliseconds from receipt to here, one frame a number."""
    reader = KafkaReader(KafkaOptions(bootstrap=bootstrap, prefix=prefix))
    subscription = reader.subscribe(lambda *_: Position(0))
    taken: list[float] = []
    while len(taken) < count:
        for batch in subscription.poll(1.0):
            now = time.time_ns()
            if batch.partition == TRADES:
                envelopes = map(decode_envelope, batch.values)
                taken += [(now - each.rx) / 1e6 for each in envelopes if each is not None]
    print(" ".join(f"{each:.2f}" for each in taken), flush=True)


def measure(bootstrap: str, prefix: str, count: int, rate: int, send: Any) -> dict[str, Any]:  # noqa: ANN401
    """Latencies of `count` frames that `send` brings into the log."""
    options = KafkaOptions(bootstrap=bootstrap, prefix=prefix)
    Topics(options).ensure(partitions=1, replication=1, retention_ms=-1)
    command = [sys.executable, "-m", "benchmarks.relay", "--read", bootstrap, prefix, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(WARM_S)
        started = time.process_time()
        send(options, count, rate)
        busy = time.process_time() - started
        out, _ = reader.communicate(timeout=120)
    taken = sorted(map(float, out.split()[int(rate * BEGIN_S) :]))
    skipped = taken[: int(len(taken) * 0.999)]
    return {
        "frames": len(taken),
        "p50_ms": taken[len(taken) // 2],
        "p99_ms": taken[int(len(taken) * 0.99)],
        "p999_ms": skipped[-1],
        "max_ms": taken[-1],
        "cpu_share": round(busy / (count / rate), 3),
    }


def by_relay(options: KafkaOptions, count: int, rate: int) -> None:
    """The product's own way."""
    with tempfile.TemporaryDirectory() as folder:
        spool = SqliteLog(Path(folder) / "log.db")
        relay = Relay(lambda: SqliteReader(spool.path), spool, options, tell_gap=lambda *_gap: None)
        relay.start()
        recorder = Recorder(FramesFeed(simulated_frames(2_000), count, rate), spool)
        recorder.committed = relay.wake
        asyncio.run(recorder.run(asyncio.Event()))
        relay.wait_until_level(threading.Event())
        relay.stop()
        spool.close()


def by_producer(options: KafkaOptions, count: int, rate: int) -> None:
    """Straight to Kafka: what a process that dies holds is lost."""
    producer = Producer(
        {
            **client_config(options),
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
        }
    )
    payloads, topic = simulated_frames(2_000), topic_name(options, Stream.TRADES)
    each, sent, due = round(rate * TICK_S), 0, time.monotonic()
    while sent < count:
        values = encode_frames(
            [payloads[(sent + n) % len(payloads)] for n in range(each)],
            source="sim:finnhub.ws",
            session="bench",
            first_seq=sent,
            received_at_ns=time.time_ns(),
        )
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.poll(0)
        sent += each
        due += TICK_S
        time.sleep(max(0.0, due - time.monotonic()))
    producer.flush(30)


def main() -> None:
    """Both ways, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", nargs=3, help="(the reader's process)")
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    quiet()
    if arguments.read:
        bootstrap, prefix, count = arguments.read
        read(bootstrap, prefix, int(count))
        return
    count = arguments.rate * arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        server = start_kafka(Path(folder), jvm=FAST)
        try:
            for name, send in (("producer", by_producer), ("relay", by_relay)):
                found = measure(server.bootstrap, name, count, arguments.rate, send)
                show(f"relay {name}", {"rate": arguments.rate, **found})
        finally:
            server.stop()


if __name__ == "__main__":
    main()
