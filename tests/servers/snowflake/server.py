"""The fake as a child process; its environment is made once (it needs another DuckDB than ours)."""

import json
import urllib.request
from pathlib import Path
from typing import ClassVar

from tests.servers.cache import kept
from tests.servers.environment import make_environment
from tests.servers.process import ServerProcess, free_ports

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = "fakesnow-0.12.1-3"


class SnowflakeServer(ServerProcess):
    """A running fake; use a database of your own (`snowflake_database`)."""

    credentials: ClassVar[dict[str, str]] = {
        "TICKHOUSE_SNOWFLAKE_USER": "fake",
        "TICKHOUSE_SNOWFLAKE_AUTHENTICATOR": "password",
        "TICKHOUSE_SNOWFLAKE_PASSWORD": "snow",
        "TICKHOUSE_SNOWFLAKE_ALLOW_PASSWORD": "true",
    }
    """Environment of a `tickhouse` process that logs in here."""

    def url(self, database: str, **options: str) -> str:
        """The product's URL of a database here."""
        query = {"warehouse": "WH", "role": "LOADER", "host": "127.0.0.1", "port": str(self.port)}
        query |= {"protocol": "http", **options}
        return f"snowflake://fakesnow/{database}?" + "&".join(f"{k}={v}" for k, v in query.items())

    def connect_arguments(self, database: str) -> dict[str, object]:
        """What `snowflake.connector.connect` takes."""
        return {
            "account": "fakesnow",
            "user": "fake",
            "password": "snow",
            "host": "127.0.0.1",
            "port": self.port,
            "protocol": "http",
            "database": database,
            "network_timeout": 30,
            "login_timeout": 30,
        }

    def fault(self, **fault: object) -> None:
        """Let the next requests that match fail: see `fake.Fault`."""
        self._control("faults", fault)

    def clear_faults(self) -> None:
        """Let nothing fail any more; free what hangs."""
        self._control("faults", None)

    def use_store(self, endpoint: str, key: str, secret: str) -> None:
        """Where stages with an `s3://` URL are."""
        self._control("store", {"endpoint": endpoint, "key": key, "secret": secret})

    def know_key(self, user: str, public_key_pem: str) -> None:
        """A user's public key: from now on only tokens signed with its private key let him in."""
        self._control("users", {"user": user, "key": public_key_pem})

    def counts(self) -> dict[str, int]:
        """Statements by their first word, and uploads, since the last call."""
        return self._control("counts", {})

    def _control(self, path: str, body: object) -> dict[str, int]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control/{path}", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - ours
            return json.load(response)


def start_snowflake(folder: Path) -> SnowflakeServer:
    """A running fake, empty, gone with its process.

    Raises:
        UnavailableError: its environment cannot be made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = kept(ENVIRONMENT, lambda kept_at: make_environment(kept_at, REQUIREMENTS))
    python = environment / "bin" / "python"
    (port,) = free_ports(1)
    server = SnowflakeServer(
        [str(python), str(HERE / "fake.py"), str(port)],
        port=port,
        log=folder / "fakesnow.log",
        environment={"TMPDIR": str(folder), "PYTHONPATH": ""},
    )
    server.start()
    return server
