"""Runs in Airflow's environment: what the DAG files hold and do, without a scheduler.

Usage: `probe.py describe`, `probe.py test <dag> [<conf>]`, `probe.py verbs <cases>`; arguments and
the last line printed are JSON.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from airflow.dag_processing.dagbag import DagBag

FOLDER = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
sys.path.insert(0, str(FOLDER))


def describe() -> dict[str, Any]:
    """Every DAG, after a search for cycles, and the files that cannot be imported."""
    bag = DagBag(FOLDER)
    dags = {}
    for dag in bag.dags.values():
        dag.check_cycle()
        dags[dag.dag_id] = {
            "file": Path(dag.fileloc).name,
            "schedule": dag.schedule,
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "timeout_s": dag.dagrun_timeout.total_seconds(),
            "doc": dag.doc_md,
            "tasks": {
                task.task_id: {
                    "owner": task.owner,
                    "retries": task.retries,
                    "backoff": task.retry_exponential_backoff,
                    "timeout_s": task.execution_timeout.total_seconds(),
                    "outlets": [asset.name for asset in task.outlets],
                    "tells": [each.__name__ for each in task.on_failure_callback],
                    "downstream": sorted(task.downstream_task_ids),
                }
                for task in dag.tasks
            },
        }
    return {"errors": bag.import_errors, "dags": dags}


def run_dag(name: str, conf: str = "{}") -> dict[str, Any]:
    """One run of a DAG in this process."""
    run = DagBag(FOLDER).dags[name].test(run_conf=json.loads(conf))
    states = {each.task_id: str(each.state) for each in run.get_task_instances()}
    return {"state": str(run.state), "tasks": states}


def verbs(cases: str) -> list[dict[str, Any]]:
    """How each case ends: `set` in the environment, `run` a verb, cut it after `alarm_s`."""
    return [_verb(case) for case in json.loads(cases)]


def _verb(case: dict[str, Any]) -> dict[str, Any]:
    import tickhouse_verbs

    before = dict(os.environ)
    for name, value in case.get("set", {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    signal.signal(signal.SIGALRM, _cut)
    signal.alarm(case.get("alarm_s", 0))
    try:
        if "tell" in case:
            instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", try_number=3)
            tickhouse_verbs.tell_failure({"task_instance": instance, "exception": case["tell"]})
            return {"kind": None, "result": None}
        return {"kind": None, "result": tickhouse_verbs.run(*case["run"])}
    except Exception as error:  # noqa: BLE001 - what it raises is what is asked
        return {"kind": type(error).__name__, "message": str(error), "children": _children()}
    finally:
        signal.alarm(0)
        os.environ.clear()
        os.environ.update(before)


def _cut(_number: int, _frame: object) -> NoReturn:
    raise TimeoutError


def _children() -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if text.rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(text)
    return found


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    found = {"describe": describe, "test": run_dag, "verbs": verbs}[verb](*rest)
    sys.stdout.write("\n" + json.dumps(found) + "\n")
