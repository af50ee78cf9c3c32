"""Lines of bronze objects on their way into the warehouse: one temporary file a stream.

The files are newline-delimited JSON, as every warehouse reads it. A line says its own position,
and so which object it came from.
"""

import base64
import errno
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from tickhouse.bronze.object import unpack
from tickhouse.errors import CorruptObjectError, RefusedError
from tickhouse.model.positions import Stream
from tickhouse.warehouse.warehouse import BronzeObject

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_POSITION: Final = re.compile(
    rb'\{"t":"([A-Za-z0-9_.-]{1,64})","p":(\d{1,9}),"o":(\d{1,18}),"lt":(\d{1,15}),'
)
_THIS_PROCESS: Final = f"load-{os.getpid()}-{secrets.token_hex(6)}-"


LinesOf = Callable[[BronzeObject], Iterable[bytes]]


class QuotedLine(msgspec.Struct, frozen=True):
    """A line as text beside its position, for the careful way.

    Attributes:
        t, p, o, lt: the position that the lander put in front.
        line: the whole line, where it is UTF-8.
        b64: the whole line in base64, where it is not.
    """

    t: str
    p: int
    o: int
    lt: int
    line: str | None
    b64: str | None


class Staging:
    """Temporary files of one load, removed when it ends.

    Args:
        folder: where they lie; only this process's warehouse uses it.
        objects: what is loaded.
    """

    def __init__(self, folder: Path, objects: Sequence[BronzeObject]) -> None:
        self._folder = folder
        self._objects = objects
        self._made: list[Path] = []
        self.line_bytes_max = 0

    def __enter__(self) -> Self:
        """Nothing is written before `plain` or `careful` is called."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the files."""
        for path in self._made:
            path.unlink(missing_ok=True)

    def plain(self) -> dict[Stream, Path]:
        """The lines as they are.

        Raises:
            CorruptObjectError: an object cannot be unpacked.
            RefusedError: disk full.
        """
        return self._write(lambda item: [unpack(item.body, item.key)])

    def careful(self) -> dict[Stream, Path]:
        """Each line as text beside its position: readable whatever the line holds.

        Raises:
            CorruptObjectError: a line carries no position, or one that is not its object's.
            RefusedError: disk full.
        """
        return self._write(self._quoted)

    def _write(self, lines_of: LinesOf) -> dict[Stream, Path]:
        with_lines = [item for item in self._objects if item.manifest.n]
        streams = sorted({item.chain.stream for item in with_lines})
        return {
            stream: self._write_stream(
                stream, [item for item in with_lines if item.chain.stream is stream], lines_of
            )
            for stream in streams
        }

    def _write_stream(
        self, stream: Stream, objects: Sequence[BronzeObject], lines_of: LinesOf
    ) -> Path:
        path = self._folder / f"{_THIS_PROCESS}{secrets.token_hex(6)}-{stream}.ndjson"
        self._made.append(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for item in objects:
                    file.writelines(lines_of(item))
        except OSError as error:
            raise refused_or_same(error, path) from error
        return path

    def _quoted(self, item: BronzeObject) -> Iterator[bytes]:
        encode = msgspec.json.Encoder().encode
        for quoted in quoted_lines(item):
            text = encode(quoted)
            self.line_bytes_max = max(self.line_bytes_max, len(text))
            yield text + b"\n"


def quoted_lines(item: BronzeObject) -> Iterator[QuotedLine]:
    """Each line as text beside its position: readable whatever the line holds.

    Raises:
        CorruptObjectError: a line carries no position, or one that is not its object's.
    """
    expected = item.manifest.start
    for number, line in enumerate(unpack(item.body, item.key)[:-1].split(b"\n"), 1):
        quoted = _quote(item, number, line)
        if not expected <= quoted.o < item.manifest.next:
            reason = f"line {number} has offset {quoted.o}, not one from {expected} on"
            raise CorruptObjectError(item.key, reason)
        expected = quoted.o + 1
        yield quoted


def _quote(item: BronzeObject, number: int, line: bytes) -> QuotedLine:
    position = _POSITION.match(line)
    if position is None:
        raise CorruptObjectError(item.key, f"line {number} carries no position")
    topic_id, part, offset, log_time = position.groups()
    if (topic_id.decode(), int(part)) != (item.chain.topic_id, item.chain.part):
        raise CorruptObjectError(item.key, f"line {number} is of another partition or topic id")
    try:
        text, b64 = line.decode(), None
    except UnicodeDecodeError:
        text, b64 = None, base64.b64encode(line).decode()
    return QuotedLine(topic_id.decode(), int(part), int(offset), int(log_time), text, b64)


def refused_or_same(error: OSError, path: Path) -> Exception:
    """A full disk as `RefusedError`, any other error as it is."""
    if error.errno in DISK_FULL:
        return RefusedError(f"{path}: {error.strerror}. Make room; loading goes on by itself.")
    return error


def remove_stale(folder: Path) -> None:
    """Remove what a process that was killed left behind; only the warehouse's owner may."""
    for path in folder.glob("load-*.ndjson"):
        if not path.name.startswith(_THIS_PROCESS):
            path.unlink(missing_ok=True)
