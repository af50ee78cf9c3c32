"""The lake in a local folder: create-exclusive, flushed to disk, never overwritten."""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tickhouse.bronze.store import ObjectInfo
from tickhouse.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)
from tickhouse.telemetry import sync_folder

KEY_PATTERN: Final = re.compile(r"^[A-Za-z0-9._~=-]+(/[A-Za-z0-9._~=-]+)*$")
TEMPORARY: Final = ".tmp"
STALE_S: Final = 3600.0
_REFUSALS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}


class LocalStore:
    """Objects as files under one folder.

    Args:
        root: the folder; made if missing.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / TEMPORARY
        self._synced: set[Path] = set()
        self._number = 0
        self._lock = threading.Lock()
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{root}: the lake's folder cannot be made: {error}") from error
        self._clean()

    def _clean(self) -> None:
        """Remove what killed writers left; nothing that may still be written."""
        oldest = time.time() - STALE_S
        for entry in os.scandir(self._temporary):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest:
                    Path(entry.path).unlink()

    def path(self, key: str) -> Path:
        """File of a key.

        Raises:
            ConfigError: not a key.
        """
        if KEY_PATTERN.fullmatch(key) is None or ".." in key.split("/") or "." in key.split("/"):
            raise ConfigError(f"{key!r} is not a key of the lake")
        return self.root / key

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:  # noqa: ARG002
        """See `Store.put_if_absent`: temporary file, fsync, link, fsync of the folder."""
        final = self.path(key)
        temporary = self._new_temporary()
        try:
            self._make_folder(final.parent)
            _write_durably(temporary, body)
            os.link(temporary, final)
            sync_folder(final.parent)
        except FileExistsError:
            raise ObjectExistsError(key) from None
        except OSError as error:
            if error.errno in _REFUSALS:
                raise RefusedError(f"{final}: {error.strerror}. Make room or allow it.") from error
            raise TransientError(f"{final}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _new_temporary(self) -> Path:
        with self._lock:
            self._number += 1
            return self._temporary / f"{os.getpid()}-{id(self)}-{self._number}"

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and flush the entries that lead to it."""
        if folder in self._synced:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for parent in [folder, *folder.parents]:
            sync_folder(parent)
            if parent == self.root:
                break
        sync_folder(self.root.parent)
        self._synced.add(folder)

    def get(self, key: str) -> bytes:
        """See `Store.get`."""
        return self._read(key, -1)

    def get_head(self, key: str, length: int) -> bytes:
        """See `Store.get_head`."""
        return self._read(key, length)

    def _read(self, key: str, length: int) -> bytes:
        try:
            with self.path(key).open("rb", buffering=0) as file:
                return _read_fully(file.fileno(), length)
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        except OSError as error:
            raise TransientError(f"{self.path(key)}: {error}") from error

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list_objects`."""
        folder = self.path(prefix)
        for name, is_folder, size in _entries(folder):
            key = f"{prefix}/{name}"
            if is_folder:
                yield from self.list_objects(key, start_after=start_after)
            elif key > start_after:
                yield ObjectInfo(key, size)

    def last(self, prefix: str) -> str | None:
        """See `Store.last`."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path(prefix)) as entries:
            name = max(
                (entry.name for entry in entries if entry.name[0].isdigit()),
                default=None,
            )
            return None if name is None else f"{prefix}/{name}"
        return None

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        return [name for name, is_folder, _ in _entries(self.path(prefix)) if is_folder]

    def secure(self, key: str) -> None:
        """See `Store.secure`: flush the folder, once per folder is not enough for new entries."""
        folder = self.path(key).parent
        try:
            self._make_folder(folder)
            sync_folder(folder)
        except OSError as error:
            raise TransientError(f"{folder}: {error}") from error


def _write_durably(path: Path, body: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_fully(descriptor: int, length: int) -> bytes:
    remaining = os.fstat(descriptor).st_size if length < 0 else length
    parts: list[bytes] = []
    while remaining > 0 and (part := os.read(descriptor, remaining)):
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)


def _entries(folder: Path) -> list[tuple[str, bool, int]]:
    """Name, is it a folder, size; sorted by the bytes of the whole key below."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.name, entry.is_dir(), 0 if entry.is_dir() else entry.stat().st_size)
                for entry in entries
                if not entry.name.startswith(".")
            ]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda item: item[0] + "/" if item[1] else item[0])
