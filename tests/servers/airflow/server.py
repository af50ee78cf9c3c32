"""Airflow as child processes: its commands, and `airflow standalone` as one process group."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.cache import kept
from tests.servers.environment import make_environment
from tests.servers.process import ServerProcess, free_ports

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ENVIRONMENT = "airflow-3.3.2-1"
DATABASE = "airflow.db"
DAGS = ROOT / "deploy" / "airflow" / "dags"
STOP_S = 20.0


class Airflow:
    """An installation with a home of its own (SQLite, LocalExecutor); nothing runs yet.

    Args:
        home: folder for its database and logs.
        environment: settings of ours that its tasks are to see, such as `TICKHOUSE_DATA`.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.bin = kept(ENVIRONMENT, _make) / "bin"
        self.port, worker, trigger = free_ports(3)
        here = f"http://127.0.0.1:{self.port}"
        settings = {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(DAGS),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{here}/execution/",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__BASE_URL": here,
            "API__WORKERS": "1",
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(worker),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "15",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/{DATABASE}",
        }
        ours = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
        self.environment = {
            **ours,
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            # `standalone` starts its parts by name.
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
            "TICKHOUSE_PYTHON": sys.executable,
            **environment,
        }

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run `airflow …`; what it printed."""
        return self._run(str(self.bin / "airflow"), *arguments, check=check).stdout

    def probe(self, *arguments: str) -> tuple[Any, str]:
        """What `probe.py` found, and what was logged."""
        done = self._run(str(self.bin / "python"), str(HERE / "probe.py"), *arguments)
        *log, last = done.stdout.strip().splitlines()
        return json.loads(last), "\n".join([*log, done.stderr])

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert not check or done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done


class AirflowServer(ServerProcess):
    """`airflow standalone`: API server, scheduler, DAG processor, triggerer, in one group."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        super().__init__(
            [str(airflow.bin / "airflow"), "standalone"],
            port=airflow.port,
            log=airflow.home / "standalone.log",
            environment=airflow.environment,
            ready_s=420,
        )

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """The REST API's answer; `body` makes it a POST, where no method is named."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"}
        return self._http(f"/api/v2/{path}", body, headers, method)

    def wait_healthy(self, timeout_s: float = 180) -> None:
        """Until the scheduler reports."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self._http("/api/v2/monitor/health")["scheduler"]["status"] == "healthy":
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, "the scheduler never got healthy"
            time.sleep(1)

    def pids(self, part: str) -> list[int]:
        """Processes of this group whose command line names `part`, such as `scheduler`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
                group = os.getpgid(int(folder.name))
            except (OSError, ValueError):
                continue
            if group == self.pid and part in words:
                found.append(int(folder.name))
        return found

    def stop(self) -> None:
        """SIGINT, which alone stops all its parts; what is left of the group then is killed."""
        group = self.pid if self._process is not None else None
        self._end(signal.SIGINT)
        if group is not None:
            deadline = time.monotonic() + STOP_S
            while _is_alive(group) and time.monotonic() < deadline:
                time.sleep(0.2)
            if _is_alive(group):
                os.killpg(group, signal.SIGKILL)

    def _token(self) -> str:
        return self._http("/auth/token", None, {})["access_token"]

    def _http(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            dict(headers or {}),
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
            return json.load(answer)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def prepare_airflow(home: Path, environment: Mapping[str, str]) -> Airflow:
    """An installation whose database is made.

    Raises:
        UnavailableError: Airflow cannot be installed here.
    """
    home.mkdir(parents=True, exist_ok=True)
    airflow = Airflow(home, environment)
    shutil.copy(kept(f"{ENVIRONMENT}-database", _migrate) / DATABASE, home)
    return airflow


def _make(folder: Path) -> None:
    make_environment(folder, HERE / "requirements.txt")


def _migrate(folder: Path) -> None:
    Airflow(folder, {}).command("db", "migrate")
