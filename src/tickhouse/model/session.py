"""Session events: what happened to a connection, carried on the same road as its frames.

A session is one connection of one shard of a feed. Its id is random. Events are frames of our own
(`src` = "tickhouse") in the stream `sessions`; gaps are data.
"""

from typing import Literal

import msgspec

from tickhouse.model.frame import encode_frames

SESSION_SOURCE = "tickhouse"

Mode = Literal["live", "replay", "simulated"]


class PreviousSession(msgspec.Struct, frozen=True):
    """The shard's session before this one, and what is durable of it (or was refused, and said so).

    Attributes:
        session: its id.
        seq: its last message number in the stream trades, if any.
        others: how many numbers it gave in the other streams, its own events apart.
    """

    session: str
    seq: int | None = None
    others: int = 0

    @property
    def messages(self) -> int:
        """Messages of the feed that are done with: a cursor moves on by so many."""
        return self.others + (0 if self.seq is None else self.seq + 1)


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
    """Messages that the feed had and the log has not, or (`filled_by`) has since.

    Attributes:
        at: UNIX nanoseconds UTC of the record.
        stream: stream of the missing messages.
        seq_from, seq_to: refused message numbers, both inclusive; None where no number was given
            because nothing was received.
        time_from, time_to: UNIX nanoseconds UTC of the silence or refusal.
        symbols: symbols concerned; empty = all of the connection.
        cause: why, in words ("frame of 2097152 bytes is over the limit", "disk full", …).
        filled_by: what filled the gap afterwards, if anything did.
        name: the gap's name where the feed found it (seq_from is None): a later event of the same
            name tells more of the same gap, such as what filled it.
        id_from, id_to: trade ids that are missing, both inclusive, where the feed numbers trades.
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
    name: str | None = None
    id_from: int | None = None
    id_to: int | None = None


class Remote(msgspec.Struct, frozen=True, tag_field="event", tag="remote"):
    """What the server said of the connection itself.

    Attributes:
        at: UNIX nanoseconds UTC.
        ray: the server's own name of the connection (header `CF-Ray`), for questions to it.
        clock_offset_ms: the server's clock (header `Date`, whole seconds) less ours; None = unsaid.
    """

    at: int
    ray: str | None = None
    clock_offset_ms: int | None = None


Channel = Literal["socket", "polling", "none"]


class Coverage(msgspec.Struct, frozen=True, tag_field="event", tag="coverage"):
    """From now on these symbols come this way.

    Attributes:
        at: UNIX nanoseconds UTC.
        channel: socket (trades as they happen), polling (quotes now and then) or none.
        symbols: as the feed writes them.
        reason: why, in words ("subscribed", "beyond the plan's 50", "silent for 900 s", …).
        every_s: achieved seconds between two quotes of a symbol, where polled.
    """

    at: int
    channel: Channel
    symbols: list[str]
    reason: str
    every_s: float | None = None


class ImportedObject(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An object of a foreign lake; a JSON array, since an event names many.

    Attributes:
        key: in its place.
        size: bytes, as stored there.
        modified: when it was written there, UNIX nanoseconds UTC: the nearest to a receipt that
            such a lake knows.
        trades, quotes: frames it became, one a message.
    """

    key: str
    size: int
    modified: int
    trades: int
    quotes: int


class Imported(msgspec.Struct, frozen=True, tag_field="event", tag="imported"):
    """Objects of a foreign lake whose frames are in the log, in the same commit as this.

    Attributes:
        at: UNIX nanoseconds UTC.
        place: what their keys count in: a bucket, or the machine's folders.
        first: number of their first message in this session, by stream; the others follow densely,
            object by object.
        bytes: payloads of all of them, by stream.
        objects: in order of key.
    """

    at: int
    place: str
    first: dict[str, int]
    bytes: dict[str, int]
    objects: list[ImportedObject]


SessionEvent = Opened | Closed | Gap | Remote | Coverage | Imported

_event_decoder = msgspec.json.Decoder(SessionEvent)


def encode_event(event: SessionEvent, *, session: str, seq: int) -> bytes:
    """The frame of a session event, a record of the stream `sessions`.

    Args:
        event: what happened; its `at` is the time of receipt.
        session: id of the session that tells it.
        seq: its number among that session's messages.
    """
    frames = encode_frames(
        [msgspec.json.encode(event)],
        source=SESSION_SOURCE,
        session=session,
        first_seq=seq,
        received_at_ns=event.at,
    )
    return frames[0]


def decode_event(payload: bytes | msgspec.Raw) -> SessionEvent:
    """Parse the payload of a session frame.

    Raises:
        msgspec.ValidationError: not a session event; the message names the field.
    """
    return _event_decoder.decode(payload)
