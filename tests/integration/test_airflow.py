"""The DAGs in Airflow's own environment: they import, run the product, and fail in clear words."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers.airflow import DAGS, Airflow, prepare_airflow
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable
from tickhouse.transform.dbt_runner import DbtRunner
from tickhouse.transform.published import PublishedGold

SOURCE = "sim://sp500?symbols=5&shards=2&rate=max&frames=300"
LINES_MAX = 60
UNSET: dict[str, str | None] = {"TICKHOUSE_DATA": None}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Airflow over an embedded lake that has not been loaded yet."""
    folder = tmp_path_factory.mktemp("airflow")
    try:
        airflow = prepare_airflow(folder / "home", {"TICKHOUSE_DATA": str(folder / "data")})
    except UnavailableError as error:
        unavailable(error)
    for verb in ("record", "land"):
        tickhouse(folder / "data", verb, "--once")
    return airflow


def tickhouse(data: Path, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
    environment |= {"TICKHOUSE_DATA": str(data), "TICKHOUSE_SOURCE": SOURCE}
    done = subprocess.run(
        [sys.executable, "-m", "tickhouse", *arguments, "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def data_of(airflow: Airflow) -> Path:
    return Path(airflow.environment["TICKHOUSE_DATA"])


def gold_models() -> set[str]:
    return {path.stem for path in project().glob("models/gold/*.sql")}


def project() -> Path:
    return Path(sys.modules[DbtRunner.__module__].__file__ or "").parent / "project"


def test_every_dag_imports_and_is_set_up_to_be_left_alone(airflow: Airflow) -> None:
    found, _ = airflow.probe("describe")

    assert found["errors"] == {}
    assert {"tickhouse_minute", "tickhouse_backfill", "tickhouse_nightly"} == set(found["dags"])
    for name, dag in found["dags"].items():
        assert dag["file"] == f"{name}.py"
        assert len((DAGS / dag["file"]).read_text().splitlines()) <= LINES_MAX
        assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
        assert dag["doc"]
        for task in dag["tasks"].values():
            assert (task["owner"], task["tells"]) == ("tickhouse", ["tell_failure"])
            assert task["retries"] > 1
            assert task["backoff"] > 1
            # A task that hangs fails by itself, and so is told, before its run is given up.
            assert 0 < task["timeout_s"] < dag["timeout_s"]
    assert found["dags"]["tickhouse_minute"]["schedule"] == "* * * * *"
    assert found["dags"]["tickhouse_backfill"]["schedule"] is None
    outlets = found["dags"]["tickhouse_minute"]["tasks"]["refine"]["outlets"]
    assert {f"tickhouse_gold_{model}" for model in gold_models()} == set(outlets)


def test_the_minute_loads_builds_and_publishes_and_then_finds_nothing(airflow: Airflow) -> None:
    first, log = airflow.probe("test", "tickhouse_minute")
    gold = PublishedGold(data_of(airflow) / "gold")
    trades = gold.query("select sum(trade_count) from gold.kpi").rows
    second, _ = airflow.probe("test", "tickhouse_minute")

    assert (first["state"], first["tasks"]) == ("success", {"refine": "success"})
    assert (second["state"], second["tasks"]) == ("success", {"refine": "skipped"})
    assert trades[0][0] > 0
    for step in ("load_done", "build_done", "publish_done"):
        (line,) = [line for line in log.splitlines() if f"{step} " in line]
        assert "load_id=1" in line
        assert "seconds=" in line
    assert tickhouse(data_of(airflow), "audit")["ok"]


@pytest.mark.warehouse
def test_a_backfill_derives_the_same_again_and_the_night_finds_nothing(airflow: Airflow) -> None:
    tickhouse(data_of(airflow), "refine", "--once")
    before = tickhouse(data_of(airflow), "query", "from gold.bars_1s order by all")
    conf = {"from": "2020-01-01T00:00:00Z", "to": None}
    backfill, _ = airflow.probe("test", "tickhouse_backfill", json.dumps(conf))
    nightly, log = airflow.probe("test", "tickhouse_nightly")

    assert backfill["tasks"] == {"rederive": "success", "audit": "success"}
    assert set(nightly["tasks"].values()) == {"success"}, log
    assert before == tickhouse(data_of(airflow), "query", "from gold.bars_1s order by all")


def test_a_damaged_object_fails_the_minute_though_the_rest_is_loaded(
    airflow: Airflow, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for verb in ("record", "land"):
        tickhouse(data, verb, "--once")
    damaged = min((data / "lake").glob("bronze/v1/trades/*/p=00000/*.gz"))
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-9])

    found, _ = airflow.probe(
        "verbs", json.dumps([{"set": {"TICKHOUSE_DATA": str(data)}, "run": ["refine", "--once"]}])
    )

    assert found[0]["kind"] == "AirflowFailException"
    assert damaged.name in found[0]["message"]
    assert tickhouse(data, "query", "select count(*) from gold.kpi")["rows"][0][0] > 0


def test_what_is_wrong_is_said_and_retried_only_where_that_helps(
    airflow: Airflow, tmp_path: Path
) -> None:
    """All cases in one process: an interpreter with Airflow takes seconds to start."""
    extra = {"data": str(tmp_path / "other"), "lake": "s3:/typo"}
    connection = json.dumps({"conn_type": "generic", "extra": extra})
    cases = {
        "no settings": {"set": UNSET, "run": ["status"]},
        "no lake": {"set": {**UNSET, "TICKHOUSE_WAREHOUSE": "duckdb:///w"}, "run": ["status"]},
        "no interpreter": {"set": {"TICKHOUSE_PYTHON": "/nowhere/python"}, "run": ["status"]},
        "no tickhouse": {"set": {"TICKHOUSE_PYTHON": None}, "run": ["status"]},
        "wrong setting": {"set": {"TICKHOUSE_LOAD_BYTES": "0"}, "run": ["refine", "--once"]},
        "connection": {"set": {"AIRFLOW_CONN_TICKHOUSE": connection}, "run": ["refine", "--once"]},
        "cut": {"run": ["land", "--for", "100s"], "alarm_s": 6},
        "all well": {"run": ["retention"]},
    }
    found, log = airflow.probe("verbs", json.dumps(list(cases.values())))
    by_name = dict(zip(cases, found, strict=True))
    final = {name for name, each in by_name.items() if each["kind"] == "AirflowFailException"}

    assert {*cases} - {"cut", "all well"} == final
    for name in ("no settings", "no lake"):
        assert "make a connection 'tickhouse'" in by_name[name]["message"]
    assert "TICKHOUSE_PYTHON: [Errno 2]" in by_name["no interpreter"]["message"]
    assert "has no tickhouse: install it there" in by_name["no tickhouse"]["message"]
    assert "load_bytes" in by_name["wrong setting"]["message"]
    assert "lake" in by_name["connection"]["message"]
    assert (by_name["cut"]["kind"], by_name["cut"]["children"]) == ("TimeoutError", [])
    assert by_name["all well"]["result"]["ok"], log


def test_a_failure_is_told_as_an_event_and_to_the_webhook_without_its_address(
    airflow: Airflow,
) -> None:
    with webhook() as (url, posts):
        cases = [
            {"tell": "gold is broken", "set": {"TICKHOUSE_ALERT_WEBHOOK": f"{url}/hook-key"}},
            {"tell": "quiet"},
            {"tell": "away", "set": {"TICKHOUSE_ALERT_WEBHOOK": "http://127.0.0.1:9/hook-key"}},
        ]
        found, log = airflow.probe("verbs", json.dumps(cases))

    assert [None] * 3 == [each["kind"] for each in found]
    ((path, body),) = posts
    assert path == "/hook-key"
    assert json.loads(body)["text"] == "d.t failed (r, try 3): gold is broken"
    assert json.loads(body)["event"] == "task_failed"
    assert log.count("task_failed") == 3
    assert "alert_failed kind=URLError" in log
    assert "hook-key" not in log


@contextmanager
def webhook() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Where alerts go: its address, and what was posted."""
    posts: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posts
        server.shutdown()
