"""What `benchmarks.land` runs as processes of their own, so that each one's CPU time is its own.

`python -m benchmarks.landing ours|consume|put_each …` prints one JSON line.
"""

import argparse
import gc
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as KafkaPlace

from benchmarks.measuring import quiet
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.publishing import ThreadsExecutor
from tickhouse.bronze.s3 import S3Store
from tickhouse.bronze.s3_options import read_s3_url
from tickhouse.model.positions import Stream
from tickhouse.stream.kafka import KafkaReader, reading_config
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.topics import topic_name

PARTITIONS = 4
OBJECT_BYTES = 6_600_000
PUTS_AT_ONCE = 16


class Stopwatch:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.monotonic(), _cpu_s()

    def read(self, records: int) -> dict[str, Any]:
        """Rate, and CPU seconds for a million records."""
        seconds, cpu = time.monotonic() - self._began, _cpu_s() - self._cpu
        return {
            "records": records,
            "seconds": round(seconds, 3),
            "records_s": round(records / seconds),
            "cpu_s_per_million": round(cpu / records * 1e6, 2),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(options: KafkaOptions, lake: str, records: int) -> dict[str, Any]:
    """The lander as `tickhouse land` runs it, from its first record to its last object."""
    log, executor = KafkaReader(options), ThreadsExecutor()
    lander = Lander(log, S3Store(read_s3_url(lake)), bytes_max=OBJECT_BYTES, executor=executor)
    while not lander.facts()["positions"]:
        lander.step(0.05)
    watch = Stopwatch()
    while lander.facts()["buffered_bytes"] == 0:
        lander.step(0.01)
    gc.freeze()
    while lander.facts()["records"] < records:
        lander.step(0.05)
    result = {**watch.read(records), "objects": lander.facts()["objects"]}
    lander.close()
    log.close()
    executor.close()
    return result


def consume(options: KafkaOptions, records: int) -> dict[str, Any]:
    """The client library alone: every message taken, nothing done with it."""
    consumer = Consumer(reading_config(options, "bench-consume"))
    topic = topic_name(options, Stream.TRADES)
    consumer.assign([KafkaPlace(topic, part, 0) for part in range(PARTITIONS)])
    watch, count = Stopwatch(), 0
    while count < records:
        found = consumer.consume(2_000, 0.5)
        count += sum(error is None for error in map(Message.error, found))
        _ = [*map(Message.value, found)]
    result = watch.read(count)
    consumer.close()
    return result


def put_each(options: KafkaOptions, lake: str, records: int) -> dict[str, Any]:
    """One object a message, several at once: what the first version of many a pipeline does."""
    consumer = Consumer(reading_config(options, "bench-put-each"))
    consumer.assign([KafkaPlace(topic_name(options, Stream.TRADES), 0, 0)])
    values: list[bytes] = []
    while len(values) < records:
        values += [m.value() or b"" for m in consumer.consume(2_000, 0.5) if m.error() is None]
    store, watch = S3Store(read_s3_url(lake)), Stopwatch()
    with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
        done = pool.map(
            lambda at: store.put_if_absent(f"each/{at:012}.json", values[at], {}), range(records)
        )
        count = sum(1 for _ in done)
    result = watch.read(count)
    consumer.close()
    return result


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["ours", "consume", "put_each"])
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--lake", default="")
    parser.add_argument("--records", type=int, required=True)
    arguments = parser.parse_args()
    quiet()
    options = KafkaOptions(
        bootstrap=arguments.kafka, prefix=arguments.prefix, group=f"bench-{time.time_ns()}"
    )
    if arguments.what == "ours":
        result = ours(options, arguments.lake, arguments.records)
    elif arguments.what == "consume":
        result = consume(options, arguments.records)
    else:
        result = put_each(options, arguments.lake, arguments.records)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
