"""A shard's session while it is recorded, and how the next one finds where the last one ended."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Gap, Opened, PreviousSession, SessionEvent, decode_event
from tickhouse.stream.log import LogReader
from tickhouse.stream.shedding import Shed

COUNTED: Final = (Stream.TRADES, Stream.QUOTES, Stream.REFERENCE)
"""Streams whose messages move a feed's cursor."""


class ResumePoint(msgspec.Struct, frozen=True):
    """Where a shard's next session starts.

    Attributes:
        previous: the session before, with its last durable message number.
        cursor: messages of the feed that are durable on this shard.
    """

    previous: PreviousSession | None
    cursor: int


def new_session_id() -> str:
    """A random UUIDv7: sorts by time of creation, never derived from a simulator's seed."""
    milliseconds = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = milliseconds << 80 | 7 << 76 | (noise >> 68) << 64 | 2 << 62 | noise & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def find_resume_point(log: LogReader, shard: int, feed: str) -> ResumePoint:
    """Read from the log's own end how far a shard got.

    Args:
        log: the log that the recorder is about to extend.
        shard: shard = partition.
        feed: URL of the feed about to be recorded; a cursor counts only for the same feed.
    """
    previous: PreviousSession | None = None
    last_of = _last_session(log, shard)
    for session, event in events_backwards(log, shard):
        if not isinstance(event, Opened):
            continue
        ended = last_of if last_of and last_of.session == session else PreviousSession(session)
        previous = previous or ended
        if event.feed == feed:
            return ResumePoint(previous, (event.cursor or 0) + ended.messages)
        last_of = event.previous
    return ResumePoint(previous, 0)


def _last_session(log: LogReader, shard: int) -> PreviousSession | None:
    """The newest session of a shard with the numbers that are durable or refused."""
    newest: str | None = None
    counts: dict[Stream, int] = dict.fromkeys(COUNTED, 0)
    for session, event in events_backwards(log, shard):
        newest = newest or session
        if session != newest or isinstance(event, Opened):
            break
        if isinstance(event, Closed):
            _raise_to(counts, event.messages)
        elif isinstance(event, Gap) and event.seq_to is not None:
            _raise_to(counts, {event.stream: event.seq_to + 1})
    if newest is None:
        return None
    for stream in COUNTED:
        frame = _last_envelope(log, TopicPartition(stream, shard))
        if frame is not None and frame.ses == newest:
            _raise_to(counts, {stream: frame.seq + 1})
    trades, others = counts.pop(Stream.TRADES), sum(counts.values())
    return PreviousSession(newest, trades - 1 if trades else None, others)


def _raise_to(counts: dict[Stream, int], told: Mapping[str, int]) -> None:
    for stream, count in counts.items():
        counts[stream] = max(count, told.get(stream, 0))


def _last_envelope(log: LogReader, partition: TopicPartition) -> Envelope | None:
    end = log.bounds(partition).end
    batch = log.read(partition, end - 1) if end else None
    return decode_envelope(batch.values[-1]) if batch is not None and batch.values else None


def events_backwards(log: LogReader, shard: int) -> Iterator[tuple[str, SessionEvent]]:
    """Session events of a shard with their session's id, from the newest back."""
    partition = TopicPartition(Stream.SESSIONS, shard)
    bounds = log.bounds(partition)
    for offset in range(bounds.end - 1, bounds.begin - 1, -1):
        batch = log.read(partition, offset, bytes_max=1)
        envelope = decode_envelope(batch.values[0]) if batch is not None else None
        if envelope is not None:
            yield envelope.ses, decode_event(envelope.raw)


class OpenSession:
    """Numbers given out on one connection, one counter a stream."""

    def __init__(self, shard: int) -> None:
        self.id = new_session_id()
        self.shard = shard
        self.messages: dict[Stream, int] = {}
        self.shed = Shed()

    def take_numbers(self, stream: Stream, count: int) -> int:
        """Give out `count` message numbers; returns the first."""
        first = self.messages.get(stream, 0)
        self.messages[stream] = first + count
        return first

    def closed(self, at: int, reason: str) -> Closed:
        """The event that ends this session."""
        counts = {str(stream): n for stream, n in self.messages.items()}
        counts.pop(Stream.SESSIONS, None)
        return Closed(at, reason, counts)


def gap_of_refused(
    stream: Stream, seq: int, count: int, at: int, cause: str, symbols: Sequence[str] = ()
) -> Gap:
    """The gap that names refused message numbers `seq .. seq + count - 1`."""
    return Gap(at, stream, seq, seq + count - 1, at, at, list(symbols), cause)
