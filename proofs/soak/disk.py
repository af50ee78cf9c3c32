"""A small disk for the spool, so that it can be full: a tmpfs, where we may mount one."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

BALLAST: Final = "ballast"


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
        with (self.folder / BALLAST).open("wb") as file:
            free = os.statvfs(self.folder)
            size = free.f_bavail * free.f_frsize
            while size >= free.f_frsize:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size -= free.f_frsize
                else:
                    return

    def empty(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what lay in it is gone."""
        if self._is_mounted:
            command = ["umount", "-l", str(self.folder)]
            subprocess.run(command, capture_output=True, check=False)
            self._is_mounted = False
