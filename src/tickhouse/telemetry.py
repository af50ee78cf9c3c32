"""Logs, counters, stage status files and failpoints: one line a batch, never one a tick.

Logs go to standard error: for people on a terminal, as JSON lines elsewhere. Each stage keeps its
status in `<data>/run/<stage>.json` (replaced atomically, about once a second), which is all that
`tickhouse status` and the page need to know of another process.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

FAILPOINTS_VARIABLE: Final = "TICKHOUSE_FAILPOINTS"


def configure_logging(*, as_json: bool | None = None, level: int = logging.INFO) -> None:
    """Send structured logs to standard error; `as_json` defaults to 'not a terminal'."""
    use_json = not sys.stderr.isatty() if as_json is None else as_json
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if use_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(stage: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose every line names its stage."""
    return structlog.get_logger(stage=stage)


def write_json_atomically(
    path: Path, content: object, *, durable: bool = False, private: bool = False
) -> None:
    """Replace `path` by `content` as JSON so that a reader sees the old file or the new one.

    With `durable`, the file and its folder are flushed to disk before this returns; with
    `private`, only the owner can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    mode = 0o600 if private else 0o644
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(msgspec.json.encode(content))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk (a rename or a link is durable only after this)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Report = Callable[[str, Mapping[str, Any]], None]
"""Told a stage's state and the facts of the moment, such as `StageStatus.report`."""


class StageStatus:
    """The status file of one running stage.

    Args:
        folder: `<data>/run`.
        stage: name of the stage, also the file's name.
        interval_s: the file is written at most this often, except on a change of state.
    """

    def __init__(self, folder: Path, stage: str, *, interval_s: float = 1.0) -> None:
        self.path = folder / f"{stage}.json"
        self.stage = stage
        self._interval_s = interval_s
        self._written_at = -interval_s
        self._state = ""

    def report(self, state: str, facts: Mapping[str, object] | None = None) -> None:
        """Write `state` ("starting", "running", "stopped", "failed") with facts of the moment."""
        now = time.monotonic()
        if state == self._state and now - self._written_at < self._interval_s:
            return
        self._state, self._written_at = state, now
        content = {
            "stage": self.stage,
            "pid": os.getpid(),
            "state": state,
            "at_ms": time.time_ns() // 1_000_000,
            "facts": dict(facts or {}),
        }
        write_json_atomically(self.path, content)


# -- failpoints -------------------------------------------------------------------------------
# A failpoint is a named place beside a durable step. `TICKHOUSE_FAILPOINTS="land.put.after=kill:3"`
# kills the process (SIGKILL, as a power cut would) the third time that place is reached;
# `=error` raises, `=sleep:0.5` delays. Off, it costs one truth test of an empty dict.


class FailpointError(Exception):
    """Raised by a failpoint set to `error`."""


def _parse_failpoints(text: str) -> dict[str, list[Any]]:
    points: dict[str, list[Any]] = {}
    for item in filter(None, text.split(";")):
        name, _, action = item.partition("=")
        verb, _, argument = action.partition(":")
        points[name] = [verb, float(argument or 1)]
    return points


_failpoints: dict[str, list[Any]] = _parse_failpoints(os.environ.get(FAILPOINTS_VARIABLE, ""))


def failpoint(name: str) -> None:
    """A place where tests stop, fail or delay the process; does nothing unless set."""
    if _failpoints and name in _failpoints:
        _strike(name)


def _strike(name: str) -> None:
    verb, argument = _failpoints[name]
    if verb == "sleep":
        time.sleep(argument)
        return
    _failpoints[name][1] = argument - 1
    if argument > 1:
        return
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if argument == 1:
        raise FailpointError(name)
