"""The lake in a local folder: create-exclusive, flushed to disk, never overwritten."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tickhouse.bronze.store import KEY_PATTERN, ObjectInfo
from tickhouse.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)
from tickhouse.telemetry import sync_folder

TEMPORARY: Final = ".tmp"
STALE_S: Final = 3600.0
_REFUSALS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}


class LocalStore:
    """Objects as files under one folder; names that begin with a dot are not objects.

    Args:
        root: the folder; made if missing.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._temporary = self.root / TEMPORARY
        self._synced: set[Path] = set()
        try:
            _make_durable_folder(self._temporary)
            self._clean()
        except OSError as error:
            raise ConfigError(f"{root}: the lake's folder cannot be made: {error}") from error

    def _clean(self) -> None:
        """Remove what killed writers left; nothing that may still be written."""
        oldest = time.time() - STALE_S
        with os.scandir(self._temporary) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < oldest:
                        Path(entry.path).unlink()

    def path(self, key: str) -> Path:
        """File of a key.

        Raises:
            ConfigError: not a key.
        """
        if KEY_PATTERN.fullmatch(key) is None:
            raise ConfigError(f"{key!r} is not a key of the lake")
        return self.root / key

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:  # noqa: ARG002
        """See `Store.put_if_absent`: temporary file, fsync, link, fsync of the folder."""
        final = self.path(key)
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            self._make_folder(final.parent)
            _write_durably(temporary, body)
            if not _link(temporary, final):
                raise ObjectExistsError(key)
            sync_folder(final.parent)
        except OSError as error:
            self._synced.discard(final.parent)
            raise _translated(error, final) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and flush the entries that lead to it, whoever made them."""
        if folder in self._synced:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for parent in [folder, *folder.parents]:
            sync_folder(parent)
            if parent == self.root.parent:
                break
        self._synced.add(folder)

    def get(self, key: str) -> bytes:
        """See `Store.get`."""
        return self._read(key, -1)

    def get_head(self, key: str, length: int) -> bytes:
        """See `Store.get_head`."""
        return self._read(key, length)

    def _read(self, key: str, length: int) -> bytes:
        path = self.path(key)
        try:
            with path.open("rb", buffering=0) as file:
                return _read_fully(file.fileno(), length)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissingError(key) from None
        except OSError as error:
            raise _translated(error, path) from error

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list_objects`; folders that lie before `start_after` are not looked into."""
        for name, is_folder in self._names(prefix):
            key = f"{prefix}/{name}"
            if is_folder:
                if f"{key}/" > start_after or start_after.startswith(f"{key}/"):
                    yield from self.list_objects(key, start_after=start_after)
            elif key > start_after:
                yield ObjectInfo(key, self.path(key).stat().st_size)

    def last(self, prefix: str) -> str | None:
        """See `Store.last`."""
        folder = self.path(prefix)
        try:
            with os.scandir(folder) as entries:
                name = max((entry.name for entry in entries if entry.name[0].isdigit()), default="")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translated(error, folder) from error
        return f"{prefix}/{name}" if name else None

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        return [name for name, is_folder in self._names(prefix) if is_folder]

    def _names(self, prefix: str) -> list[tuple[str, bool]]:
        """Names and whether they are folders, sorted by the bytes of the keys below them."""
        folder = self.path(prefix)
        try:
            with os.scandir(folder) as entries:
                found = [(e.name, e.is_dir()) for e in entries if KEY_PATTERN.fullmatch(e.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _translated(error, folder) from error
        return sorted(found, key=lambda entry: entry[0] + "/" if entry[1] else entry[0])

    def secure(self, key: str) -> None:
        """See `Store.secure`: whoever made the entry may not have flushed it yet."""
        folder = self.path(key).parent
        try:
            self._make_folder(folder)
            sync_folder(folder)
        except OSError as error:
            raise _translated(error, folder) from error


def _make_durable_folder(folder: Path) -> None:
    """Make a folder and flush the entry of each folder that was missing."""
    missing = [path for path in [folder, *folder.parents] if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def _translated(error: OSError, path: Path) -> RefusedError | TransientError:
    if error.errno in _REFUSALS:
        return RefusedError(f"{path}: {error.strerror}. Make room or allow it.")
    return TransientError(f"{path}: {error}")


def _link(temporary: Path, final: Path) -> bool:
    """Give the finished file its name; False where the name is taken."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    return True


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
