"""The interface of a feed: where frames come from."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap, Mode


class Arrivals(msgspec.Struct, frozen=True):
    """Messages received together on one connection, exactly as delivered.

    Attributes:
        payloads: the messages, in order of receipt.
        received_at_ns: receipt, UNIX nanoseconds UTC.
        stream: the stream these messages belong to, by their origin.
        symbol: where the payload does not name its symbol (REST bodies).
    """

    payloads: list[bytes]
    received_at_ns: int
    stream: Stream = Stream.TRADES
    symbol: str | None = None


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
    """

    url: str
    source: str
    mode: Mode
    shards: int
    endless: bool
    resumes: bool

    def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals | Gap]:
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
