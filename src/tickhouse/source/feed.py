"""The interface of a feed: where frames come from."""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import msgspec

from tickhouse.model.frame import Envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import Coverage, Gap, Imported, Mode, Remote, SessionEvent


class Arrivals(msgspec.Struct, frozen=True):
    """Messages received together on one connection, exactly as delivered.

    Attributes:
        payloads: the messages, in order of receipt.
        received_at_ns: receipt, UNIX nanoseconds UTC.
        stream: the stream these messages belong to, by their origin.
        symbol: where the payload does not name its symbol (REST bodies).
        source: mode and payload kind (`Envelope.src`), where it is not the feed's own.
    """

    payloads: list[bytes]
    received_at_ns: int
    stream: Stream = Stream.TRADES
    symbol: str | None = None
    source: str | None = None


class Together(msgspec.Struct, frozen=True):
    """An event and the messages it speaks of: durable in one commit, or none of them is."""

    items: tuple[Arrivals | Imported, ...]


Delivery = Arrivals | Gap | Coverage | Remote | Together
"""What a connection yields: messages, and events of the session that only the feed knows."""


class History(Protocol):
    """What the log already holds, newest first: where a live feed finds what it has missed."""

    def frames(self, stream: Stream, shard: int) -> Iterator[Envelope]:
        """Durable frames of a shard, from the newest back; read batch by batch as consumed."""
        ...

    def events(self, shard: int) -> Iterator[tuple[str, SessionEvent]]:
        """Durable session events of a shard with their session's id, from the newest back."""
        ...


class Feed(Protocol):
    """A source of frames over one or more connections ("shards", numbered from 0).

    A symbol is on one shard at a time, so its order holds. Every connection is one session.

    Attributes:
        url: the feed's address without secrets, as shown and as recorded in `opened` events.
        source: mode and payload kind of its frames (`Envelope.src`), such as "sim:finnhub.ws".
        mode: live, replay or simulated.
        shards: number of connections.
        endless: whether it goes on until stopped.
        resumes: whether `connect` can go on at a cursor. A feed that cannot gets cursor 0.

    A connection whose iterator is not advanced holds back what it has: that costs a replay or a
    poller nothing (`waits`), and a socket what arrives meanwhile.
    """

    url: str
    source: str
    mode: Mode
    shards: int
    endless: bool
    resumes: bool

    def begin(self, history: History) -> None:
        """Told once, before the first connection: what the log holds."""
        ...

    def waits(self, shard: int) -> bool:
        """Whether a shard loses nothing while nobody takes what it has."""
        ...

    def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        """Open one connection and yield what it delivers.

        The iterator ends where the feed is drained.

        Args:
            shard: which connection.
            cursor: messages of this shard already durable; delivery goes on after them.

        Raises:
            FeedClosedError: the feed ended the connection; the recorder closes the session and
                connects again after `retry_after_s`.
            ConfigError: the feed refuses for good (bad key, unknown file).
        """
        ...

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Told after each commit: the shard's messages below `cursor` are durable."""
        ...

    def close(self) -> None:
        """Told once when recording ends in an orderly way."""
        ...
