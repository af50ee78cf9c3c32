"""The double's own record: what it sent on each connection, and what nobody got."""

from dataclasses import dataclass, field


@dataclass
class Sent:
    """One connection.

    Attributes:
        ray: its name, as told in the header `CF-Ray`.
        messages: everything sent, in order: the bytes of each message.
        due_ns: when each was due, UNIX nanoseconds.
        oversized: places in `messages` of those over 1 MiB.
        symbols: what it was subscribed to last.
    """

    ray: str
    messages: list[bytes] = field(default_factory=list)
    due_ns: list[int] = field(default_factory=list)
    oversized: list[int] = field(default_factory=list)
    symbols: set[str] = field(default_factory=set)


@dataclass
class Outage:
    """A time in which a client that had subscribed got nothing.

    Attributes:
        ray: the connection before it.
        cause: the fault.
        frames: (due time, UNIX ns; payload) of each frame that came to nobody.
    """

    ray: str
    cause: str
    frames: list[tuple[int, bytes]] = field(default_factory=list)


class Record:
    """All connections and all outages."""

    def __init__(self) -> None:
        self.connections: dict[str, Sent] = {}
        self.outages: list[Outage] = []
        self._outage: Outage | None = None

    def connected(self, ray: str) -> Sent:
        """A connection was opened."""
        sent = self.connections[ray] = Sent(ray)
        return sent

    def undelivered(self, sent: Sent, cause: str, due_ns: int, payload: bytes) -> None:
        """A frame that the last subscriber would have had."""
        if self._outage is None:
            self._outage = Outage(sent.ray, cause)
            self.outages.append(self._outage)
        self._outage.frames.append((due_ns, payload))

    def delivered(self) -> None:
        """Frames arrive again: an outage, if there was one, is over."""
        self._outage = None
