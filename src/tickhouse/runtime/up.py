"""`up`: the whole road under one supervisor, saying what it does."""

import argparse
import contextlib
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from tickhouse.errors import BusyError, TransientError
from tickhouse.runtime.level import Levels, read_statuses
from tickhouse.runtime.owner import HOST
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.runtime.stopping import stop_event
from tickhouse.runtime.supervisor import Supervisor, make_children
from tickhouse.settings import Settings
from tickhouse.telemetry import get_logger

LINE_INTERVAL_S: Final = 5.0
LEVEL_INTERVAL_S: Final = 1.0

_log = get_logger("up")


def run(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Start the children, watch them, stop them in order."""
    settings = settings.model_copy(update={"port": choose_port(settings)})
    for stale in ("page.address", "refine.address"):
        _remove_if_dead(settings.run_folder / stale)
    children = make_children(environment_of(settings), settings.data / "logs")
    supervisor = Supervisor(children)
    progress = Progress(settings, started=time.monotonic())
    with stop_event(arguments) as stop, contextlib.closing(progress):
        supervisor.run(
            stop, lambda: progress.tick(stop, once=arguments.once, supervisor=supervisor)
        )
    restarts = {child.stage: child.restarts for child in children}
    failed = [child.stage for child in children if child.failure and not child.finished]
    content = {"ok": not failed, "restarts": restarts, "url": progress.url}
    code = EXIT_PROBLEM if failed else EXIT_OK
    text = f"stopped; restarts: {restarts}" if any(restarts.values()) else "stopped cleanly"
    return VerbResult(code, content, text)


def choose_port(settings: Settings) -> int:
    """The port asked for; where nobody asked and the usual one is taken, a free one.

    Raises:
        BusyError: the port asked for is taken.
    """
    for port in (settings.port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if "port" in settings.model_fields_set:
                    raise BusyError(
                        f"port {port} on {HOST} is taken ({error}); --port 0 chooses a free one"
                    ) from error
                continue
            return int(probe.getsockname()[1])
    raise BusyError(f"no free port on {HOST}")


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings, secrets too, as the children's environment: never on a command line."""
    return {
        f"TICKHOUSE_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }


def _remove_if_dead(path: Path) -> None:
    try:
        pid = int(msgspec.json.decode(path.read_bytes())["pid"])
    except (FileNotFoundError, KeyError, ValueError, msgspec.DecodeError):
        return
    if not Path(f"/proc/{pid}").exists():
        path.unlink(missing_ok=True)


class Progress:
    """Says on the terminal what the road is doing, and notices when it is level."""

    def __init__(self, settings: Settings, *, started: float) -> None:
        self._settings = settings
        self._started = started
        self._next_line = started
        self._next_level = started + LEVEL_INTERVAL_S
        self._levels: Levels | None = None
        self.url = ""

    def tick(self, stop: threading.Event, *, once: bool, supervisor: Supervisor) -> None:
        """Called many times a second."""
        now = time.monotonic()
        if not self.url:
            self._announce()
        if now >= self._next_line:
            self._next_line = now + LINE_INTERVAL_S
            _log.info("road", **self._line())
        if once and now >= self._next_level:
            self._next_level = now + LEVEL_INTERVAL_S
            recorded = any(
                child.stage == "record" and child.finished for child in supervisor.children
            )
            if recorded and self._are_level():
                stop.set()

    def _are_level(self) -> bool:
        """Whether all is published; a log or lake that is away for the moment is asked again."""
        try:
            if self._levels is None:
                self._levels = Levels(self._settings)
            return self._levels.are_level()
        except TransientError as error:
            _log.warning("level_unknown", error=str(error))
            return False

    def close(self) -> None:
        """Release what was opened to tell whether the road is level."""
        if self._levels is not None:
            self._levels.close()

    def _announce(self) -> None:
        try:
            content = (self._settings.run_folder / "page.address").read_bytes()
        except FileNotFoundError:
            return
        self.url = str(msgspec.json.decode(content)["url"])
        seconds = time.monotonic() - self._started
        sys.stderr.write(f"tickhouse is up after {seconds:.0f} s: {self.url}\n")
        sys.stderr.flush()

    def _line(self) -> dict[str, Any]:
        statuses = read_statuses(self._settings.run_folder)
        facts = {stage: status.facts for stage, status in statuses.items()}
        return {
            "frames": facts.get("record", {}).get("frames", 0),
            "landed": facts.get("land", {}).get("records", 0),
            "loaded": facts.get("load", {}).get("rows", 0),
            "builds": facts.get("build", {}).get("builds", 0),
        }
