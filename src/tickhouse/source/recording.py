"""Recorded messages in files: found, told apart, merged by recorded time, payloads untouched.

Two formats, told apart line by line: a message a line, and `<receive time, UNIX ns> <message>` a
line. Files ending in `.gz` are inflated. A line that is neither is a message too: the whole line.
"""

import glob
import gzip
import hashlib
import heapq
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tickhouse.errors import ConfigError

KINDS: Final = ("binance.ws", "finnhub.ws")
KIND_LINES: Final = 100
"""Lines looked at to tell what kind of messages a file holds."""
_TIMED: Final = re.compile(rb"(\d{16,20}) ")
_SUFFIXES: Final = (".jsonl", ".ndjson", ".txt", ".log")
_broken = (OSError, EOFError, zlib.error)

_T = TypeVar("_T")
Message = tuple[int, bytes]
"""Recorded receipt (UNIX ns; that of the line before, or 0, where unknown) and payload."""


def find_files(path: str) -> list[Path]:
    """The files under a path, folder or pattern, in order of name; several separated by commas.

    Raises:
        ConfigError: a part names no file.
    """
    found: list[Path] = []
    for part in filter(None, (item.strip() for item in path.split(","))):
        location = Path(part).expanduser()
        if location.is_file():
            files = [location]
        elif location.is_dir():
            files = sorted(file for file in location.iterdir() if _is_recording(file))
        else:
            matches = map(Path, glob.glob(str(location)))  # noqa: PTH207 - absolute patterns too
            files = sorted(file for file in matches if file.is_file())
        if not files:
            raise ConfigError(f"replay: {part}: no recording there; {_GIVE}")
        found += files
    if not found:
        raise ConfigError(f"replay: no path; {_GIVE}")
    return found


_GIVE: Final = "give a file, a folder of .jsonl or .gz files, or a pattern"


def _is_recording(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return file.is_file() and (name != file.name or name.endswith(_SUFFIXES))


def fingerprint(files: Sequence[Path]) -> str:
    """Eight hexadecimal digits that change with the files' names, order or sizes.

    A cursor into other files than it was taken from would skip messages or repeat them.
    """
    listing = "".join(f"{file.name}\t{file.stat().st_size}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()[:8]


def kind_of(files: Sequence[Path]) -> str:
    """What the messages are, by the first lines of each file: "binance.ws" or "finnhub.ws".

    Raises:
        ConfigError: unreadable, not to be told, or different kinds.
    """
    kinds = {file: kind for file in files if (kind := _kind_of_file(file)) is not None}
    if not kinds:
        names = ", ".join(str(file) for file in files[:3])
        raise ConfigError(
            f"replay: {names}: the first {KIND_LINES} lines hold no Binance stream and no Finnhub"
            f" message; say kind={' or kind='.join(KINDS)}"
        )
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{file} ({kind})" for file, kind in kinds.items())
        raise ConfigError(f"replay: messages of different kinds: {listed}; replay them one by one")
    return next(iter(kinds.values()))


def _kind_of_file(file: Path) -> str | None:
    try:
        with _open(file) as lines:
            for line in islice(lines, KIND_LINES):
                kind = _kind_of_payload(_parse(line)[1])
                if kind is not None:
                    return kind
    except _broken as error:
        raise ConfigError(f"replay: {file} cannot be read: {error}") from error
    return None


def _kind_of_payload(payload: bytes) -> str | None:
    try:
        message = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if "stream" in message:
        return "binance.ws"
    return "finnhub.ws" if "type" in message else None


def _open(file: Path) -> io.BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def read_messages(files: Sequence[Path]) -> Iterator[Message]:
    """Messages of all files, merged by recorded time; equal times in order of file and line.

    Raises:
        ConfigError: a file breaks off or is corrupt; what came before has been yielded.
    """
    if len(files) == 1:
        return _read_file(files[0])
    return heapq.merge(*map(_read_file, files), key=lambda message: message[0])


def _read_file(file: Path) -> Iterator[Message]:
    recorded_ns = count = position = 0
    try:
        with _open(file) as lines:
            for line in lines:
                at_ns, payload = _parse(line)
                recorded_ns = recorded_ns if at_ns is None else at_ns
                yield recorded_ns, payload
                count += 1
                position += len(line)
    except _broken as error:
        raise ConfigError(
            f"replay: {file} is broken after line {count} (byte {position} of its text): {error}."
            " What came before has been delivered; repair or remove the file."
        ) from error


def _parse(line: bytes) -> tuple[int | None, bytes]:
    """Recorded time, if the line has one, and payload; only the end of the line is cut off."""
    end = len(line)
    if line.endswith(b"\n"):
        end -= 2 if line.endswith(b"\r\n") else 1
    match = _TIMED.match(line)
    return (int(match[1]), line[match.end() : end]) if match else (None, line[:end])


def read_blocks(messages: Iterator[_T], size: int) -> Iterator[list[_T]]:
    """The messages in lists of `size`; where reading fails, first what came before.

    Raises:
        ConfigError: as `read_messages`, after the last list.
    """
    block: list[_T] = []
    try:
        for message in messages:
            block.append(message)
            if len(block) == size:
                yield block
                block = []
    except ConfigError:
        yield block
        raise
    if block:
        yield block
