"""What a new connection has missed, found in what the log holds of the ones before."""

from typing import Final

import msgspec

from tickhouse.model.frame import Envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import Closed, Coverage, Opened, SessionEvent
from tickhouse.source.feed import History
from tickhouse.source.finnhub.messages import read_message
from tickhouse.telemetry import get_logger

EVENTS_MAX: Final = 10_000
"""Events looked at to find the last connection that delivered."""
KILLED: Final = "the recorder was killed"
STOPPED: Final = "the recorder was stopped"
MUTE: Final = "no trade of any symbol"
"""So begins the reason of a connection that was given up though its pings still came: what it
missed began after its last trade."""

_log = get_logger("record")


class Missed(msgspec.Struct, frozen=True):
    """What was missed since the last connection that delivered.

    Attributes:
        session: id of that connection's session.
        symbols: symbols it had subscribed to.
        time_from: its last durable receipt, UNIX nanoseconds UTC.
        cause: why it ended.
    """

    session: str
    symbols: frozenset[str]
    time_from: int
    cause: str


class _Found:
    """What the events of one session say, read from the newest back."""

    def __init__(self) -> None:
        self.closed: str | None = None
        self.symbols: set[str] = set()
        self.subscribed_at = 0

    def read(self, event: SessionEvent) -> None:
        if isinstance(event, Closed):
            self.closed = event.reason
        elif isinstance(event, Coverage) and event.channel == "socket":
            self.symbols.update(event.symbols)
            self.subscribed_at = event.at


def find_missed(history: History, shard: int, scheme: str) -> Missed | None:
    """What came to nobody since the shard's last connection of this kind of feed.

    Connections that never subscribed delivered nothing, so their time belongs to the gap. Call it
    before the new session's own events are durable.

    Args:
        history: what the log holds.
        shard: which connection.
        scheme: of the feed's address.
    """
    found, failed = _Found(), list[str]()
    for number, (session, event) in enumerate(history.events(shard)):
        if number >= EVENTS_MAX:
            _log.warning("missed_not_found", shard=shard, events=number)
            return None
        found.read(event)
        if not isinstance(event, Opened):
            continue
        if event.feed.startswith(f"{scheme}:"):
            if found.symbols:
                is_mute = (found.closed or "").startswith(MUTE)
                time_from = _last_receipt(history, shard, session, is_trade=is_mute)
                time_from = time_from or found.subscribed_at
                return Missed(session, frozenset(found.symbols), time_from, _cause(found, failed))
            failed.append(found.closed or KILLED)
        found = _Found()
    return None


def _last_receipt(history: History, shard: int, session: str, *, is_trade: bool) -> int | None:
    """Receipt of the session's last message, or of its last one with trades."""
    for envelope in history.frames(Stream.TRADES, shard):
        if envelope.ses != session:
            return None
        if not is_trade or _has_trades(envelope):
            return envelope.rx
    return None


def _has_trades(envelope: Envelope) -> bool:
    message = read_message(bytes(envelope.raw))
    return message is not None and bool(message.data)


def _cause(found: _Found, failed: list[str]) -> str:
    cause = found.closed or KILLED
    cause = STOPPED if cause == "stopped" else cause
    if not failed:
        return cause
    return f"{cause}; then {len(failed)} connections failed, the last: {failed[0]}"
