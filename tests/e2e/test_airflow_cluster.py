"""Kafka → S3 → Snowflake (the fake) → dbt, by the minute DAG on a real scheduler, live."""

import json
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proofs.soak import gold
from proofs.warehouse import snowflake_settings
from support.airflow_runs import (
    PAUSED,
    Bench,
    ended,
    has_succeeded_since,
    log_of,
    picture,
    runs,
    switched_on,
    told,
    trigger,
    wait_until,
)
from support.snowflake import open_snowflake
from support.tutorial_lake import tutorial_quote
from tests.servers.airflow import AirflowServer, prepare_airflow
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable
from tests.servers.kafka import KafkaServer
from tests.servers.s3 import S3Server
from tests.servers.s3.servers import ACCESS_KEY, SECRET_KEY
from tests.servers.snowflake import SnowflakeServer
from tickhouse.stream.kafka_options import KafkaOptions

RECORDED = Path(__file__).parents[1] / "data" / "binance_ws_2024"
TRADES = 34_419
SPEED = 5
"""651 recorded seconds in a little over two minutes."""
BEFORE_IMPORT_S = 65
SYMBOLS = ("AAPL", "AMZN", "BINANCE:BTCUSDT", "GOOGL", "MSFT", "TSLA")
QUOTES = 300
TO_THE_END_S = 400

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]


@pytest.fixture
def bench(
    tmp_path: Path,
    kafka: KafkaServer,
    topics: str,
    seaweedfs: S3Server,
    bucket_name: str,
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> Bench:
    """Topics, bucket and tables of its own, made by `init`."""
    named = snowflake_settings(snowflake, snowflake_database)
    bench = Bench(
        tmp_path,
        source=f"replay:{RECORDED}?speed={SPEED}",
        log=KafkaOptions(bootstrap=kafka.bootstrap, prefix=topics).url,
        lake=seaweedfs.url(bucket_name, "lake"),
        s3_access_key_id=ACCESS_KEY,
        s3_secret_access_key=SECRET_KEY,
        **{name.removeprefix("TICKHOUSE_").lower(): value for name, value in named.items()},
    )
    assert bench.verb("init")["ok"]
    return bench


@pytest.fixture
def server(bench: Bench) -> AirflowServer:
    """Airflow that knows the road by its connection alone."""
    connection = json.dumps({"conn_type": "generic", "extra": bench.settings})
    try:
        airflow = prepare_airflow(
            bench.folder / "airflow", {**PAUSED, "AIRFLOW_CONN_TICKHOUSE": connection}
        )
    except UnavailableError as error:
        unavailable(error)
    return AirflowServer(airflow)


def test_the_minute_dag_makes_the_gold_of_the_embedded_road_out_of_kafka_s3_and_snowflake(
    bench: Bench,
    server: AirflowServer,
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> None:
    facts = run_minutes(bench, server)
    found = bench.verb("audit", "--deep")
    embedded = bench.folder / "embedded"
    gold.run_embedded(bench.data / "log" / "log.db", embedded, bench.folder)
    with (
        closing(open_snowflake(snowflake, snowflake_database)) as here,
        gold.open_embedded(embedded) as there,
    ):
        compared = gold.compare(here, there)
    sys.stderr.write("\n".join(["", *map(str, facts), str(compared), ""]))

    assert {run["state"] for run in facts} == {"success"}
    built = [run for run in facts if run["tasks"]["refine"][0] == "success"]
    assert len(built) >= 2, "gold followed while frames arrived"
    assert found["ok"], found
    assert {found[name] for name in ("lost", "duplicated", "corrupt", "in_flight")} == {0}
    assert compared.equal, compared.differences
    assert compared.tables["silver.trades"] == TRADES
    assert compared.tables["silver.quotes"] == QUOTES
    assert all(compared.tables[f"gold.bars_{length}"] for length in ("1s", "1m", "5m", "1h", "1d"))


def run_minutes(bench: Bench, server: AirflowServer) -> list[dict[str, Any]]:
    """Record and import while the DAG runs, until a minute has begun with everything landed."""
    with server:
        server.wait_healthy()
        wait_until(lambda: switched_on(server), "the DAG")
        with bench.running("land"):
            by_hand = record_all(bench, server)
        assert bench.verb("land", "--once")["ok"]
        landed_at = datetime.now(UTC)
        wait_until(lambda: has_succeeded_since(server, landed_at), "a minute with everything")
        wait_until(lambda: ended(server, by_hand), "the run by hand")
        facts = [told(server, run) for run in runs(server) if ended(server, run["dag_run_id"])]
        picture(server)
    check_log(server, facts)
    return facts


def record_all(bench: Bench, server: AirflowServer) -> str:
    """The feed to its end, with an import in the middle; the run that was triggered then."""
    with bench.running("record") as recording, pytest.raises(subprocess.TimeoutExpired):
        recording.wait(BEFORE_IMPORT_S)
    # A log has one writer: the recorder makes room, and then goes on where it was.
    imported = bench.verb("import", f"file:///{write_quotes(bench.folder / 'lake-of-old')}")
    assert (imported["ok"], imported["frames"]) == (True, QUOTES), imported
    with bench.running("record") as recording:
        by_hand = trigger(server)
        assert recording.wait(TO_THE_END_S) == 0
    return by_hand


def write_quotes(folder: Path) -> Path:
    """A lake as the tutorials leave it: a folder a symbol, an object a quote."""
    for number in range(QUOTES):
        symbol, at = SYMBOLS[number % len(SYMBOLS)], 1_700_000_000 + 6 * number
        path = folder / symbol / f"{at}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tutorial_quote(symbol, at, number))
    return folder


def check_log(server: AirflowServer, facts: list[dict[str, Any]]) -> None:
    """A run's log has a line a step, and no secret."""
    (first, *_) = [run["run"] for run in facts if run["tasks"]["refine"][0] == "success"]
    lines = log_of(server.airflow, first)
    sys.stderr.write("\n".join(["", *lines, ""]))
    for step in ("load_done", "build_done", "cycle_done"):
        (line,) = [line for line in lines if line.startswith(f"{step} ")]
        assert "load_id=" in line
        assert "seconds=" in line
    assert SECRET_KEY not in "\n".join(lines)
