"""`copy`: a lake from a folder into a bucket and back, the same bytes, wherever it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.lake_builder import Lake, chain_id, make_gap, run_of
from support.memory_store import FaultyStore
from tests.servers.s3 import S3Server
from tests.servers.s3.proxy import Fault, FaultProxy
from tests.support.buckets import bucket_options
from tickhouse.bronze.copying import Copier
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.s3 import S3Store
from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three chains of 150 objects in all, one with a gap."""
    lake = Lake(tmp_path / "lake")
    trades, quotes = chain_id(), chain_id(1, stream=Stream.QUOTES)
    lake.add(run_of(trades, objects=100, rows=3))
    lake.add([make_gap(trades, 300, 350), *run_of(trades, objects=29, rows=2, start=350)])
    lake.add(run_of(quotes, objects=20, rows=1))
    lake.open_chain(chain_id(7))
    return lake


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in (folder / "bronze").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def run_copy(server: S3Server, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickhouse", "copy", "--json", "--data", str(folder), *arguments],
        env={**os.environ, **server.credentials},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(params=["seaweedfs", "minio"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


def test_a_lake_goes_to_a_bucket_and_back_unchanged(
    lake: Lake,
    server: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    bucket = server.url(server.make_bucket(bucket_name), "moved")
    back = tmp_path / "back"

    there = run_copy(server, "--from", f"file:///{lake.folder}", "--to", bucket, folder=tmp_path)
    returned = run_copy(server, "--from", bucket, "--to", f"file:///{back}", folder=tmp_path)

    assert (there.returncode, returned.returncode) == (0, 0), there.stderr + returned.stderr
    report = json.loads(there.stdout)
    assert (report["chains"], report["objects"], report["skipped"]) == (3, 153, 0)
    assert json.loads(returned.stdout)["bytes"] == report["bytes"]
    assert files_of(back) == files_of(lake.folder)

    again = json.loads(
        run_copy(server, "--from", bucket, "--to", f"file:///{back}", folder=tmp_path).stdout
    )
    assert (again["objects"], again["skipped"]) == (0, 153)


def test_a_copy_that_was_killed_goes_on(
    lake: Lake,
    seaweedfs: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    bucket = seaweedfs.make_bucket(bucket_name)
    with FaultProxy(seaweedfs.endpoint) as proxy:
        url = f"s3://{bucket}/moved?endpoint={proxy.endpoint}&region=us-east-1"
        command = ["--from", f"file:///{lake.folder}", "--to", url, "--data", str(tmp_path)]
        copying = subprocess.Popen(
            [sys.executable, "-m", "tickhouse", "copy", *command],
            env={**os.environ, **seaweedfs.credentials},
            stdout=subprocess.DEVNULL,
        )
        wait_for_puts(proxy, 40)
        copying.send_signal(signal.SIGKILL)
        copying.wait(10)
        before = len(keys_of(seaweedfs, bucket))
        assert 20 < before < 154

        proxy.set_rates({Fault.RESET_AFTER_APPLY: 0.05, Fault.BUSY: 0.05}, seed=3)
        finished = run_copy(seaweedfs, *command[:4], folder=tmp_path)

    assert finished.returncode == 0, finished.stderr
    store = S3Store(bucket_options(seaweedfs, bucket, prefix="moved"))
    assert {key: store.get(key) for key in files_of(lake.folder)} == files_of(lake.folder)


def wait_for_puts(proxy: FaultProxy, count: int) -> None:
    deadline = time.monotonic() + 60
    while proxy.requests["PUT"] < count:
        assert time.monotonic() < deadline, "the copy does not get on"
        time.sleep(0.002)


def keys_of(server: S3Server, bucket: str) -> list[str]:
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def test_what_is_not_ours_is_told_and_left_alone(lake: Lake, tmp_path: Path) -> None:
    for name in ("notes.txt", "trades/elsewhere/file", f"../{chain_id().prefix[10:]}/by-hand"):
        path = lake.folder / "bronze/v1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("by hand")

    report = Copier(lake.store, LocalStore(tmp_path / "target")).run()

    assert report.foreign_count == len(report.foreign) >= 1
    assert not report.problems
    assert not any("by-hand" in key for key in files_of(tmp_path / "target"))


def test_a_damaged_object_stops_its_chain_only(lake: Lake, tmp_path: Path) -> None:
    key = chain_id().key(30)
    body = lake.store.get(key)
    lake.overwrite(key, body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    target = LocalStore(tmp_path / "target")

    report = Copier(lake.store, target).run()

    assert len(report.problems) == 1
    assert key in report.problems[0]
    assert "sha256" in report.problems[0]
    copied = files_of(tmp_path / "target")
    assert len([each for each in copied if each.startswith(chain_id().prefix)]) == 11
    assert len([each for each in copied if "quotes" in each]) == 21


def test_a_hole_is_named(lake: Lake, tmp_path: Path) -> None:
    lake.delete(chain_id().key(30))

    report = Copier(lake.store, LocalStore(tmp_path / "target")).run()

    assert report.problems[0].startswith(f"{chain_id().key(30)}: missing")


@pytest.mark.parametrize("start", [0, 30])
def test_another_object_at_a_key_is_an_error(lake: Lake, tmp_path: Path, start: int) -> None:
    other = Lake(tmp_path / "target")
    other.add(run_of(chain_id(), objects=1, rows=2, start=start))

    report = Copier(lake.store, other.store).run()

    key = chain_id().key(start)
    assert report.problems == [f"{key}: the target holds something else under this key"]
    assert other.store.get(key) == run_of(chain_id(), objects=1, rows=2, start=start)[0].body


def test_a_put_whose_answer_was_lost_is_found_again(lake: Lake) -> None:
    failed: set[str] = set()

    def lose_each_first_answer(operation: str, key: str) -> None:
        if operation == "put.after" and key not in failed:
            failed.add(key)
            raise TransientError(f"{key}: no answer")

    target = FaultyStore(lose_each_first_answer)

    report = Copier(lake.store, target).run()

    assert not report.problems
    assert target.objects == files_of(lake.folder)


def test_the_same_lake_twice_is_refused(
    lake: Lake,
    seaweedfs: S3Server,
    tmp_path: Path,
) -> None:
    url = f"file:///{lake.folder}"

    refused = run_copy(seaweedfs, "--from", url, "--to", url, folder=tmp_path)
    missing = run_copy(
        seaweedfs, "--from", f"file:///{tmp_path}/none", "--to", url, folder=tmp_path
    )

    assert (refused.returncode, missing.returncode) == (2, 2)
    assert "the same lake" in refused.stderr
    assert "no lake there" in missing.stderr
