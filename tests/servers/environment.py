"""Python environments of servers that cannot share ours, made once from exact pins."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.cache import UnavailableError

ROOT = Path(__file__).parents[2]
_BESIDE = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/python "$0" "$@"
' '''"""


def make_environment(folder: Path, requirements: Path) -> None:
    """A virtual environment in `folder`, with uv where there is one: pip takes a minute or two.

    Raises:
        UnavailableError: a package cannot be had.
    """
    python = str(folder / "bin" / "python")
    packages = ["--no-deps", "-r", str(requirements)]
    uv = shutil.which("uv") or shutil.which(ROOT / ".cache" / "uv" / "bin" / "uv")
    if uv:
        # It is moved to its place when whole: relocatable scripts find their interpreter then.
        _run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", python, *packages])
        return
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    for script in (folder / "bin").iterdir():
        _relocate(script)


def _relocate(script: Path) -> None:
    """Let a script that pip wrote look for its interpreter beside itself."""
    content = script.read_bytes()
    first, newline, rest = content.partition(b"\n")
    if first.startswith(b"#!/") and b"python" in first:
        script.write_bytes(_BESIDE + newline + rest)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{command[0]}: {done.stderr[-500:]}")
