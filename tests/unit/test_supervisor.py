"""`up` starts what ended, leaves what finished, and stops in the order of the data."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tickhouse.runtime.supervisor import Child, Supervisor

LIVE = """
import sys
open(sys.argv[1], "a").write("started\\n")
sys.stdin.read()
open(sys.argv[1], "a").write("stopped\\n")
"""
FAIL = "import sys; open(sys.argv[1], 'a').write('started\\n'); sys.exit('cannot reach the moon')"
FINISH = "import sys; open(sys.argv[1], 'a').write('started\\n')"

Start = Callable[..., tuple[Supervisor, threading.Event]]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Start]:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def run(*scripts: str) -> tuple[Supervisor, threading.Event]:
        children = [
            Child(
                f"stage{number}",
                [sys.executable, "-c", script, str(tmp_path / f"{number}.out")],
                dict(os.environ),
                tmp_path / "logs" / f"{number}.log",
            )
            for number, script in enumerate(scripts)
        ]
        supervisor = Supervisor(children, tick_s=0.01)
        thread = threading.Thread(target=supervisor.run, args=(stop,))
        threads.append(thread)
        thread.start()
        return supervisor, stop

    yield run
    stop.set()
    for thread in threads:
        thread.join(30)


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def lines(tmp_path: Path, number: int) -> list[str]:
    path = tmp_path / f"{number}.out"
    return path.read_text().split() if path.exists() else []


def test_a_killed_child_is_started_again(running: Start, tmp_path: Path) -> None:
    supervisor, _ = running(LIVE)
    wait_for(lambda: lines(tmp_path, 0) == ["started"])

    os.kill(supervisor.children[0].pid, 9)

    wait_for(lambda: lines(tmp_path, 0) == ["started", "started"])
    assert supervisor.children[0].restarts == 1


def test_a_failing_child_is_started_again_with_growing_pauses_and_its_last_words_are_kept(
    running: Start, tmp_path: Path
) -> None:
    supervisor, stop = running(FAIL)
    wait_for(lambda: supervisor.children[0].restarts >= 2)
    stop.set()

    assert supervisor.children[0].failure == "cannot reach the moon"
    assert supervisor.children[0]._backoff_s >= 2.0


def test_a_child_that_finished_is_left_alone(running: Start, tmp_path: Path) -> None:
    supervisor, _ = running(FINISH, LIVE)
    wait_for(lambda: supervisor.children[0].finished)
    time.sleep(0.2)

    assert lines(tmp_path, 0) == ["started"]
    assert supervisor.children[0].restarts == 0


def test_children_stop_in_the_order_of_the_data(running: Start, tmp_path: Path) -> None:
    _, stop = running(LIVE, LIVE)
    wait_for(lambda: bool(lines(tmp_path, 0) and lines(tmp_path, 1)))

    stop.set()
    wait_for(lambda: lines(tmp_path, 1)[-1] == "stopped")

    first, second = (tmp_path / "0.out").stat().st_mtime_ns, (tmp_path / "1.out").stat().st_mtime_ns
    assert lines(tmp_path, 0)[-1] == "stopped"
    assert first <= second


def test_children_exit_when_the_supervisors_pipe_closes(tmp_path: Path) -> None:
    script = f"""
import os, sys, threading
from pathlib import Path
from tickhouse.runtime.supervisor import Child, Supervisor
child = Child("stage", [sys.executable, "-c", {LIVE!r}, {str(tmp_path / "0.out")!r}],
              dict(os.environ), Path({str(tmp_path)!r}) / "log")
Supervisor([child], tick_s=0.01).run(threading.Event())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: lines(tmp_path, 0) == ["started"])

    supervisor.kill()
    supervisor.wait()

    wait_for(lambda: lines(tmp_path, 0) == ["started", "stopped"])
