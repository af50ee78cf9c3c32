"""One verb of the product as a process: started, struck, started again."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import msgspec

from proofs.kills import TICKHOUSE
from proofs.soak.preloads import CLOCK, DISK_ERRORS

STOP_S: Final = 120.0


class Exit(msgspec.Struct, frozen=True):
    """A verb that ended although nobody struck it."""

    verb: str
    code: int
    tail: str


class Verb:
    """A verb that is kept running.

    Args:
        name: ours for it, such as "land-1"; also its log's.
        arguments: of the command line.
        environment: its settings.
        folder: of its log.
    """

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.stage = arguments[0]
        self.log = folder / f"{name}.log"
        self.status = Path(environment["TICKHOUSE_DATA"]) / "run" / f"{self.stage}.json"
        self.is_frozen = False
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, clock_shift: str = "", disk_errors: float = 0.0) -> None:
        """Start it, perhaps under a wrong clock, or with a disk whose flushes fail at times."""
        environment = dict(self._environment)
        if clock_shift:
            environment |= CLOCK.environment(clock_shift)
        if disk_errors:
            environment |= DISK_ERRORS.environment(disk_errors)
        with self.log.open("ab") as out:
            self._process = _start(self._arguments, environment, out, out)

    @property
    def code(self) -> int | None:
        """The code it ended with; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> bool:
        """`kill -9`; whether there was something to kill."""
        was_running = self.is_running
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process, self.is_frozen = None, False
        return was_running

    def freeze(self) -> None:
        """SIGSTOP: it believes, later, that no time has passed."""
        self._signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> bool:
        """SIGCONT; False where it was killed meanwhile."""
        was_frozen, self.is_frozen = self.is_frozen and self.is_running, False
        self._signal(signal.SIGCONT)
        return was_frozen

    def stop(self) -> int | None:
        """SIGTERM, as an operator does; its code, -9 where it had to be killed after all."""
        if self._process is None:
            return None
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        self._process = None
        return code

    def size(self) -> int:
        """How long its log is."""
        return self.log.stat().st_size

    def said_since(self, size: int) -> list[bytes]:
        """Lines of its log since it was so long."""
        with self.log.open("rb") as log:
            log.seek(size)
            return log.read().splitlines()

    def exit(self) -> Exit | None:
        """How it ended by itself, told once."""
        code = self.code
        if code is None:
            return None
        self._process = None
        return Exit(self.name, code, self.log.read_text(errors="replace")[-1500:])

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running and self._process is not None:
            os.killpg(self._process.pid, number)


def _start(
    arguments: list[str], environment: Mapping[str, str], out: IO[bytes], error: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*TICKHOUSE, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=error,
        start_new_session=True,
    )


class VerbFailedError(Exception):
    """A verb that had to succeed did not; says how it ended."""


def run_verb(
    arguments: list[str], environment: Mapping[str, str], log: Path, *, timeout_s: float = 600.0
) -> dict[str, object]:
    """Run a verb to its end with `--json`; its document, with its code under "code".

    Raises:
        VerbFailedError: it printed no document, or took too long.
    """
    with log.open("ab") as error, log.with_suffix(".out").open("w+b") as out:
        process = _start([*arguments, "--json"], {**os.environ, **environment}, out, error)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise VerbFailedError(f"{arguments} took longer than {timeout_s:g} s") from None
        out.seek(0)
        lines = out.read().decode().strip().splitlines()
    if not lines:
        tail = log.read_text(errors="replace")[-2000:]
        raise VerbFailedError(f"{arguments} ended with {code}:\n{tail}")
    return {**msgspec.json.decode(lines[-1], type=dict[str, object]), "code": code}
