"""What is particular to Snowflake: who we are there, staged files, and errors with what to do."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.lake_builder import Lake, chain_id, frames, make_object, run_of
from tests.servers.s3 import S3Server
from tests.servers.s3.servers import ACCESS_KEY, SECRET_KEY
from tests.servers.snowflake import SnowflakeServer
from tests.support.snowflake import open_snowflake, snowflake_options
from tickhouse.errors import ConfigError, RefusedError, TransientError
from tickhouse.model.positions import Stream
from tickhouse.warehouse.snowflake import SnowflakeWarehouse
from tickhouse.warehouse.snowflake_copy import batched
from tickhouse.warehouse.snowflake_session import Session

pytestmark = pytest.mark.warehouse

TRADES = chain_id(0)
EVENTS = chain_id(0, stream=Stream.SESSIONS)


@pytest.fixture
def warehouse(
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> Iterator[SnowflakeWarehouse]:
    opened = open_snowflake(snowflake, snowflake_database)
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def session(warehouse: SnowflakeWarehouse) -> Iterator[Session]:
    """What an administrator does by hand."""
    opened = Session(warehouse.options, lock_wait_s=5)
    yield opened
    opened.close()


def rows(warehouse: SnowflakeWarehouse) -> int:
    return warehouse.query("select count(*) from bronze.trades")[0][0]


def assert_nothing_is_half_loaded_and_loading_goes_on(warehouse: SnowflakeWarehouse) -> None:
    assert rows(warehouse) == 0
    assert warehouse.positions() == {}
    assert warehouse.load(run_of(TRADES, objects=2, rows=2)).load_id == 1
    assert rows(warehouse) == 4


REFUSALS = [
    pytest.param("000606", "No active warehouse selected", ConfigError, "AUTO_RESUME", id="none"),
    pytest.param("000999", "Warehouse 'WH' is suspended", ConfigError, "RESUME", id="suspended"),
    pytest.param("003001", "Insufficient privileges", ConfigError, "role LOADER lacks", id="right"),
    pytest.param("090073", "has exceeded its quota", RefusedError, "goes on by itself", id="quota"),
    pytest.param("000625", "lock timeout", TransientError, "lock", id="lock"),
    pytest.param("000603", "internal error", TransientError, "internal", id="internal"),
]


@pytest.mark.parametrize("statement", ["^update bronze.load_lock", "^insert into", "^copy"])
@pytest.mark.parametrize(("code", "message", "kind", "advice"), REFUSALS)
def test_a_refused_statement_is_told_by_its_class_with_what_to_do(
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    statement: str,
    code: str,
    message: str,
    kind: type[Exception],
    advice: str,
) -> None:
    snowflake.fault(match=statement, act="error", code=code, message=message)

    with pytest.raises(kind, match=advice):
        warehouse.load(run_of(TRADES, objects=2, rows=2))

    assert_nothing_is_half_loaded_and_loading_goes_on(warehouse)


@pytest.mark.parametrize("statement", ["^insert into bronze.load_ledger", "^copy", "^commit"])
@pytest.mark.parametrize("others", ["none", "the first", "as many"])
def test_a_load_whose_transaction_was_ended_while_it_slept_loads_nothing(
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    snowflake_database: str,
    statement: str,
    others: str,
) -> None:
    objects, elsewhere = (run_of(chain, objects=2, rows=2) for chain in (TRADES, chain_id(1)))
    failures: list[TransientError] = []
    other = open_snowflake(snowflake, snowflake_database)
    snowflake.counts()
    snowflake.fault(match=statement, act="asleep")

    def sleep() -> None:
        try:
            warehouse.load(objects)
        except TransientError as error:
            failures.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    while thread.is_alive() and not snowflake.counts().get("asleep"):
        time.sleep(0.05)
    loaded = {"none": [], "the first": objects[:1], "as many": elsewhere}[others]
    other.load(loaded)
    snowflake.clear_faults()
    thread.join()
    warehouse.load(objects)

    assert ["Snowflake ended this load" in str(failure) for failure in failures] == [True]
    files = len({item.key for item in [*objects, *loaded]})
    assert rows(other) == 2 * files
    ledger = other.query("select count(*), count(distinct file) from bronze.load_ledger")
    assert ledger == [(files, files)]
    other.close()


def test_a_stage_that_was_dropped_is_told_and_made_again(
    warehouse: SnowflakeWarehouse, session: Session
) -> None:
    session.run("drop stage bronze.load_stage")

    with pytest.raises(ConfigError, match="tickhouse init"):
        warehouse.load(run_of(TRADES, objects=2, rows=2))
    warehouse.prepare()

    assert_nothing_is_half_loaded_and_loading_goes_on(warehouse)


@pytest.mark.parametrize(
    "change",
    [
        "alter table bronze.trades drop column symbol",
        "alter table bronze.load_ledger drop column sha256",
        "drop table bronze.trades",
    ],
)
def test_a_table_that_was_changed_by_hand_refuses_the_whole_load(
    warehouse: SnowflakeWarehouse, session: Session, change: str
) -> None:
    session.run(change)

    with pytest.raises(ConfigError, match=r"by hand|tickhouse init"):
        warehouse.load([*run_of(TRADES, objects=2, rows=2), make_object(EVENTS, 0, frames(0, 1))])

    assert warehouse.positions() == {}
    assert warehouse.query("select count(*) from bronze.sessions") == [(0,)]


def test_a_column_that_was_added_by_hand_does_no_harm(
    warehouse: SnowflakeWarehouse, session: Session
) -> None:
    session.run("alter table bronze.trades add column note varchar")

    assert_nothing_is_half_loaded_and_loading_goes_on(warehouse)


def test_a_file_that_vanished_from_the_stage_is_tried_again(
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    message = "Remote file 'trades.json.gz' was not found"
    snowflake.fault(match="^copy", act="error", code="091016", message=message)

    with pytest.raises(TransientError, match="was not found"):
        warehouse.load(run_of(TRADES, objects=2, rows=2))

    assert_nothing_is_half_loaded_and_loading_goes_on(warehouse)


@pytest.fixture
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def write_key(path: Path, key: rsa.RSAPrivateKey) -> str:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)


def test_a_key_pair_lets_in_and_another_key_or_a_wrong_clock_is_told(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
    key: rsa.RSAPrivateKey,
) -> None:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    user = f"U{snowflake_database}"
    snowflake.know_key(user, public.decode())
    options = msgspec.structs.replace(
        snowflake_options(snowflake, snowflake_database),
        user=user,
        authenticator="key_pair",
        private_key_file=write_key(tmp_path / "right", key),
    )
    another = rsa.generate_private_key(65537, 2048)
    wrong = msgspec.structs.replace(options, private_key_file=write_key(tmp_path / "w", another))

    assert SnowflakeWarehouse(options).query("select 1") == [(1,)]
    with pytest.raises(ConfigError, match=r"another public key for .*clock, now 20"):
        SnowflakeWarehouse(wrong).query("select 1")


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        ("390100", "Incorrect username or password was specified.", "Check account"),
        ("390189", "Role 'X' specified in the connect string does not exist", "Grant the role"),
        ("390318", "OAuth access token expired.", "snowflake_token_file"),
    ],
)
def test_a_refused_login_is_told_with_what_to_do(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    code: str,
    message: str,
    advice: str,
) -> None:
    opened = open_snowflake(snowflake, snowflake_database)
    snowflake.fault(match="login", act="error", code=code, message=message)

    with pytest.raises(ConfigError, match=advice):
        opened.positions()


def test_a_query_goes_on_in_a_new_session_where_the_old_one_has_ended(
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    snowflake.fault(match="select 1 as one", act="logout")

    assert warehouse.query("select 1 as one") == [(1,)]


@pytest.mark.parametrize(
    "sql", ["with x as (select 1 as a) select a from x", "select ';' as a;", "(select 1 as a)"]
)
def test_a_select_of_any_form_is_answered(warehouse: SnowflakeWarehouse, sql: str) -> None:
    assert len(warehouse.query(sql)) == 1


def statements(snowflake: SnowflakeServer, warehouse: SnowflakeWarehouse, count: int) -> object:
    start = warehouse.positions().get(TRADES, 0)
    snowflake.counts()
    warehouse.load(run_of(TRADES, objects=count, rows=1, start=start))
    return snowflake.counts()


def test_statements_a_load_do_not_depend_on_how_many_objects_it_holds(
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    statements(snowflake, warehouse, 1)

    counts = [statements(snowflake, warehouse, count) for count in (1, 300)]

    assert counts[0] == counts[1]


def test_small_objects_share_a_file_and_streams_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [*run_of(TRADES, objects=5, rows=1), make_object(EVENTS, 0, frames(0, 1))]
    together = batched(objects)
    monkeypatch.setattr("tickhouse.warehouse.snowflake_copy.FILE_BYTES", 1)
    apart = batched(objects)

    assert [len(batch) for batch in together] == [5, 1]
    assert [len(batch) for batch in apart] == [1] * 6


def test_many_staged_files_load_as_one(
    warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickhouse.warehouse.snowflake_copy.FILE_BYTES", 1)

    result = warehouse.load(run_of(TRADES, objects=8, rows=2))

    assert (result.load_id, result.rows) == (1, 16)
    assert rows(warehouse) == 16


def test_an_external_stage_over_the_lake_needs_no_upload(
    warehouse: SnowflakeWarehouse,
    session: Session,
    snowflake: SnowflakeServer,
    moto: S3Server,
    bucket_name: str,
) -> None:
    moto.make_bucket(bucket_name)
    objects = run_of(TRADES, objects=3, rows=2)
    for item in objects:
        moto.client().put_object(Bucket=bucket_name, Key=f"a/lake/{item.key}", Body=item.body)
    snowflake.use_store(moto.endpoint, ACCESS_KEY, SECRET_KEY)
    session.run(f"create stage bronze.lake_stage url = 's3://{bucket_name}/a/lake/'")
    options = snowflake_options(snowflake, warehouse.options.database, stage="bronze.lake_stage")
    external = SnowflakeWarehouse(options)
    snowflake.counts()

    result = external.load(objects)

    assert (result.load_id, result.rows) == (1, 6)
    assert "put" not in snowflake.counts()
    files = warehouse.query("select distinct file from bronze.trades order by 1")
    assert files == [(item.key,) for item in objects]
    more = run_of(TRADES, objects=1, rows=2, start=6)
    with pytest.raises(RefusedError, match="lake_stage the stage of this lake"):
        external.load(more)
    external.close()


def test_the_verb_load_fills_snowflake(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path / "data" / "lake")
    lake.add(run_of(TRADES, objects=3, rows=2))
    environment = {
        **os.environ,
        "TICKHOUSE_DATA": str(tmp_path / "data"),
        "TICKHOUSE_WAREHOUSE": snowflake.url(snowflake_database),
        "TICKHOUSE_SNOWFLAKE_USER": "fake",
        "TICKHOUSE_SNOWFLAKE_AUTHENTICATOR": "password",
        "TICKHOUSE_SNOWFLAKE_PASSWORD": "snow",
        "TICKHOUSE_SNOWFLAKE_ALLOW_PASSWORD": "true",
    }
    command = [str(Path(sys.executable).with_name("tickhouse")), "load", "--once", "--json"]

    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["load_id"]) == (6, 1)
    opened = open_snowflake(snowflake, snowflake_database)
    assert rows(opened) == 6
    opened.close()
