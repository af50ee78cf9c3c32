"""`import` of a bucket of 12,000 small objects: killed in the middle, gone on, each there once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import obstore
import pytest

from proofs.stages import Stages
from support.tutorial_lake import tutorial_quote
from tests.servers.s3 import S3Server
from tests.servers.s3.proxy import Fault, FaultProxy
from tests.support.buckets import bucket_options
from tickhouse.bronze.foreign_s3 import ForeignBucket
from tickhouse.bronze.s3_client import make_client
from tickhouse.errors import RefusedError
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.source.importing.feed import IMPORT_SHARD
from tickhouse.stream.sqlite import SqliteReader

SYMBOLS = ("AAPL", "AMZN", "BINANCE:BTCUSDT", "GOOGL", "MSFT", "TSLA")
OBJECTS = 12_000
QUOTES = TopicPartition(Stream.QUOTES, IMPORT_SHARD)


def fill(server: S3Server, bucket: str, objects: dict[str, bytes]) -> None:
    """Put objects, many at once."""
    client = make_client(bucket_options(server, bucket), retries=3)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda each: obstore.put(client, *each), objects.items()))


def quotes_of(count: int) -> dict[str, bytes]:
    """As the tutorials lay them out: a folder a symbol, a quote every six seconds."""
    return {
        f"{symbol}/{at}.json": tutorial_quote(symbol, at, number)
        for number in range(count // len(SYMBOLS))
        for at in [1_700_000_000 + 6 * number]
        for symbol in SYMBOLS
    }


def command(url: str, data: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tickhouse", "import", url, "--data", str(data), *flags]


def run_import(server: S3Server, url: str, data: Path) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        command(url, data, "--json"),
        env={**os.environ, **server.credentials},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def frames_in(data: Path) -> int:
    try:
        with closing(SqliteReader(data / "log/log.db")) as log:
            return log.bounds(QUOTES).end
    except Exception:  # noqa: BLE001 - it is being made
        return 0


def payloads_in(data: Path) -> Iterator[tuple[str | None, bytes]]:
    with closing(SqliteReader(data / "log/log.db")) as log:
        position = 0
        while (batch := log.read(QUOTES, position)) is not None:
            for envelope in map(decode_envelope, batch.values):
                assert envelope is not None
                payload = bytes(envelope.raw) or (envelope.text or "").encode()
                yield envelope.sym, payload
            position = batch.next


@pytest.mark.long
@pytest.mark.timeout(600)
def test_12000_small_objects_are_each_in_silver_once_in_spite_of_a_kill(
    seaweedfs: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    bucket, data = seaweedfs.make_bucket(bucket_name), tmp_path / "data"
    good = quotes_of(OBJECTS)
    odd = {
        "TSLA/9-no-json.json": b"<html>429</html>",
        "TSLA/9-limit.json": b'{"error":"API limit reached."}',
    }
    bad = {"AAPL/9-empty.json": b"", "MSFT/9-broken.json.gz": b"\x1f\x8b\x08\x00nothing"}
    fill(seaweedfs, bucket, {**good, **odd, **bad})
    url = seaweedfs.url(bucket)

    importing = subprocess.Popen(
        command(url, data),
        env={**os.environ, **seaweedfs.credentials},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_frames(data, 3_000)
    importing.send_signal(signal.SIGKILL)
    importing.wait(10)
    kept = frames_in(data)
    assert 3_000 <= kept < OBJECTS
    fill(seaweedfs, bucket, {"AAPL/0.json": tutorial_quote("AAPL", 1_600_000_000, 1)})

    code, report, said = run_import(seaweedfs, url, data)

    assert code == 1, said
    assert (report["there"], report["objects"]) == (kept, OBJECTS + 3 - kept)
    assert report["in_log"]["problems"] == []  # type: ignore[index]
    assert report["in_log"]["objects"] == OBJECTS + 3  # type: ignore[index]
    reasons = [str(reason) for reason in report["reasons"]]  # type: ignore[attr-defined]
    assert [reason.partition(":")[0] for reason in reasons] == sorted(bad)
    assert report["unlike"] == 2
    there = Counter(payload for _, payload in payloads_in(data))
    expected = [*good.values(), *odd.values(), tutorial_quote("AAPL", 1_600_000_000, 1)]
    assert there == Counter(expected)

    check_road(data)


def wait_for_frames(data: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while frames_in(data) < count:
        assert time.monotonic() < deadline, "the import does not get on"
        time.sleep(0.05)


def check_road(data: Path) -> None:
    """What was imported goes the whole road as what was recorded does."""
    stages = Stages(data)
    stages.lander.drain(everything=True)
    stages.refine()
    quotes = stages.warehouse.query(
        "select count(*), count(distinct (symbol, quoted_at)), count(distinct symbol),"
        " count(*) filter (where price <> change + previous_close), bool_or(is_stale)"
        " from silver.quotes"
    )
    rejects = stages.warehouse.query(
        "select reason, count(*) from silver.rejected_quotes group by reason order by reason"
    )
    gaps = stages.warehouse.query("select * from silver.gaps")
    report = stages.audit()
    stages.close()
    assert quotes == [(OBJECTS + 1, OBJECTS + 1, len(SYMBOLS), 0, False)]
    assert rejects == [("error_answer", 1), ("not_json", 1)]
    assert gaps == []
    assert report.ok, report.layers


@pytest.fixture(params=["moto", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


def test_keys_of_any_form_are_listed_in_order_and_read(
    server: S3Server,
    bucket_name: str,
) -> None:
    bucket = server.make_bucket(bucket_name)
    keys = ["A/1.json", "B C/1.json", "BINANCE:BTCUSDT/1.json", "p%20q/ünï+1.json", "y=1/t~^.json"]
    fill(server, bucket, {f"raw/{key}": key.encode() for key in keys})
    fill(server, bucket, {"rawer/1.json": b"no", "other": b"no"})
    server.client().put_object(Bucket=bucket, Key="raw/A/", Body=b"")
    lake = ForeignBucket(bucket_options(server, bucket, prefix="raw"))

    found = list(lake.objects())

    assert [each.key.removeprefix(lake.prefix) for each in found] == keys
    assert [each.size for each in found] == [len(key.encode()) for key in keys]
    assert all(abs(each.modified_ns / 1e9 - time.time()) < 600 for each in found)
    bodies = list(lake.get_many([f"raw/{key}" for key in [*keys, "gone"]]))
    assert bodies == [*(key.encode() for key in keys), None]


def test_a_listing_that_breaks_off_goes_on(
    seaweedfs: S3Server,
    bucket_name: str,
) -> None:
    bucket = seaweedfs.make_bucket(bucket_name)
    keys = [f"{number:05d}.json" for number in range(2_100)]
    fill(seaweedfs, bucket, dict.fromkeys(keys, b"{}"))
    with FaultProxy(seaweedfs.endpoint) as proxy:
        lake = ForeignBucket(bucket_options(seaweedfs, bucket, endpoint=proxy.endpoint))
        proxy.set_rates({Fault.BUSY: 0.5, Fault.RESET: 0.2}, seed=5)

        found = [each.key for each in lake.objects()]

    assert found == keys


def test_a_bucket_that_is_not_there_says_so(seaweedfs: S3Server) -> None:
    with pytest.raises(RefusedError, match="no such bucket"):
        list(ForeignBucket(bucket_options(seaweedfs, "not-there")).objects())
