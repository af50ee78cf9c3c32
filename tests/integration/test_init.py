"""`init` and `doctor` on real servers: what is made, what is refused, and that it is said."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.servers.kafka import KafkaServer
from tests.servers.s3 import S3Server
from tests.servers.s3.proxy import FaultProxy
from tests.servers.snowflake import SnowflakeServer
from tests.support.buckets import bucket_options
from tickhouse.bronze.s3 import S3Store
from tickhouse.bronze.s3_bucket import Bucket
from tickhouse.bronze.s3_options import S3Options
from tickhouse.errors import RefusedError, TransientError

KEY = "bronze/v1/trades/t~e/p=00000/00000000000000000000.jsonl.gz"


@pytest.fixture(params=["seaweedfs", "minio"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


class Answer(msgspec.Struct):
    code: int
    said: dict[str, Any]
    complaint: str

    def check(self, name: str) -> dict[str, Any]:
        return next(check for check in self.said["checks"] if check["name"] == name)


def run(
    verb: str, *arguments: str, folder: Path, server: S3Server | SnowflakeServer | None = None
) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "tickhouse", verb, "--json", "--data", str(folder), *arguments],
        env={**os.environ, **(server.credentials if server else {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


def test_the_bucket_is_made_once_and_policies_are_written(
    server: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    lake = server.url(bucket_name, "team/lake")
    arguments = ["--lake", lake, "--policies", str(tmp_path / "policies")]

    first = run("init", *arguments, folder=tmp_path, server=server)
    second = run("init", *arguments, folder=tmp_path, server=server)

    assert (first.code, second.code) == (0, 0), first.complaint + second.complaint
    assert first.said["lake"] == [f"{lake}: created the bucket"]
    assert second.said["lake"] == [f"{lake}: the bucket is there"]
    assert "nothing to do" in first.said["log"][0]
    names = ["bucket-policy", "lander-policy", "lifecycle", "loader-policy"]
    assert sorted(path.stem for path in (tmp_path / "policies").iterdir()) == names
    for name in names:
        document = json.loads((tmp_path / "policies" / f"{name}.json").read_text())
        assert document == first.said["documents"][name]
    assert "Delete" not in json.dumps(first.said["documents"]["lander-policy"])
    assert "Put" not in json.dumps(first.said["documents"]["loader-policy"])


def test_the_default_backends_need_nothing(tmp_path: Path) -> None:
    answer = run("init", folder=tmp_path)

    assert answer.code == 0
    assert all("nothing to do" in line for line in answer.said["log"] + answer.said["lake"])
    assert answer.said["documents"] == {}
    assert not (tmp_path / "lake").exists()


def test_a_bucket_in_another_region_is_made_there(
    minio: S3Server,
    bucket_name: str,
) -> None:
    options = msgspec.structs.replace(bucket_options(minio, bucket_name), region="eu-central-1")
    bucket = Bucket(options)

    assert not bucket.is_there()
    bucket.create()

    assert bucket.is_there()


def test_a_bucket_that_cannot_be_made_is_told(
    minio: S3Server,
    bucket_name: str,
) -> None:
    wrong = bucket_options(minio, bucket_name, access_key_id="nobody")
    with pytest.raises(RefusedError):
        Bucket(wrong).create()
    with pytest.raises(RefusedError, match="no name for a bucket"):
        Bucket(bucket_options(minio, "NO_BUCKET")).create()
    with FaultProxy(minio.endpoint) as proxy:
        proxy.refuse()
        with pytest.raises(TransientError, match="no answer"):
            Bucket(bucket_options(minio, bucket_name, endpoint=proxy.endpoint)).create()


def test_the_printed_policies_let_a_lander_land_and_a_loader_read(
    server: S3Server,
    bucket_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = bucket_options(server, bucket_name, prefix="team/lake")
    bucket = Bucket(options)
    bucket.create()
    as_whoever = msgspec.structs.replace(options, access_key_id="", secret_access_key="")
    documents = bucket.documents()

    use(server, documents["lander-policy"], monkeypatch)
    lander = S3Store(as_whoever)
    assert lander.is_conditional()
    lander.put_if_absent(KEY, b"body", {"sha256": "00"})
    assert lander.get(KEY) == b"body"
    assert lander.last(KEY.rpartition("/")[0]) == KEY
    assert lander.folders("bronze/v1") == ["trades"]
    with pytest.raises(RefusedError):
        S3Store(msgspec.structs.replace(as_whoever, prefix="other")).folders("bronze")

    use(server, documents["loader-policy"], monkeypatch)
    loader = S3Store(as_whoever)
    assert loader.get(KEY) == b"body"
    assert loader.last(KEY.rpartition("/")[0]) == KEY
    with pytest.raises(RefusedError, match="lacks the permission"):
        loader.put_if_absent(f"{KEY}2", b"", {})


def use(server: S3Server, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.identity(policy["Statement"]).items():
        monkeypatch.setenv(name, value)


def test_topics_are_made_once(
    kafka: KafkaServer,
    topics: str,
    tmp_path: Path,
) -> None:
    log = f"kafka://{kafka.bootstrap}/{topics}"
    arguments = ["--log", log, "--partitions", "2", "--retention-hours", "5"]

    first = run("init", *arguments, folder=tmp_path)
    second = run("init", *arguments, folder=tmp_path)

    assert (first.code, second.code) == (0, 0), first.complaint + second.complaint
    assert len(first.said["log"]) == 4
    assert all("created" in line for line in first.said["log"])
    assert second.said["log"] == [f"{log}: the topics are there"]


def test_the_doctor_asks_kafka_spool_and_bucket(
    kafka: KafkaServer,
    topics: str,
    seaweedfs: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    log = ["--log", f"kafka://{kafka.bootstrap}/{topics}"]
    lake = ["--lake", seaweedfs.url(bucket_name, "lake")]

    before = run("doctor", *log, *lake, folder=tmp_path, server=seaweedfs)
    made = run("init", *log, *lake, folder=tmp_path, server=seaweedfs)
    after = run("doctor", *log, *lake, folder=tmp_path, server=seaweedfs)

    assert made.code == 0, made.complaint
    assert before.code == 1
    assert "make them: tickhouse init" in before.check("log")["found"]
    assert after.code == 0, after.said
    assert "4 topics of 8 partitions, kept for 72 h" in after.check("log")["found"]
    assert "while Kafka is away" in after.check("spool")["found"]
    assert "refuses to overwrite" in after.check("lake")["found"]


def test_more_than_one_lander_is_refused_where_conditions_are_ignored(
    moto: S3Server,
    bucket_name: str,
    tmp_path: Path,
) -> None:
    moto.make_bucket(bucket_name)
    with FaultProxy(moto.endpoint) as proxy:
        proxy.strips_conditions = True
        lake = ["--lake", f"s3://{bucket_name}/lake?endpoint={proxy.endpoint}"]
        alone = [*lake, "--land-single-writer", "true"]

        doubting = run("doctor", *lake, folder=tmp_path, server=moto)
        refused = run("land", "--once", *lake, folder=tmp_path, server=moto)
        trusting = run("doctor", *alone, folder=tmp_path, server=moto)
        landed = run("land", "--once", *alone, folder=tmp_path, server=moto)

    assert doubting.code == 1
    assert "land_single_writer" in doubting.check("lake")["found"]
    assert refused.code == 2
    assert "land_single_writer" in refused.complaint
    assert "takes one lander only" in trusting.check("lake")["found"]
    assert landed.code == 0, landed.complaint


def test_the_printed_bucket_policy_is_taken(
    minio: S3Server,
    bucket_name: str,
) -> None:
    bucket = Bucket(bucket_options(minio, bucket_name))
    bucket.create()
    policy = json.dumps(bucket.documents()["bucket-policy"])

    minio.client().put_bucket_policy(Bucket=bucket_name, Policy=policy)

    held = json.loads(minio.client().get_bucket_policy(Bucket=bucket_name)["Policy"])
    assert held["Statement"][0]["Effect"] == "Deny"


def test_aws_is_told_to_require_conditional_writes() -> None:
    documents = Bucket(S3Options(bucket="ticks", prefix="lake")).documents()

    (putting, *_) = documents["lander-policy"]["Statement"]
    assert putting["Condition"] == {"Null": {"s3:if-none-match": "false"}}
    (overwriting, deleting) = documents["bucket-policy"]["Statement"]
    assert overwriting["Effect"] == deleting["Effect"] == "Deny"
    assert overwriting["Resource"] == "arn:aws:s3:::ticks/lake/*"
    assert overwriting["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert documents["lifecycle"]["Rules"][0]["Filter"] == {"Prefix": "lake/"}


def test_tables_are_made_in_snowflake_and_the_rest_is_printed(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
) -> None:
    warehouse = ["--warehouse", snowflake.url(snowflake_database, role="etl")]
    policies = ["--policies", str(tmp_path / "policies")]

    first = run("init", *warehouse, *policies, folder=tmp_path, server=snowflake)
    again = run("init", *warehouse, folder=tmp_path, server=snowflake)

    ready = run("doctor", *warehouse, folder=tmp_path, server=snowflake).said["checks"]

    assert first.code == again.code == 0, first.complaint
    assert "bronze and its stage are there" in first.said["warehouse"][0]
    assert "meta is there" in first.said["warehouse"][1]
    (warehouse_check,) = [check for check in ready if check["name"] == "warehouse"]
    assert warehouse_check["ok"]
    assert "may read, load" in warehouse_check["found"]
    assert first.said["warehouse"] == again.said["warehouse"]
    names = sorted(path.name for path in (tmp_path / "policies").iterdir())
    assert names == sorted(first.said["documents"])
    assert names[0] == "01_roles.sql"
    roles = (tmp_path / "policies" / "01_roles.sql").read_text()
    assert "grant role tickhouse_loader to role etl;" in roles


@pytest.mark.warehouse
def test_what_a_role_may_not_make_is_said_and_the_scripts_are_printed_all_the_same(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
) -> None:
    text = "Insufficient privileges to operate on schema 'BRONZE'"
    snowflake.fault(match="create table .*bronze.trades", act="error", code="003001", message=text)

    warehouse = ["--warehouse", snowflake.url(snowflake_database)]
    found = run("init", *warehouse, folder=tmp_path, server=snowflake)

    assert found.code == 1
    assert "lacks a privilege" in found.said["warehouse"][0]
    assert "02_warehouse.sql" in found.said["documents"]


@pytest.mark.warehouse
def test_the_doctor_accepts_an_account_fact_by_fact(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
) -> None:
    warehouse = ["--warehouse", snowflake.url(snowflake_database)]

    found = run("doctor", "--accept", *warehouse, folder=tmp_path, server=snowflake)
    elsewhere = run("doctor", "--accept", folder=tmp_path)

    assert found.code == 1
    assert [check["name"] for check in found.said["checks"] if not check["ok"]] == [
        "who and where we are"
    ]
    assert "slept" in found.said["checks"][-1]["name"]
    assert elsewhere.code == 2
    assert "--warehouse snowflake://" in elsewhere.complaint
