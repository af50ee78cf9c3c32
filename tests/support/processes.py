"""Run a function in a process of its own that a failpoint kills."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("killed_test_module", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
getattr(module, sys.argv[2])(*sys.argv[3:])
"""


def run_killed(function: Callable[..., None], *arguments: str, failpoints: str) -> None:
    """Run `function` with failpoints set and expect it to be killed (SIGKILL) by one of them."""
    code = run_with_failpoints(function, *arguments, failpoints=failpoints)

    assert code == -signal.SIGKILL, f"{failpoints} was never reached (exit code {code})"


def run_with_failpoints(
    function: Callable[..., None], *arguments: str, failpoints: str, timeout_s: float = 60
) -> int:
    """Run a top-level function of a test module in a new interpreter; returns its exit code."""
    module = sys.modules.get(function.__module__) or importlib.import_module(function.__module__)
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "TICKHOUSE_FAILPOINTS": failpoints,
        "PYTHONPATH": str(tests),
    }
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(module.__file__), function.__name__, *arguments],
        env=environment,
        timeout=timeout_s,
        check=False,
    )
    return completed.returncode
