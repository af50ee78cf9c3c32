"""`up`: a small supervisor over four children: record, land, refine (load + build), serve.

Each child is this very command with one verb, so killing any of them harms nothing. A child's
standard input is a pipe that the supervisor holds: when it closes, by will or by death, the child
ends in an orderly way. A failed child is started again with backoff.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from tickhouse.telemetry import get_logger

BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 30.0
STABLE_S: Final = 60.0
STOP_S: Final = 30.0
LOG_BYTES_MAX: Final = 16 << 20
STAGES: Final = ("record", "land", "refine", "serve")
"""In the order of the data; stopped in this order too, so that each drains the one before."""
DRAINED_CODE: Final = 0
UNABLE_CODE: Final = 2

_log = get_logger("up")


class Child:
    """One supervised stage.

    Args:
        stage: its verb.
        command: what to run.
        environment: its environment, settings included.
        log_path: where its standard error goes.
    """

    def __init__(
        self, stage: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.stage = stage
        self.restarts = 0
        self.finished = False
        self.failure: str | None = None
        self._command = list(command)
        self._environment = dict(environment)
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._backoff_s = BACKOFF_S_MIN

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with _open_log(self._log_path) as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self._started_at = time.monotonic()

    def watch(self) -> None:
        """Start, notice the end, start again when the backoff is over."""
        now = time.monotonic()
        if self.finished:
            return
        if self._process is None:
            if now >= self._start_at:
                self.start()
            return
        code = self._process.poll()
        if code is not None:
            self._ended(code, now)

    def _ended(self, code: int, now: float) -> None:
        self._close_pipe()
        self._process = None
        if code == DRAINED_CODE:
            self.finished = True
            _log.info("stage_finished", child=self.stage)
            return
        if now - self._started_at > STABLE_S:
            self._backoff_s = BACKOFF_S_MIN
        self.failure = last_line(self._log_path)
        self.restarts += 1
        self._start_at = now + self._backoff_s
        _log.warning(
            "stage_ended",
            child=self.stage,
            code=code,
            restart_s=self._backoff_s,
            last_words=self.failure,
        )
        if code == UNABLE_CODE and self.restarts == 1:
            _log.error("stage_unable", child=self.stage, reason=self.failure)
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)

    def stop(self) -> None:
        """Close the pipe, wait; after a while insist."""
        process = self._process
        if process is None:
            return
        self._close_pipe()
        for insist in (process.terminate, process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
                break
            _log.warning("stage_does_not_stop", child=self.stage)
            insist()
        process.wait()
        self._process = None

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class Supervisor:
    """Runs the children until told to stop.

    Args:
        children: in the order of the data.
        tick_s: how often they are looked at.
    """

    def __init__(self, children: Sequence[Child], *, tick_s: float = 0.1) -> None:
        self.children = list(children)
        self._tick_s = tick_s

    def run(self, stop: threading.Event, on_tick: Callable[[], None] = lambda: None) -> None:
        """Watch the children; on the way out stop them in the order of the data."""
        try:
            while not stop.wait(self._tick_s):
                for child in self.children:
                    child.watch()
                on_tick()
        finally:
            for child in self.children:
                child.stop()


def make_children(environment: Mapping[str, str], logs: Path) -> list[Child]:
    """The four stages of the road, each as a process of this interpreter."""
    variables = {**os.environ, **environment}
    return [
        Child(
            stage,
            [sys.executable, "-m", "tickhouse", stage, "--supervised"],
            variables,
            logs / f"{stage}.log",
        )
        for stage in STAGES
    ]


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def last_line(path: Path) -> str:
    """The last line a stage wrote, for the one who reads why it ended."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""


def stop_when_pipe_closes(stop: Callable[[], None]) -> None:
    """In a child: call `stop` once the supervisor's pipe is closed, by will or by death."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        stop()

    threading.Thread(target=wait, name="pipe", daemon=True).start()
