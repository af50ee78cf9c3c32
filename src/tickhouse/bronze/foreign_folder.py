"""A foreign lake in a local folder; nothing is made or changed there."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tickhouse.errors import ConfigError, RefusedError
from tickhouse.source.importing.objects import ForeignObject


class ForeignFolder:
    """Files below a folder; names that begin with a dot are not objects.

    Keys are absolute paths without the first slash. The names of one folder are held in memory.

    Args:
        folder: where they lie.

    Raises:
        ConfigError: no folder there.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no folder there to import")
        self._folder = folder.resolve()
        self.place = "file:///"
        self.url = f"file:///{self._folder}"
        self.prefix = f"{self._folder}/".lstrip("/")

    def objects(self) -> Iterator[ForeignObject]:
        """See `ForeignLake.objects`."""
        return self._below(self._folder)

    def _below(self, folder: Path) -> Iterator[ForeignObject]:
        for name, is_folder in _names(folder):
            path = folder / name
            if is_folder:
                yield from self._below(path)
                continue
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RefusedError(f"{path}: {error.strerror}. Allow reading it") from error
            yield ForeignObject(str(path).lstrip("/"), found.st_size, found.st_mtime_ns)

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See `ForeignLake.get_many`."""
        return map(_read, keys)


def _read(key: str) -> bytes | None:
    path = Path(f"/{key}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}. Allow reading it") from error


def _names(folder: Path) -> list[tuple[str, bool]]:
    """Names and whether they are folders, in order of the keys below them."""
    found: list[tuple[str, bool]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if not entry.name.startswith(".") and (is_folder or entry.is_file()):
                    found.append((_checked(folder, entry.name), is_folder))
    except OSError as error:
        raise RefusedError(f"{folder}: {error.strerror}. Allow reading it") from error
    return sorted(found, key=lambda each: f"{each[0]}/" if each[1] else each[0])


def _checked(folder: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{folder}: the name {name!a} is not UTF-8: rename it") from error
    return name
