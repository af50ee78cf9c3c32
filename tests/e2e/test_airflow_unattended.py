"""Minutes of a real scheduler over a live lake: killed, triggered twice, and nothing is lost."""

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.airflow_runs import (
    PAUSED,
    Bench,
    ended,
    has_succeeded_since,
    process,
    runs,
    switched_on,
    told,
    trigger,
    wait_until,
)
from tests.servers.airflow import AirflowServer, prepare_airflow
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable

MINUTES = 4.5
SOURCE = "sim://sp500?symbols=20&shards=2&rate=40"

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]


def test_left_alone_for_minutes_killed_and_triggered_twice_it_loses_nothing(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, source=SOURCE)
    try:
        airflow = prepare_airflow(
            tmp_path / "airflow", {**PAUSED, "TICKHOUSE_DATA": str(bench.data)}
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

        for pid in server.pids("airflow scheduler"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not server.pids("airflow scheduler"), "the scheduler's end", 30)
        killed_at = datetime.now(UTC)
        before = len(runs(server))
        scheduler = process(
            str(airflow.bin / "airflow"), "scheduler", "--skip-serve-logs",
            environment=airflow.environment, log=tmp_path / "scheduler.log",
        )  # fmt: skip
        with scheduler:
            wait_until(lambda: len(runs(server)) >= before + 2, "minutes after the kill")
            wait_until(lambda: has_succeeded_since(server, killed_at), "success after the kill")
            time.sleep(max(0.0, MINUTES * 60 - (time.monotonic() - began)))
            facts = [told(server, run) for run in runs(server)]
    bench.verb("land", "--once")
    last = bench.verb("refine", "--once")
    found = bench.verb("audit", "--deep")
    compared = bench.verb("rebuild", "--compare", "--to", str(tmp_path / "rebuilt"))
    (tmp_path / "runs.json").write_text(json.dumps(facts, indent=1))
    sys.stderr.write("\n".join(["", *map(str, facts), f"last cycle {last}", ""]))

    states = [run["state"] for run in facts]
    assert states.count("success") >= MINUTES - 1
    assert "failed" not in states
    assert found["ok"], found
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert compared["identical"], compared
