"""Loaders of one warehouse, killed and stopped at random (SIGKILL, SIGSTOP) over a waiting lake."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

from proofs.kills import TICKHOUSE, Road

PAUSE_S: Final = (0.0, 0.5)
"""A loader is struck so long after a load of its own."""
ASLEEP_S: Final = 1.5
STARTED_S: Final = 60.0


class LoaderLives:
    """Two `tickhouse load` at a time over one warehouse, struck again and again.

    Args:
        road: the data folder and the settings of the warehouse.
    """

    def __init__(self, road: Road) -> None:
        self._road = road
        self._chance = random.Random()  # noqa: S311 - which moment is struck, nothing secret
        self._running: list[subprocess.Popen[bytes]] = []
        self._log = road.data / "loaders.log"
        self.kills = 0
        self.zombies = 0

    def strike(self, kills: int, zombies: int, *, seed: int) -> None:
        """So many lives end by SIGKILL; so many sleep while another loader works, and wake."""
        self._chance.seed(seed)
        asleep = set(self._chance.sample(range(kills), zombies))
        with self._ended():
            for life in range(kills):
                victim = self._at_work()
                time.sleep(self._chance.uniform(*PAUSE_S))
                if life in asleep:
                    self._sleep(victim)
                self._kill(victim)

    def kill_build(self, *, seed: int) -> None:
        """A build is killed once in its middle."""
        self._chance.seed(seed)
        build = self._start("build", "--once")
        with contextlib.suppress(subprocess.TimeoutExpired):
            build.wait(self._chance.uniform(3.0, 6.0))
        self.kills += build.poll() is None
        build.kill()
        build.wait()

    def _at_work(self) -> subprocess.Popen[bytes]:
        """The loader that was the last to say that it has loaded something."""
        deadline = time.monotonic() + STARTED_S
        while time.monotonic() < deadline:
            self._fill(2)
            told = self._status()
            for loader in self._running:
                if loader.pid == told.get("pid") and told["facts"].get("objects_loaded"):
                    return loader
            time.sleep(0.05)
        raise RuntimeError(f"no loader loads: {self._log.read_text()[-2000:]}")

    def _status(self) -> dict[str, Any]:
        try:
            return json.loads((self._road.data / "run" / "load.json").read_bytes())
        except FileNotFoundError:
            return {}

    def _fill(self, count: int) -> None:
        """Keep `count` loaders running; one that found the warehouse taken has ended by itself."""
        self._running = [loader for loader in self._running if loader.poll() is None]
        while len(self._running) < count:
            self._running.append(self._start("load"))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*TICKHOUSE, *arguments],
                env=self._road.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _sleep(self, loader: subprocess.Popen[bytes]) -> None:
        """Stop a loader, let the other one work, let it go on where it was: a zombie."""
        if loader.poll() is not None:
            return
        os.kill(loader.pid, signal.SIGSTOP)
        time.sleep(ASLEEP_S)
        os.kill(loader.pid, signal.SIGCONT)
        self.zombies += 1
        time.sleep(self._chance.uniform(0.05, 0.5))

    def _kill(self, loader: subprocess.Popen[bytes]) -> None:
        self.kills += loader.poll() is None
        loader.kill()
        loader.wait()
        self._running.remove(loader)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            for loader in self._running:
                loader.kill()
                loader.wait()
            self._running = []
