"""A shard's session while it is recorded, and how the next one finds where the last one ended."""

import os
import time
import uuid
from collections.abc import Iterator, Sequence

import msgspec

from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Gap, Opened, PreviousSession, SessionEvent, decode_event
from tickhouse.stream.log import LogReader
from tickhouse.stream.shedding import Shed


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
    ended = _last_session(log, shard)
    last_of: PreviousSession | None = ended
    for session, event in events_backwards(log, shard):
        if not isinstance(event, Opened):
            continue
        last = last_of.seq if last_of is not None and last_of.session == session else None
        previous = previous or PreviousSession(session, last)
        if event.feed == feed:
            delivered = 0 if last is None else last + 1
            return ResumePoint(previous, (event.cursor or 0) + delivered)
        last_of = event.previous
    return ResumePoint(previous, 0)


def _last_session(log: LogReader, shard: int) -> PreviousSession | None:
    """The newest session of a shard with its highest durable or refused message number."""
    newest: str | None = None
    highest = -1
    for session, event in events_backwards(log, shard):
        newest = newest or session
        if session != newest or isinstance(event, Opened):
            break
        if isinstance(event, Closed):
            highest = max(highest, event.messages.get(Stream.TRADES, 0) - 1)
        elif isinstance(event, Gap) and event.stream == Stream.TRADES and event.seq_to is not None:
            highest = max(highest, event.seq_to)
    if newest is None:
        return None
    frame = _last_envelope(log, TopicPartition(Stream.TRADES, shard))
    if frame is not None and frame.ses == newest:
        highest = max(highest, frame.seq)
    return PreviousSession(newest, highest if highest >= 0 else None)


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
