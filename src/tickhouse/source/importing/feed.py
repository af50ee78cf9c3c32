"""The feed of `tickhouse import`: every object of a foreign lake that the log does not hold yet.

An `imported` event names some objects; it and all their frames are one commit. So what such events
name is in the log whole, and is the position: a run takes what is listed and not named, wherever it
lies between the keys, and never a part of an object.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, NamedTuple

import msgspec
from typing_extensions import override

from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Imported, ImportedObject, Mode
from tickhouse.source.feed import Delivery, Feed, History, Together
from tickhouse.source.importing.book import ImportBook
from tickhouse.source.importing.messages import (
    GUESS,
    MODE,
    OBJECT_BYTES_MAX,
    Kind,
    Message,
    SymbolRule,
    UnfitError,
    arrivals_of,
    measure,
    messages_of,
)
from tickhouse.source.importing.objects import ForeignLake, ForeignObject
from tickhouse.telemetry import get_logger

IMPORT_SHARD: Final = 6
"""Shard (partition) of its own, far from those of feeds that record all day."""
BATCH_OBJECTS: Final = 500
BATCH_BYTES: Final = 8 << 20
BATCH_KEY_BYTES: Final = 256 << 10
"""The event that names the objects of a batch is a frame, too."""
NAMED_MAX: Final = 100
"""More refused objects are counted, not named in the report; the log of the run has them all."""
STREAMS: Final = (Stream.TRADES, Stream.QUOTES)
_OWN: Final = "bronze/v1/"

_log = get_logger("import")


class ImportCounts(msgspec.Struct):
    """What a run has come to.

    Attributes:
        listed: objects found.
        there: in the log before this run.
        objects, bytes, frames: taken by this run; bytes as the objects have them.
        refused: objects not taken.
        reasons: key and reason of the first of these.
        unlike: messages that are neither quote nor trade by their looks; taken all the same.
        unlike_key: the object of the first of these.
    """

    listed: int = 0
    there: int = 0
    objects: int = 0
    bytes: int = 0
    frames: int = 0
    refused: int = 0
    reasons: list[str] = []
    unlike: int = 0
    unlike_key: str = ""


class _Read(NamedTuple):
    found: ForeignObject
    messages: list[Message]


class ImportFeed(Feed):
    """Delivers what the log does not hold yet, then is drained.

    Args:
        lake: what is imported.
        book: index of what the log holds; filled here.
        kind: what the messages are; auto = told one by one.
        rule: where symbols of quotes are found.
        clock_ns: UNIX nanoseconds UTC.
    """

    def __init__(
        self,
        lake: ForeignLake,
        book: ImportBook,
        *,
        kind: Kind = "auto",
        rule: SymbolRule = GUESS,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.url = f"{MODE}:{lake.url}"
        self.source = MODE
        self.mode: Mode = "replay"
        self.shards = 1
        self.endless = False
        self.resumes = False
        self.counts = ImportCounts()
        self._lake = lake
        self._book = book
        self._kind: Kind = kind
        self._rule = rule
        self._clock_ns = clock_ns

    @override
    def begin(self, history: History) -> None:
        for _, event in history.events(IMPORT_SHARD):
            if isinstance(event, Imported) and event.place == self._lake.place:
                self._book.note(event.objects)

    @override
    def waits(self, shard: int) -> bool:
        return True

    @override
    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        numbers: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        batches = self._batches()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield self._delivery(batch, numbers)
        if not self.counts.listed:
            raise ConfigError(f"{self._lake.url}: nothing there to import")

    def _batches(self) -> Iterator[list[_Read]]:
        """Objects that are read, as many together as make one commit."""
        batch: list[_Read] = []
        held = key_bytes = 0
        for found, body in self._bodies():
            messages = self._messages(found, body)
            if not messages:
                continue
            batch.append(_Read(found, messages))
            held += sum(len(message.payload) for message in messages)
            key_bytes += len(found.key.encode())
            is_full = len(batch) == BATCH_OBJECTS or key_bytes > BATCH_KEY_BYTES
            if is_full or held > BATCH_BYTES:
                yield batch
                batch, held, key_bytes = [], 0, 0
        if batch:
            yield batch

    def _bodies(self) -> Iterator[tuple[ForeignObject, bytes | None]]:
        for group in _groups(self._wanted()):
            bodies = self._lake.get_many([found.key for found in group])
            yield from zip(group, bodies, strict=True)

    def _wanted(self) -> Iterator[ForeignObject]:
        """Listed objects that the log does not hold and that can be read.

        Raises:
            ConfigError: it is a lake of our own.
        """
        for found in self._lake.objects():
            if found.key.removeprefix(self._lake.prefix).startswith(_OWN):
                raise ConfigError(
                    f"{self._lake.url}: a lake of tickhouse, not one to import: `tickhouse copy`"
                    " copies it, `--source replay:…` replays it"
                )
            if not self._book.see(found.key, found.size):
                continue
            self.counts.listed += 1
            known = self._book.imported(found.key)
            if known == (found.size, found.modified_ns):
                self.counts.there += 1
            elif known is not None:
                self._refuse(found.key, f"rewritten since its import, when it had {known[0]} bytes")
            elif not found.size:
                self._refuse(found.key, "empty")
            elif found.size > OBJECT_BYTES_MAX:
                limit = f"the limit of {OBJECT_BYTES_MAX}"
                self._refuse(found.key, f"object of {found.size} bytes is over {limit}")
            else:
                yield found

    def _messages(self, found: ForeignObject, body: bytes | None) -> list[Message]:
        """The messages of an object; none where it is refused, and told."""
        try:
            if body is None:
                raise UnfitError("gone since it was listed")  # noqa: TRY301 - told like the others
            if len(body) != found.size:
                raise UnfitError(f"{len(body)} bytes, listed with {found.size}: run it again")  # noqa: TRY301
            key = found.key.removeprefix(self._lake.prefix)
            return messages_of(body, key, self._kind, self._rule)
        except UnfitError as error:
            self._refuse(found.key, str(error))
            return []

    def _refuse(self, key: str, reason: str) -> None:
        self._book.refuse(key, reason)
        self.counts.refused += 1
        _log.warning("object_refused", key=key, reason=reason)
        if len(self.counts.reasons) < NAMED_MAX:
            self.counts.reasons.append(f"{key}: {reason}")

    def _delivery(self, batch: list[_Read], numbers: dict[Stream, int]) -> Together:
        """The event that names some objects, and their frames; numbers go on behind them."""
        now = self._clock_ns()
        messages = [message for read in batch for message in read.messages]
        event = Imported(
            at=now,
            place=self._lake.place,
            first={str(stream): number for stream, number in numbers.items()},
            bytes={
                str(stream): sum(measure(m.payload) for m in messages if m.stream is stream)
                for stream in STREAMS
            },
            objects=[_named(read) for read in batch],
        )
        for stream in STREAMS:
            numbers[stream] += sum(message.stream is stream for message in messages)
        self._count(batch)
        return Together((event, *arrivals_of(messages, now)))

    def _count(self, batch: list[_Read]) -> None:
        self.counts.objects += len(batch)
        for read in batch:
            self.counts.bytes += read.found.size
            self.counts.frames += len(read.messages)
            unlike = sum(not message.is_like for message in read.messages)
            self.counts.unlike += unlike
            if unlike and not self.counts.unlike_key:
                self.counts.unlike_key = read.found.key

    @override
    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: what the log holds is the position."""

    @override
    def close(self) -> None:
        """Nothing to release."""


def _named(read: _Read) -> ImportedObject:
    trades = sum(message.stream is Stream.TRADES for message in read.messages)
    return ImportedObject(
        read.found.key,
        read.found.size,
        read.found.modified_ns,
        trades,
        len(read.messages) - trades,
    )


def _groups(found: Iterator[ForeignObject]) -> Iterator[list[ForeignObject]]:
    """Objects that are read at the same time."""
    group: list[ForeignObject] = []
    held = 0
    for each in found:
        if group and (held + each.size > BATCH_BYTES or len(group) == BATCH_OBJECTS):
            yield group
            group, held = [], 0
        group.append(each)
        held += each.size
    if group:
        yield group
