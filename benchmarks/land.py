"""How fast records go from a real Kafka into a real S3, beside what else one would use.

In one run, on one machine, with the same broker and the same store: ours; one PUT a message; a peer
(`REDPANDA_CONNECT=/path/to/redpanda-connect`, configuration in `benchmarks/peers/`; skipped when
absent); and the limits: the bare client, bare gzip, bare PUT. Afterwards every line is read back.

`python -m benchmarks.land [--records 3000000] [--store seaweedfs] [--store minio]`
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from isal import isal_zlib

from benchmarks.landing import OBJECT_BYTES, PARTITIONS, Stopwatch
from benchmarks.measuring import quiet, show, simulated_frames
from tests.servers.cache import UnavailableError, cache_folder
from tests.servers.kafka import KafkaServer, start_kafka
from tests.servers.kafka.broker import FAST
from tests.servers.s3 import S3Server, start_minio, start_seaweedfs
from tests.servers.s3.servers import MINIO_VERSION
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.object import Manifest, unpack, verify
from tickhouse.bronze.s3 import S3Store
from tickhouse.bronze.s3_options import read_s3_url
from tickhouse.bronze.store import Store, get_many
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.topics import Topics, topic_name

RECORDS = 3_000_000
EACH = 5_000
BURST = 100
PREFIX = "bench"
BUCKET = "landing"
PEER_S = 120.0
PUTS = 100
_POSITION = re.compile(rb'^\{"t":"[^"]*","p":\d+,"o":(\d+),.*?"seq":(\d+),', re.MULTILINE)


Numbers = dict[str, Any]


# -- input ------------------------------------------------------------------------------------


def produce(options: KafkaOptions, records: int) -> Numbers:
    """Envelopes as a recorder makes them, with the header of a relay; `seq` is the offset."""
    Topics(options).ensure(partitions=PARTITIONS, replication=1, retention_ms=86_400_000)
    one, two = simulated_frames(20_000, batch=1), simulated_frames(20_000, batch=2)
    payloads = [two[at] if at % 2 else one[at] for at in range(len(one))]
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1 << 20,
            "queue.buffering.max.messages": 500_000,
        }
    )
    size = 0
    for first in range(0, records // PARTITIONS, BURST):
        for part in range(PARTITIONS):
            at = first % len(payloads)
            values = encode_frames(
                payloads[at : at + BURST],
                source="sim:finnhub.ws",
                session=f"0192f0a0-0000-7000-8000-{part:012}",
                first_seq=first,
                received_at_ns=time.time_ns(),
            )
            _send(producer, options, part, first, values)
            size += sum(map(len, values))
    producer.flush()
    return {"records": records, "bytes_a_record": round(size / records)}


def _send(
    producer: Producer, options: KafkaOptions, part: int, first: int, values: list[bytes]
) -> None:
    topic = topic_name(options, Stream.TRADES)
    for seq, value in enumerate(values, first):
        while True:
            try:
                producer.produce(
                    topic, value, b"%d" % part, part, headers=[("spool", b"s:%d" % seq)]
                )
                break
            except BufferError:
                producer.poll(0.05)
    producer.poll(0)


# -- what is measured -------------------------------------------------------------------------


def run(what: str, options: KafkaOptions, records: int, server: S3Server, lake: str) -> Numbers:
    """One of `benchmarks.landing` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.landing", what, "--kafka", options.bootstrap]
    command += ["--prefix", options.prefix, "--lake", lake, "--records", str(records)]
    done = subprocess.run(
        command, env=_environment(server), capture_output=True, text=True, check=False, timeout=170
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(server: S3Server) -> dict[str, str]:
    return {**os.environ, **server.credentials}


def run_peer(options: KafkaOptions, records: int, server: S3Server) -> Numbers | None:
    """The peer until it has put every record; None where there is none."""
    program = os.environ.get("REDPANDA_CONNECT")
    if not program:
        return None
    config = Path(__file__).parent / "peers" / "redpanda-connect.yaml"
    environment = {
        **_environment(server),
        "BENCH_KAFKA": options.bootstrap,
        "BENCH_TOPIC": topic_name(options, Stream.TRADES),
        "BENCH_BUCKET": BUCKET,
        "BENCH_ENDPOINT": server.endpoint,
    }
    began, used = time.monotonic(), _children_cpu_s()
    peer = subprocess.Popen(
        [program, "run", str(config)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while _peer_lines(server) < records:
            if time.monotonic() - began > PEER_S or peer.poll() is not None:
                return {"failed": f"not all records in {PEER_S:.0f} s"}
            time.sleep(0.5)
        seconds = time.monotonic() - began
    finally:
        peer.terminate()
        peer.wait()
    return {
        "records": records,
        "seconds": round(seconds, 3),
        "records_s": round(records / seconds),
        "cpu_s_per_million": round((_children_cpu_s() - used) / records * 1e6, 2),
    }


def _children_cpu_s() -> float:
    used = os.times()
    return used.children_user + used.children_system


def _peer_lines(server: S3Server) -> int:
    """Lines that the peer has put; its object names end in `-<lines>.json.gz`."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="peer/")
    names = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return sum(int(name.rpartition("-")[2].partition(".")[0]) for name in names)


def bare_gzip(store: Store, records: int) -> Numbers:
    """The library's igzip level 1 over the lines of one of our objects, one core."""
    manifest, text = _first_object(store)
    watch, done = Stopwatch(), 0
    while done < records:
        isal_zlib.compress(text, level=1)
        done += manifest.n
    return watch.read(done)


def _first_object(store: Store) -> tuple[Manifest, bytes]:
    key, manifest = next(Chain(store, find_chains(store)[-1]).walk())
    return manifest, unpack(store.get(key), key)


def bare_put(server: S3Server, object_bytes: int, records_each: int) -> Numbers:
    """Objects as large as ours, from eight threads."""
    store, body = S3Store(read_s3_url(server.url(BUCKET, "puts"))), os.urandom(object_bytes)
    watch = Stopwatch()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: store.put_if_absent(f"{at:06}", body, {}), range(PUTS)))
    return watch.read(PUTS * records_each)


class Used:
    """CPU seconds of other processes, from /proc."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = self._now()

    def _now(self) -> float:
        ticks = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def per_million(self, records: int) -> float:
        """Since it was made."""
        return round((self._now() - self._before) / records * 1e6, 2)


# -- afterwards -------------------------------------------------------------------------------


def verify_lake(store: Store, records: int) -> dict[str, int]:
    """Read every line back: each offset once, in order, with the number it was sent with."""
    found = wrong = compressed = 0
    for chain_id in find_chains(store):
        walked = list(Chain(store, chain_id).walk())
        expected = 0
        for (key, _), body in zip(walked, get_many(store, [key for key, _ in walked]), strict=True):
            verify(body, key, chain_id)
            compressed += len(body)
            places = _POSITION.findall(unpack(body, key))
            wanted = range(expected, expected + len(places))
            wrong += sum(
                int(offset) != place or int(seq) != place
                for place, (offset, seq) in zip(wanted, places, strict=True)
            )
            expected += len(places)
        found += expected
    missing = abs(records - found)
    return {"lines": found, "missing_or_doubled": missing, "wrong": wrong, "bytes": compressed}


def compare(kafka: KafkaServer, server: S3Server, options: KafkaOptions, records: int) -> Numbers:
    """Everything on one store."""
    server.make_bucket(BUCKET)
    os.environ.update(server.credentials)
    lake, used = server.url(BUCKET, "ours"), Used(kafka.pid, server.pid)
    ours = run("ours", options, records, server, lake)
    ours["broker_and_store_cpu_s_per_million"] = used.per_million(records)
    checked = verify_lake(S3Store(read_s3_url(lake)), records)
    each = run("put_each", options, min(EACH, records // PARTITIONS), server, server.url(BUCKET))
    peer = run_peer(options, records, server)
    limits = {
        "consume": run("consume", options, records, server, lake),
        "gzip": bare_gzip(S3Store(read_s3_url(lake)), min(records, 1_000_000)),
        "put": bare_put(
            server, checked["bytes"] // ours["objects"], max(1, records // ours["objects"])
        ),
    }
    limits_cpu_s = sum(limit["cpu_s_per_million"] for limit in limits.values())
    return {
        "ours": ours,
        "checked": checked,
        "put_each": each,
        "peer": peer or "skipped: REDPANDA_CONNECT names no binary",
        "limits": limits,
        "ratios": {
            "to_put_each": round(ours["records_s"] / each["records_s"], 1),
            "to_peer": round(ours["records_s"] / peer["records_s"], 2)
            if peer and "records_s" in peer
            else None,
            "to_bare_consume": round(ours["records_s"] / limits["consume"]["records_s"], 2),
            "cpu_to_sum_of_limits": round(ours["cpu_s_per_million"] / limits_cpu_s, 2),
        },
    }


def table(results: Numbers) -> str:
    """The ratios for a person."""
    lines = [f"{'':26}{'records/s':>12}{'CPU-s per 1e6':>15}{'ours is':>10}"]
    for store, result in results.items():
        ours, rows = (
            result["ours"],
            {"ours": result["ours"], "one PUT a message": result["put_each"]},
        )
        if isinstance(result["peer"], dict) and "records_s" in result["peer"]:
            rows["redpanda connect"] = result["peer"]
        rows |= {f"bare {name}": limit for name, limit in result["limits"].items()}
        for name, row in rows.items():
            ratio = ours["records_s"] / row["records_s"]
            lines.append(
                f"{store + ': ' + name:26}{row['records_s']:>12,}"
                f"{row['cpu_s_per_million']:>15}{ratio:>9.2f}x"
            )
        if not isinstance(result["peer"], dict):
            lines.append(f"{store}: redpanda connect {result['peer']}")
    return "\n".join(lines)


def main() -> None:
    """Start the servers, fill the topic, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--store", action="append", choices=["seaweedfs", "minio"])
    arguments = parser.parse_args()
    quiet()
    records = max(1, arguments.records // (PARTITIONS * BURST)) * PARTITIONS * BURST
    stores = arguments.store or ["seaweedfs"] + ["minio"] * _has_minio()
    results: Numbers = {}
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as name:
        folder = Path(name)
        with start_kafka(folder / "kafka", jvm=FAST) as kafka:
            options = KafkaOptions(bootstrap=kafka.bootstrap, prefix=PREFIX)
            sent = produce(options, records)
            for store in stores:
                start = start_minio if store == "minio" else start_seaweedfs
                with start(folder / store) as server:
                    results[store] = compare(kafka, server, options, records)
    print(table(results), file=sys.stderr)
    show("land", {"object_bytes": OBJECT_BYTES, **sent, "stores": results})


def _has_minio() -> bool:
    return (cache_folder() / f"minio-{MINIO_VERSION}").is_dir()


if __name__ == "__main__":
    try:
        main()
    except UnavailableError as missing:
        sys.exit(f"skipped: {missing}")
