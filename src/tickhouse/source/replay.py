"""`replay:<file, folder or pattern>`: recorded frames through the live path, payloads untouched.

Two formats, told apart line by line: a message a line (time of recording unknown: delivered at
once), and `<receive time, UNIX ns> <message>` a line (delivered at the recorded pace x `speed`).
Files ending in `.gz` are inflated. Several files are merged by recorded time. Nothing is dropped: a
line that is not JSON is delivered as it is.
"""

import asyncio
import glob
import gzip
import heapq
import io
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from tickhouse.errors import ConfigError
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Arrivals

BLOCK_MESSAGES_MAX: Final = 1000
BLOCK_S: Final = 0.02
_TIMED: Final = re.compile(rb"^(\d{16,20}) ")
_SUFFIXES: Final = (".jsonl", ".ndjson", ".txt", ".log")

Message = tuple[int, bytes]
"""Recorded receipt (UNIX ns; that of the line before, or 0, where unknown) and payload."""


class Replay:
    """Recorded frames as a feed of one shard that ends and that can resume.

    Args:
        path: a file, a folder or a pattern; several separated by commas.
        speed: times the recorded pace; None = as fast as it goes.

    Raises:
        ConfigError: nothing found under the path.
    """

    def __init__(self, path: str, *, speed: float | None = None) -> None:
        self.files = find_files(path)
        self.url = f"replay:{path}"
        self.source = f"replay:{_kind_of(self.files[0])}"
        self.mode: Mode = "replay"
        self.shards = 1
        self.endless = False
        self.resumes = True
        self._speed = speed

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals]:  # noqa: ARG002 - one shard
        """See `Feed.connect`; the cursor counts messages of the merged files."""
        messages = read_messages(self.files)
        for _ in range(cursor):
            if next(messages, None) is None:
                return
        pace = _Pace(self._speed)
        block: list[bytes] = []
        for recorded_ns, payload in messages:
            wait_s = pace.wait_s(recorded_ns)
            if block and (wait_s > 0 or len(block) >= BLOCK_MESSAGES_MAX):
                yield Arrivals(block, time.time_ns())
                block = []
                await asyncio.sleep(max(wait_s, BLOCK_S) if wait_s > 0 else 0)
            elif wait_s > 0:
                await asyncio.sleep(wait_s)
            block.append(payload)
        if block:
            yield Arrivals(block, time.time_ns())

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: the log's end is the position."""

    def close(self) -> None:
        """Nothing to release."""


class _Pace:
    """How long to wait until a recorded moment comes, at a speed."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._first_ns: int | None = None
        self._started = time.monotonic()

    def wait_s(self, recorded_ns: int) -> float:
        if self._speed is None or recorded_ns == 0:
            return 0.0
        if self._first_ns is None:
            self._first_ns = recorded_ns
            self._started = time.monotonic()
        due = self._started + (recorded_ns - self._first_ns) / 1e9 / self._speed
        return due - time.monotonic()


def find_files(path: str) -> list[Path]:
    """The files under a path, in order of name.

    Raises:
        ConfigError: none.
    """
    found: list[Path] = []
    for part in filter(None, (item.strip() for item in path.split(","))):
        location = Path(part).expanduser()
        if location.is_dir():
            found += sorted(file for file in location.iterdir() if _is_recording(file))
        elif location.is_file():
            found.append(location)
        else:
            found += sorted(Path(name) for name in glob.glob(str(location)))  # noqa: PTH207
    if not found:
        raise ConfigError(f"replay:{path}: no file there. Give a file, a folder or a pattern.")
    return found


def _is_recording(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return file.is_file() and (name != file.name or name.endswith(_SUFFIXES))


def _open(file: Path) -> io.BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _kind_of(file: Path) -> str:
    """Payload kind, by what the first line looks like."""
    try:
        with _open(file) as lines:
            first = lines.readline()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return "binance.ws" if b'"stream":' in first else "finnhub.ws"


def read_messages(files: list[Path]) -> Iterator[Message]:
    """Messages of all files, merged by recorded time; equal times in order of file and line."""
    return heapq.merge(*map(_read_file, files), key=lambda message: message[0])


def _read_file(file: Path) -> Iterator[Message]:
    recorded_ns = delivered = 0
    try:
        with _open(file) as lines:
            for line in lines:
                match = _TIMED.match(line)
                if match is not None:
                    recorded_ns = int(match[1])
                yield recorded_ns, line[match.end() if match else 0 :].rstrip(b"\r\n")
                delivered += 1
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"{file}: broken after line {delivered}: {error}. What came before has been delivered."
        ) from error
