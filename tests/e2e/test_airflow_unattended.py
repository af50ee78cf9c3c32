"""Minutes of a real scheduler over a live lake: killed, triggered twice, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from support.page import chromium
from tests.servers.airflow import AirflowServer, prepare_airflow
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable

MINUTES = 4.5
SOURCE = "sim://sp500?symbols=20&shards=2&rate=40"
MINUTE = "dags/tickhouse_minute"

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]


@contextmanager
def process(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A process group of our own; ended by SIGINT, and by force."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd=log.parent,
        )  # fmt: skip
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_until(found: Callable[[], object], what: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(1)


class Bench:
    """The data folder, and the verbs over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        ours = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
        self.environment = {**ours, "TICKHOUSE_DATA": str(self.data), "TICKHOUSE_SOURCE": SOURCE}

    def verb(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tickhouse", *arguments, "--json"],
            env=self.environment, capture_output=True, text=True, check=False, cwd=self.folder,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def running(self, verb: str) -> Any:
        command = (sys.executable, "-m", "tickhouse", verb)
        return process(*command, environment=self.environment, log=self.folder / f"{verb}.log")


def runs(server: AirflowServer) -> list[dict[str, Any]]:
    return server.ask(f"{MINUTE}/dagRuns?limit=100&order_by=run_after")["dag_runs"]


def switched_on(server: AirflowServer) -> bool:
    """Whether the DAG is there, and now runs."""
    try:
        return not server.ask(MINUTE, {"is_paused": False}, "PATCH")["is_paused"]
    except HTTPError:
        return False


def ended(server: AirflowServer, run_id: str) -> bool:
    return server.ask(f"{MINUTE}/dagRuns/{run_id}")["state"] in {"success", "failed"}


def trigger(server: AirflowServer) -> str:
    return server.ask(f"{MINUTE}/dagRuns", {"logical_date": None})["dag_run_id"]


def test_left_alone_for_minutes_killed_and_triggered_twice_it_loses_nothing(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    try:
        # As where somebody installs it: a DAG runs once it is switched on.
        settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
        airflow = prepare_airflow(
            tmp_path / "airflow", {**settings, "TICKHOUSE_DATA": str(bench.data)}
        )
    except UnavailableError as error:
        unavailable(error)
    server = AirflowServer(airflow)
    with bench.running("land"), server, bench.running("record"):
        server.wait_healthy()
        wait_until(lambda: switched_on(server), "the DAG")
        wait_until(lambda: any(run["state"] == "success" for run in runs(server)), "a first minute")
        began = time.monotonic()

        # Two by hand beside the schedule, and a third that is no run of Airflow's at all.
        doubled = [trigger(server), trigger(server)]
        bench.verb("refine", "--once")
        wait_until(lambda: all(ended(server, run) for run in doubled), "the double trigger")

        before = len(runs(server))
        for pid in server.pids("airflow scheduler"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not server.pids("airflow scheduler"), "the scheduler's end", 30)
        scheduler = process(
            str(airflow.bin / "airflow"), "scheduler", "--skip-serve-logs",
            environment=airflow.environment, log=tmp_path / "scheduler.log",
        )  # fmt: skip
        with scheduler:
            wait_until(lambda: len(runs(server)) >= before + 2, "minutes after the kill")
            time.sleep(max(0.0, MINUTES * 60 - (time.monotonic() - began)))
            told = [_told(server, run) for run in runs(server)]
            picture(server)
    bench.verb("land", "--once")
    last = bench.verb("refine", "--once")
    found = bench.verb("audit", "--deep")
    compared = bench.verb("rebuild", "--compare", "--to", str(tmp_path / "rebuilt"))
    (tmp_path / "runs.json").write_text(json.dumps(told, indent=1))
    sys.stderr.write("\n".join(["", *map(str, told), f"last cycle {last}", ""]))

    states = [run["state"] for run in told]
    assert states.count("success") >= MINUTES - 1
    assert "failed" not in states
    assert found["ok"], found
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert compared["identical"], compared


def _told(server: AirflowServer, run: dict[str, Any]) -> dict[str, Any]:
    """A run, and how long after its minute its task was done."""
    tasks = server.ask(f"{MINUTE}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    done = [task["end_date"] for task in tasks if task["end_date"]]
    after = [(_moment(at) - _moment(run["run_after"])).total_seconds() for at in done]
    return {
        "run": run["dag_run_id"],
        "state": run["state"],
        "tasks": {task["task_id"]: (task["state"], task["try_number"]) for task in tasks},
        "done_after_s": after,
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def picture(server: AirflowServer) -> None:
    """The grid as a file, where `TICKHOUSE_AIRFLOW_PICTURE` names one."""
    path = os.environ.get("TICKHOUSE_AIRFLOW_PICTURE")
    if not path:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"http://127.0.0.1:{server.port}/dags/tickhouse_minute")
        page.get_by_text("refine").first.wait_for(timeout=60_000)
        page.wait_for_timeout(5_000)
        page.screenshot(path=path)
        browser.close()
