"""Libraries put in front of libc: a clock that is wrong, a disk that fails to flush."""

import subprocess
from collections.abc import Callable
from functools import cache
from typing import Final

from tests.servers.cache import UnavailableError, tool

FSYNCS: Final = ("posix/io/sync/fsync", "posix/io/sync/fdatasync")


class Preload:
    """Libraries that change what a process sees of the system.

    Args:
        program: whose package brings them.
        debian: that package.
        names: of the libraries.
        options: the environment that goes with them, made from what is asked for.
    """

    def __init__(
        self,
        program: str,
        debian: str,
        names: tuple[str, ...],
        options: Callable[[object], dict[str, str]],
    ) -> None:
        self._program = program
        self._debian = debian
        self._names = names
        self._options = options

    def missing(self) -> str:
        """Why this machine cannot have it; "" where it can."""
        try:
            self._libraries()
        except UnavailableError as error:
            return str(error)
        return ""

    def environment(self, wanted: object) -> dict[str, str]:
        """What a process is started with."""
        return {"LD_PRELOAD": " ".join(self._libraries()), **self._options(wanted)}

    def _libraries(self) -> list[str]:
        return _libraries(self._program, self._debian, self._names)


@cache
def _libraries(program: str, debian: str, names: tuple[str, ...]) -> list[str]:
    tool(program, debian=debian)
    command = [tool("dpkg"), "-L", *debian.split()]
    listed = subprocess.run(command, capture_output=True, check=False)
    files = listed.stdout.decode().split()
    found = [next((file for file in files if file.endswith(name)), "") for name in names]
    if not all(found):
        raise UnavailableError(f"{debian}: no {', '.join(names)} in it")
    return found


def _clock(shift: object) -> dict[str, str]:
    """Only the wall clock is wrong: what counts time goes on."""
    return {"FAKETIME": str(shift), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _disk_errors(share: object) -> dict[str, str]:
    orders = [f"enable_random name={name},probability={share}" for name in FSYNCS]
    return {"FIU_ENABLE": "\n".join(orders)}


CLOCK: Final = Preload("faketime", "faketime libfaketime", ("/libfaketimeMT.so.1",), _clock)
DISK_ERRORS: Final = Preload(
    "fiu-run",
    "fiu-utils libfiu0",
    ("/fiu_run_preload.so", "/fiu_posix_preload.so"),
    _disk_errors,
)
