"""Verbs of `tickhouse` as tasks run them: a child process, its log lines, its one JSON result.

A child serves both ways to install: tickhouse beside Airflow, or in an environment of its own that
`TICKHOUSE_PYTHON` (or the Airflow variable of that name) points to. It runs what the command line
runs, its memory ends with it, and an upgrade needs no restart of the scheduler.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from airflow.sdk import Asset, Connection, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

CONNECTION = "tickhouse"
START = datetime(2026, 1, 1, tzinfo=UTC)
STOP_S = 20.0
WEBHOOK_S = 5.0
CODE_OK, CODE_PROBLEM = 0, 1
LEVELS = {"error": logging.ERROR, "critical": logging.ERROR, "warning": logging.WARNING}

TABLES = (
    *("bars_1s", "bars_1m", "bars_5m", "bars_1h", "bars_1d", "kpi", "market_map"),
    *("volatility_1m", "latency", "completeness", "gaps_daily"),
)
GOLD = [Asset(f"tickhouse_gold_{table}") for table in TABLES]
"""One asset a gold table: schedule your own DAGs on them."""

log = logging.getLogger("tickhouse")


def run(*arguments: str) -> dict:
    """Run a verb; its log lines become the task's, its JSON document the result.

    Raises:
        AirflowFailException: a problem was found, or an operator must act: no retry helps.
        AirflowException: it may work when tried again.
    """
    command = [_python(), "-m", "tickhouse", *arguments, "--json"]
    log.info("%s", " ".join(command))
    try:
        child = subprocess.Popen(
            command,
            env=_settings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise AirflowFailException(f"TICKHOUSE_PYTHON: {error}") from error
    last: list[str] = []
    reading = threading.Thread(target=_pass_on, args=(child.stderr, last), daemon=True)
    reading.start()
    try:
        printed = child.stdout.read()
        code = child.wait()
    finally:
        # A task that is timed out or cancelled takes its child along; a cycle cut short is whole.
        _end(child)
        reading.join(STOP_S)
    return _result(arguments[0], code, printed, last)


def _python() -> str:
    """The interpreter that has tickhouse: the one that is named, or Airflow's own."""
    name = "TICKHOUSE_PYTHON"
    return os.environ.get(name) or Variable.get(name, default=None) or sys.executable


def _settings() -> dict[str, str]:
    """The child's environment: Airflow's, with the connection's extra as `TICKHOUSE_*`.

    Secrets so never appear among a process's arguments, nor in a log.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with contextlib.suppress(AirflowNotFoundException):
        extra = Connection.get(CONNECTION).extra_dejson
        environment |= {f"TICKHOUSE_{name.upper()}": str(value) for name, value in extra.items()}
    named = {name for name in ("DATA", "LAKE", "WAREHOUSE") if environment.get(f"TICKHOUSE_{name}")}
    if "DATA" not in named and not named >= {"LAKE", "WAREHOUSE"}:
        raise AirflowFailException(
            f"no settings: make a connection {CONNECTION!r} (type generic) whose extra is, for"
            ' example, {"lake": "s3://…", "warehouse": "snowflake://…"}, or set TICKHOUSE_DATA, or'
            " TICKHOUSE_LAKE and TICKHOUSE_WAREHOUSE, in the workers' environment; found:"
            f" {sorted(named)}"
        )
    return environment


def _pass_on(lines: Iterable[str], last: list[str]) -> None:
    """Log a child's lines as they come: one a step, its facts as key=value."""
    for line in lines:
        try:
            facts = json.loads(line)
            event, level = facts.pop("event"), LEVELS.get(facts.pop("level", ""), logging.INFO)
        except (ValueError, KeyError, AttributeError, TypeError):
            log.info("%s", line.rstrip())
            last[:] = [*last[-19:], line.rstrip()]
            continue
        facts.pop("timestamp", None)
        log.log(level, "%s %s", event, " ".join(f"{key}={facts[key]}" for key in facts))


def _end(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _result(verb: str, code: int, printed: str, last: list[str]) -> dict:
    try:
        document = json.loads(printed)
    except ValueError:
        if any("No module named tickhouse" in line for line in last):
            raise AirflowFailException(
                f"{_python()} has no tickhouse: install it there, or name the interpreter that has"
                " it in TICKHOUSE_PYTHON"
            ) from None
        tail = last[-1] if last else "nothing was printed"
        raise AirflowException(f"tickhouse {verb} ended with {code}: {tail}") from None
    if code == CODE_OK:
        return document
    if code == CODE_PROBLEM:
        raise AirflowFailException(f"tickhouse {verb} found a problem: {_problems(document)}")
    reason = f"tickhouse {verb}: {document.get('error')}"
    is_final = document.get("kind") == "ConfigError"
    raise (AirflowFailException if is_final else AirflowException)(reason)


def _problems(document: dict) -> str:
    """What a report says is wrong, short enough for a message; the log holds all of it."""
    log.error("%s", json.dumps(document))
    layers = [layer for layer in document.get("layers", []) if not layer.get("ok", True)]
    tables = [table["name"] for table in document.get("tables", []) if not table["identical"]]
    told = [*document.get("problems", []), *(str(layer) for layer in layers), *tables]
    return "; ".join(told)[:1000] or "see the log"


def tell_failure(context: Mapping) -> None:
    """A task failed for good: a structured event, and a message where a webhook is set."""
    instance = context["task_instance"]
    event = {
        "event": "task_failed",
        "dag": instance.dag_id,
        "task": instance.task_id,
        "run": instance.run_id,
        "tries": instance.try_number,
        "reason": str(context.get("exception"))[:1000],
    }
    log.error("%s", json.dumps(event))
    address = os.environ.get("TICKHOUSE_ALERT_WEBHOOK")
    if not address:
        return
    text = "{dag}.{task} failed ({run}, try {tries}): {reason}".format(**event)
    try:
        # The address is a secret: whatever goes wrong is told without it.
        request = urllib.request.Request(  # noqa: S310 - set by the operator
            address,
            data=json.dumps({"text": text, **event}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=WEBHOOK_S).close()  # noqa: S310
    except (OSError, ValueError) as error:
        status = getattr(error, "code", "")
        log.error("alert_failed kind=%s status=%s", type(error).__name__, status)  # noqa: TRY400


DEFAULTS = {
    "owner": "tickhouse",
    "retries": 5,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=20),
    "on_failure_callback": tell_failure,
}
