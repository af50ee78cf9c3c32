"""Runs of the minute DAG on a real scheduler: started, waited for, told, and their picture."""

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

from support.page import chromium
from tests.servers.airflow import Airflow, AirflowServer

MINUTE = "dags/tickhouse_minute"
PAUSED = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
"""As where somebody installs it: a DAG runs once it is switched on."""


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
    """The data folder, and the verbs over it.

    Args:
        folder: for it and for the logs.
        settings: by name, as the connection of Airflow holds them.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.settings = {"data": str(self.data), **settings}
        ours = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
        named = {f"TICKHOUSE_{name.upper()}": value for name, value in self.settings.items()}
        self.environment = {**ours, **named}

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


def has_succeeded_since(server: AirflowServer, moment: datetime) -> bool:
    """Whether a run that began after the moment has ended well."""
    return any(
        run["state"] == "success" and to_moment(run["start_date"]) > moment for run in runs(server)
    )


def trigger(server: AirflowServer) -> str:
    return server.ask(f"{MINUTE}/dagRuns", {"logical_date": None})["dag_run_id"]


def told(server: AirflowServer, run: dict[str, Any]) -> dict[str, Any]:
    """A run, and how long after its minute its task was done."""
    tasks = server.ask(f"{MINUTE}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    after = [
        round((to_moment(task["end_date"]) - to_moment(run["run_after"])).total_seconds(), 1)
        for task in tasks
        if task["end_date"]
    ]
    return {
        "run": run["dag_run_id"],
        "state": run["state"],
        "tasks": {task["task_id"]: (task["state"], task["try_number"]) for task in tasks},
        "task_seconds": [round(task["duration"], 1) for task in tasks if task["duration"]],
        "done_after_s": after,
    }


def log_of(airflow: Airflow, run_id: str) -> list[str]:
    """What the last try of a run's task logged."""
    folder = f"logs/dag_id=tickhouse_minute/run_id={run_id}/task_id=refine"
    *_, last = sorted((airflow.home / folder).glob("attempt=*.log"))
    return [json.loads(line).get("event", "") for line in last.read_text().splitlines()]


def to_moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def picture(server: AirflowServer) -> None:
    """The grid as a file, where `TICKHOUSE_AIRFLOW_PICTURE` names one."""
    path = os.environ.get("TICKHOUSE_AIRFLOW_PICTURE")
    if not path:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 800})
        page.goto(f"http://127.0.0.1:{server.port}/dags/tickhouse_minute")
        page.get_by_text("refine").first.wait_for(timeout=60_000)
        page.wait_for_timeout(15_000)
        page.screenshot(path=path)
        browser.close()
