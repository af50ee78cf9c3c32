"""What is known of the feed: mode, address, connections, coverage, clock and gaps.

Taken from the session events in the log, which say it before the first trade does.
"""

from typing import Any, Final

import msgspec

from tickhouse.dashboard.gaps import GapBook
from tickhouse.model.calendar import is_always_open
from tickhouse.model.frame import decode_envelope
from tickhouse.model.session import (
    SESSION_SOURCE,
    Channel,
    Closed,
    Coverage,
    Gap,
    Mode,
    Opened,
    Remote,
    decode_event,
)

BADGES: dict[str, str] = {"simulated": "SIMULATED", "replay": "REPLAY", "live": "LIVE"}
ROLES: Final = {
    "finnhub": ("socket", "poller", "filler"),
    "finnhub+rest": ("poller",),
    "binance": ("socket", "filler"),
}
"""What each shard of a feed does, by the scheme of its address; others have streams alone."""
ENDED: Final = frozenset({"stopped", "drained"})
"""Reasons of closing after which the recorder does not connect again by itself."""
COVERED_MAX: Final = 20_000
ACHIEVED: Final = "achieved"
"""The reason of a coverage event that tells no more than how often symbols are polled."""
CLOCK_OFFSET_MS: Final = 2_000
"""A server's clock that is further off than this is worth saying; its header has whole seconds."""
_PREFIXES: dict[str, Mode] = {"sim": "simulated", "replay": "replay", "import": "replay"}


class Link(msgspec.Struct):
    """The newest connection of a shard; times are UNIX nanoseconds UTC.

    Attributes:
        session: its id.
        feed: address of the feed.
        mode: of the feed.
        opened_at: when it was opened.
        closed: why it was closed; None while it is open.
        clock_offset_ms: the server's clock less ours, as the server said.
    """

    session: str
    feed: str
    mode: Mode
    opened_at: int
    closed: str | None = None
    clock_offset_ms: int | None = None


class Covered(msgspec.Struct, frozen=True):
    """How a symbol comes.

    Attributes:
        channel: socket, polling or none.
        reason: why, in words.
        every_s: achieved seconds between two quotes, where polled and known.
        at: since when, UNIX nanoseconds UTC.
        feed: address of the feed that said so.
    """

    channel: Channel
    reason: str
    every_s: float | None
    at: int
    feed: str


class FeedState:
    """Follows the session events of all shards. One thread takes; any may read."""

    def __init__(self) -> None:
        self.mode: Mode | None = None
        self.url: str | None = None
        self.gaps = GapBook()
        self.coverage_told = 0
        self._links: dict[int, Link] = {}
        self._covered: dict[str, Covered] = {}

    @property
    def badge(self) -> str:
        """What a viewer must be told about the data; "" while nothing is known."""
        return BADGES.get(self.mode or "", "")

    @property
    def is_live(self) -> bool:
        """Whether stamps are the wall clock's and the exchange's calendar applies."""
        return self.mode == "live"

    def take(self, value: bytes, shard: int = 0) -> None:
        """Take a record of the stream `sessions`; what is not an event is passed over."""
        envelope = decode_envelope(value)
        if envelope is None or envelope.src != SESSION_SOURCE:
            return
        try:
            event = decode_event(envelope.raw)
        except msgspec.DecodeError:
            return
        link = self._links.get(shard)
        is_current = link is not None and link.session == envelope.ses
        match event:
            case Opened():
                self._open(envelope.ses, event)
            case Closed() if link is not None and is_current:
                link.closed = event.reason
            case Remote() if link is not None and is_current:
                if event.clock_offset_ms is not None:
                    link.clock_offset_ms = event.clock_offset_ms
            case Coverage():
                self._cover(event, link.feed if link is not None else "")
            case Gap():
                feed = link.feed if link is not None else ""
                self.gaps.take(event, session=envelope.ses, seq=envelope.seq, feed=feed)
            case _:
                pass

    def take_source(self, source: str) -> None:
        """Learn the mode from a trade frame's source, where no session event told it."""
        if self.mode is None:
            prefix, colon, _ = source.partition(":")
            self.mode = _PREFIXES.get(prefix, "live") if colon else "live"

    def _open(self, session: str, event: Opened) -> None:
        self._links[event.shard] = Link(session, event.feed, event.mode, event.at)
        newest = max(self._links.values(), key=lambda link: link.opened_at)
        self.mode, self.url = newest.mode, newest.feed

    # -- connections --------------------------------------------------------------------------

    def _current(self) -> dict[int, Link]:
        """Newest connection of each shard of the feed that was opened last."""
        links = sorted(self._links.items())
        return {shard: link for shard, link in links if link.feed == self.url}

    def _role(self, shard: int) -> str:
        roles = ROLES.get((self.url or "").partition(":")[0], ())
        return roles[shard] if shard < len(roles) else "stream"

    def links(self) -> list[dict[str, Any]]:
        """Connections of the feed, each with its role and why it is closed, if it is."""
        return [
            {"role": self._role(shard), "is_open": link.closed is None, "closed": link.closed}
            for shard, link in self._current().items()
        ]

    @property
    def connections(self) -> int:
        """Open connections that bring what happens now: fillers of gaps do not count."""
        links = self.links()
        return sum(bool(link["is_open"]) for link in links if link["role"] != "filler")

    @property
    def closed_reason(self) -> str | None:
        """Why the feed brings nothing; None while a connection is open."""
        reasons = [link.closed for link in self._current().values()]
        if self.connections or not reasons:
            return None
        return next((reason for reason in reasons if reason not in ENDED), reasons[0])

    @property
    def has_ended(self) -> bool:
        """The feed was stopped or is at its end; else a lost connection comes back by itself."""
        return self.closed_reason in ENDED

    @property
    def lost(self) -> str | None:
        """Why the connection that brings trades (or the only one) is not open, if it is not."""
        for shard, link in self._current().items():
            if self._role(shard) in {"socket", "stream"} and link.closed not in {None, *ENDED}:
                return link.closed
        return self.closed_reason if not self.has_ended else None

    @property
    def clock_offset_ms(self) -> int | None:
        """The server's clock less ours where they differ noticeably, else None."""
        offsets = [link.clock_offset_ms or 0 for link in self._current().values()]
        furthest = max(offsets, key=abs, default=0)
        return furthest if abs(furthest) > CLOCK_OFFSET_MS else None

    # -- coverage -----------------------------------------------------------------------------

    def _cover(self, event: Coverage, feed: str) -> None:
        self.coverage_told += 1
        for symbol in event.symbols:
            known = self._covered.get(symbol)
            if known is None and len(self._covered) >= COVERED_MAX:
                continue
            if known is not None and known.at > event.at and known.feed == feed:
                continue
            reason = event.reason
            if known is not None and reason == ACHIEVED and known.channel == event.channel:
                reason = known.reason
            self._covered[symbol] = Covered(event.channel, reason, event.every_s, event.at, feed)

    def covered(self, symbol: str) -> Covered | None:
        """How a symbol comes; None where the feed under way does not say."""
        known = self._covered.get(symbol)
        return known if known is not None and known.feed in {"", self.url} else None

    def markets(self) -> tuple[bool, bool]:
        """Whether the feed has symbols of the exchange, and some that trade around the clock."""
        mine = {"", self.url}
        always = {is_always_open(s) for s, known in self._covered.items() if known.feed in mine}
        if always:
            return False in always, True in always
        scheme, _, symbols = (self.url or "").partition("://")
        return scheme != "binance", scheme == "binance" or ":" in symbols

    def coverage(self) -> dict[str, Any] | None:
        """How many symbols come which way; None where the feed does not say."""
        mine = [known for known in self._covered.values() if known.feed in {"", self.url}]
        if not mine:
            return None
        polled = [known for known in mine if known.channel == "polling"]
        cadences = sorted(known.every_s for known in polled if known.every_s is not None)
        return {
            "socket": sum(known.channel == "socket" for known in mine),
            "polling": len(polled),
            "none": sum(known.channel == "none" for known in mine),
            "silent": sum(known.reason.startswith("silent") for known in polled),
            "every_s": cadences[len(cadences) // 2] if cadences else None,
        }

    def facts(self, now_ms: int) -> dict[str, Any]:
        """What every viewer is told of the feed."""
        return {
            "badge": self.badge,
            "feed": self.url,
            "connections": self.connections,
            "links": self.links(),
            "closed": self.closed_reason,
            "ended": self.has_ended,
            "lost": self.lost,
            "clock_offset_ms": self.clock_offset_ms,
            "coverage": self.coverage(),
            **self.gaps.summary(now_ms),
        }
