"""A small disk for the spool, so that it can be full: a tmpfs, where we may mount one."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

BALLAST: Final = "ballast"
STEP_BYTES: Final = 64 << 20
"""Room is taken in such steps, then smaller ones: one that does not fit is given back whole."""


class SmallDisk:
    """A folder on a file system of its own; an ordinary folder where that cannot be had.

    Args:
        folder: where it is mounted.
        size_bytes: how much fits.

    Attributes:
        missing: why it cannot be filled; "" where it can.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.missing = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            self.missing = str(error)
        self._is_mounted = not self.missing

    def fill(self) -> None:
        """Take all the room that is left."""
        taken, step = 0, STEP_BYTES
        with (self.folder / BALLAST).open("wb") as file:
            while step >= os.statvfs(self.folder).f_frsize:
                try:
                    os.posix_fallocate(file.fileno(), taken, step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 4
                else:
                    taken += step

    def empty(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what lay in it is gone."""
        if self._is_mounted:
            command = ["umount", "-l", str(self.folder)]
            subprocess.run(command, capture_output=True, check=False)
            self._is_mounted = False
