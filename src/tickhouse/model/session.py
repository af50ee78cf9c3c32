"""Session events: what happened to a connection, carried on the same road as its frames.

A session is one connection of one shard of a feed. Its id is random. Events are frames of our own
(`src` = "tickhouse") in the stream `sessions`; gaps are data.
"""

from typing import Literal

import msgspec

SESSION_SOURCE = "tickhouse"

Mode = Literal["live", "replay", "simulated"]


class PreviousSession(msgspec.Struct, frozen=True):
    """The shard's session before this one, and its last durable message number, if any."""

    session: str
    seq: int | None


class Opened(msgspec.Struct, frozen=True, tag_field="event", tag="opened"):
    """A connection was opened.

    Attributes:
        at: UNIX nanoseconds UTC.
        shard: which connection of the feed; equals the log partition.
        feed: the feed's URL without secrets.
        mode: live, replay or simulated: what a reader must be told.
        cursor: messages of this shard that the feed delivered durably before this session; a
            message's own cursor is this plus its number. None where a feed cannot resume.
        previous: the session before this one on the same shard.
    """

    at: int
    shard: int
    feed: str
    mode: Mode
    cursor: int | None
    previous: PreviousSession | None


class Closed(msgspec.Struct, frozen=True, tag_field="event", tag="closed"):
    """A connection ended in an orderly way.

    Attributes:
        at: UNIX nanoseconds UTC.
        reason: "stopped", "drained" or what the feed said.
        messages: message numbers given out, per stream (refused frames included).
    """

    at: int
    reason: str
    messages: dict[str, int]


class Gap(msgspec.Struct, frozen=True, tag_field="event", tag="gap"):
    """Messages that the feed had and the log has not.

    Attributes:
        at: UNIX nanoseconds UTC of the record.
        stream: stream of the missing messages.
        seq_from, seq_to: refused message numbers, both inclusive; None where no number was given
            because nothing was received.
        time_from, time_to: UNIX nanoseconds UTC of the silence or refusal.
        symbols: symbols concerned; empty = all of the connection.
        cause: why, in words ("frame of 2097152 bytes is over the limit", "disk full", …).
        filled_by: what filled the gap afterwards, if anything did.
    """

    at: int
    stream: str
    seq_from: int | None
    seq_to: int | None
    time_from: int
    time_to: int
    symbols: list[str]
    cause: str
    filled_by: str | None = None


SessionEvent = Opened | Closed | Gap

_event_decoder = msgspec.json.Decoder(SessionEvent)


def decode_event(payload: bytes | msgspec.Raw) -> SessionEvent:
    """Parse the payload of a session frame.

    Raises:
        msgspec.ValidationError: not a session event; the message names the field.
    """
    return _event_decoder.decode(payload)
