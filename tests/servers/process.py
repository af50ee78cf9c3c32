"""A server as a child process: started on free ports, ended by its id, killed and started again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody has now, below those the system gives to clients."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class ServerProcess:
    """One process that listens on a port of 127.0.0.1.

    Args:
        command: program and arguments.
        port: it is ready once this port takes connections.
        log: file that takes what it prints.
        environment: on top of this process's.
        ready_s: how long it may take to start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        ready_s: float = 60.0,
    ) -> None:
        self._command = list(command)
        self.port = port
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it listens."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_s
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self._command[0]} did not start:\n{tail}")
            time.sleep(0.05)
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in an orderly way, and by force where that takes too long."""
        self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, sign)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
