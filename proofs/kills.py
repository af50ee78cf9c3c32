"""Run `tickhouse up` and kill it, or one of its stages, at random moments (SIGKILL)."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LONG_PAUSE_S = (5.0, 10.0)
LONG_SHARE = 1 / 8
STAGES = ("record", "land", "load", "serve")
TICKHOUSE = (sys.executable, "-m", "tickhouse")


class Road:
    """One data folder and the commands that work on it.

    Args:
        data: the data folder.
        source: URL of the feed.
        settings: more settings, by name.
    """

    def __init__(self, data: Path, source: str, **settings: object) -> None:
        self.data = data
        self.environment = {
            **os.environ,
            "TICKHOUSE_DATA": str(data),
            "TICKHOUSE_SOURCE": source,
            "TICKHOUSE_PORT": "0",
            **{f"TICKHOUSE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.killed: list[str] = []
        self._up: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start `up` in a process group of its own."""
        log = self.data / "up.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._up = subprocess.Popen(
                [*TICKHOUSE, "up", *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill_up(self) -> None:
        """Kill the supervisor and every stage at once, as a power cut would."""
        if self._up is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._up.pid, signal.SIGKILL)
            self._up.wait()
            self._up = None
            self.killed.append("up")

    def kill_stage(self, stage: str) -> bool:
        """Kill one stage; the supervisor starts it again. False where it is not running."""
        try:
            pid = json.loads((self.data / "run" / f"{stage}.json").read_bytes())["pid"]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError, KeyError):
            return False
        if b"tickhouse" not in command:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.killed.append(stage)
        return True

    def wait(self, timeout_s: float) -> int:
        """Wait until `up` ends by itself."""
        if self._up is None:
            message = "up is not running"
            raise RuntimeError(message)
        code = self._up.wait(timeout_s)
        self._up = None
        return code

    def stop(self) -> None:
        """End whatever still runs."""
        if self._up is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._up.pid, signal.SIGKILL)
            self._up.wait()
            self._up = None

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run a verb with `--json`; its document, with the exit code under "code"."""
        completed = subprocess.run(
            [*TICKHOUSE, *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            check=False,
        )
        lines = completed.stdout.decode().strip().splitlines()
        if not lines:
            raise RuntimeError(f"{arguments}: {completed.stderr.decode()[-2000:]}")
        return {**json.loads(lines[-1]), "code": completed.returncode}


def kill_at_random(
    road: Road,
    kills: int,
    *,
    seed: int,
    pause_s: Sequence[float] = (0.3, 3.0),
    share_of_stages: float = 0.5,
) -> None:
    """Keep `up` running and strike `kills` times: the whole of it, or one stage.

    One pause in eight is long enough for loads and builds to get going, and to be struck.
    """
    chance = random.Random(seed)  # noqa: S311 - which moment is struck, nothing secret
    road.start()
    while len(road.killed) < kills:
        time.sleep(chance.uniform(*(LONG_PAUSE_S if chance.random() < LONG_SHARE else pause_s)))
        # In an order that is drawn, since one that has not started yet cannot be struck.
        if chance.random() < share_of_stages and any(
            map(road.kill_stage, chance.sample(STAGES, len(STAGES)))
        ):
            continue
        road.kill_up()
        road.start()
    road.stop()
