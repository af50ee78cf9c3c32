"""What is known of the feed: its mode, its address, whether it is connected, its last gap.

Taken from the session events in the log, which say it before the first trade does.
"""

import msgspec

from tickhouse.model.frame import decode_envelope
from tickhouse.model.session import SESSION_SOURCE, Closed, Gap, Mode, Opened, decode_event

BADGES: dict[str, str] = {"simulated": "SIMULATED", "replay": "REPLAY", "live": "LIVE"}
_PREFIXES: dict[str, Mode] = {"sim": "simulated", "replay": "replay"}


class FeedState:
    """Follows the session events of all shards."""

    def __init__(self) -> None:
        self.mode: Mode | None = None
        self.url: str | None = None
        self.closed_reason: str | None = None
        self.gaps = 0
        self.last_gap: str | None = None
        self._open: dict[int, str] = {}
        self._shard_of: dict[str, int] = {}

    @property
    def badge(self) -> str:
        """What a viewer must be told about the data; "" while nothing is known."""
        return BADGES.get(self.mode or "", "")

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    def take(self, value: bytes) -> None:
        """Take a record of the stream `sessions`; what is not an event is passed over."""
        envelope = decode_envelope(value)
        if envelope is None or envelope.src != SESSION_SOURCE:
            return
        try:
            event = decode_event(envelope.raw)
        except msgspec.DecodeError:
            return
        match event:
            case Opened():
                self.mode, self.url, self.closed_reason = event.mode, event.feed, None
                self._open[event.shard] = envelope.ses
                self._shard_of[envelope.ses] = event.shard
            case Closed():
                shard = self._shard_of.pop(envelope.ses, None)
                if shard is not None and self._open.get(shard) == envelope.ses:
                    del self._open[shard]
                    self.closed_reason = event.reason
            case Gap():
                self.gaps += 1
                self.last_gap = event.cause
            case _:
                pass

    def take_source(self, source: str) -> None:
        """Learn the mode from a trade frame's source, where no session event told it."""
        if self.mode is None:
            prefix, colon, _ = source.partition(":")
            self.mode = _PREFIXES.get(prefix, "live") if colon else "live"
