"""Where servers for tests are kept once fetched or built; keyed by version, made under a lock."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UnavailableError(Exception):
    """This machine cannot have the server; says what is missing."""


def cache_folder() -> Path:
    """`TICKHOUSE_TEST_CACHE`, or `~/.cache/tickhouse-tests`."""
    named = os.environ.get("TICKHOUSE_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "tickhouse-tests"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made by one process while others wait; whole or not there."""
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():
            return folder
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        make(partial)
        partial.rename(folder)
    return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tool(name: str, *, debian: str = "") -> str:
    """Path of a program, installed from Debian where we may.

    Raises:
        UnavailableError: it is not here, and cannot be installed.
    """
    found = shutil.which(name)
    if found is None and debian and os.geteuid() == 0 and shutil.which("apt-get"):
        os.system(  # noqa: S605 - a fixed command
            "apt-get update -qq >/dev/null 2>&1;"
            f" apt-get install -y -qq --no-install-recommends {debian} >/dev/null 2>&1"
        )
        found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"{name} is not installed")
    return found
