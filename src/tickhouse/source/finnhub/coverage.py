"""Which symbol comes which way: on the socket, by polling, or not at all; told as it changes."""

from collections.abc import Iterable
from typing import Final

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.model.calendar import Calendar, MarketState, is_always_open
from tickhouse.model.session import Channel, Coverage

SILENT_S: Final = 900.0
"""A symbol on the socket without a trade for so long, while its market is open, is polled."""
REVIEW_S: Final = 30.0
"""Time between two reviews, and so how exactly it is known when a symbol traded last."""
LATELY_S: Final = 120.0
DOWN_S: Final = 60.0
"""Without a connection for so long, everything is polled until there is one."""
CROWD: Final = 5
"""So many symbols of one market silent together say that the feed is silent, or the market."""


class CoverageBoard:
    """Socket and poller share it: the one takes symbols off and on, the other asks for the rest.

    Args:
        symbols: all, most liquid first.
        socket_max: the first so many are on the socket.
        polls: whether the others are polled; else they do not come at all.
        clock: of silences.
        calendar: when the exchange trades.

    Attributes:
        socket: symbols subscribed, or to be, in this order.
        beyond: symbols that the socket does not take.
        quiet: symbols on the socket that are polled meanwhile, as they do not trade there.
        unseen: symbols on the socket without a trade since the last review.
    """

    def __init__(
        self,
        symbols: list[str],
        *,
        socket_max: int,
        polls: bool,
        clock: Clock,
        calendar: Calendar,
    ) -> None:
        self.socket = symbols[:socket_max]
        self.beyond = symbols[socket_max:]
        self.quiet: set[str] = set()
        self.unseen: set[str] = set()
        self._polls = polls
        self._clock = clock
        self._calendar = calendar
        self._subscribed_at = 0.0
        self._lost_at: float | None = clock.monotonic()
        self._outage_told = False
        self._traded_at: dict[str, float] = {}

    # -- for the socket -----------------------------------------------------------------------

    @property
    def is_expecting(self) -> bool:
        """Whether something on the socket may trade now, extended hours included."""
        is_open = self._calendar.is_open(self._clock.time_ns())
        return any(is_open or is_always_open(symbol) for symbol in self.socket)

    def subscribed(self) -> list[Coverage]:
        """A new connection has subscribed to all of `socket`."""
        self.quiet.clear()
        self.unseen = set(self.socket)
        self._traded_at.clear()
        self._lost_at, self._outage_told = None, False
        self._subscribed_at = self._clock.monotonic()
        told = [self._told("socket", self.socket, "subscribed")] if self.socket else []
        if self.beyond and not self._polls:
            told.append(self._told("none", self.beyond, self.beyond_reason))
        return told

    def lost(self) -> None:
        """The connection has ended."""
        self._lost_at = self._clock.monotonic()

    @property
    def beyond_reason(self) -> str:
        """Why some are not on the socket."""
        if not self.socket:
            return "polled only"
        return f"beyond the socket's {len(self.socket)}"

    def refuse_last(self) -> tuple[str, Coverage] | None:
        """The server refused a symbol without naming it: the last one goes, and does not return."""
        if not self.socket:
            return None
        symbol = self.socket.pop()
        self.quiet.discard(symbol)
        self.unseen.discard(symbol)
        self.beyond.insert(0, symbol)
        reason = f"the socket refused more than {len(self.socket)} symbols"
        return symbol, self._told("polling" if self._polls else "none", [symbol], reason)

    def traded(self, symbols: Iterable[str]) -> Coverage | None:
        """Symbols have traded on the socket; tells those that do so again."""
        now = self._clock.monotonic()
        for symbol in self.unseen.intersection(symbols):
            self._traded_at[symbol] = now
            self.unseen.discard(symbol)
        back = sorted(self.quiet.intersection(symbols))
        self.quiet.difference_update(back)
        return self._told("socket", back, "trades again") if back else None

    def review(self) -> Coverage | None:
        """Symbols that have been silent for too long are polled from now on."""
        self.unseen = set(self.socket)
        if not self._polls:
            return None
        fallen = [
            symbol
            for symbol in self.socket
            if symbol not in self.quiet
            and self._silent_s(symbol) > SILENT_S
            and self._peers_trade(symbol)
        ]
        self.quiet.update(fallen)
        return self._told("polling", fallen, f"silent for {SILENT_S:g} s") if fallen else None

    def mute_s(self, silence_s: float) -> float | None:
        """Seconds for which a whole market, and not a few symbols, has been silent while open.

        None while that is nothing to act on: until `silence_s` (and the time between two reviews)
        where several symbols traded on this connection, longer where none ever did.
        """
        markets = [
            [symbol for symbol in self.socket if is_always_open(symbol) == always]
            for always in (False, True)
        ]
        for symbols in markets:
            quiet_s = min((self._silent_s(symbol) for symbol in symbols), default=0.0)
            traded = sum(symbol in self._traded_at for symbol in symbols)
            enough_s = silence_s + REVIEW_S if traded >= CROWD else SILENT_S
            if len(symbols) >= CROWD and quiet_s > enough_s:
                return quiet_s
        return None

    def _silent_s(self, symbol: str) -> float:
        """Seconds without a trade of it, as far as its market was open."""
        heard_at = max(self._traded_at.get(symbol, 0.0), self._subscribed_at)
        quiet_s = self._clock.monotonic() - heard_at
        return min(quiet_s, self._trading_s(symbol))

    def _trading_s(self, symbol: str) -> float:
        """For how long the symbol's market has been open; regular hours only."""
        if is_always_open(symbol):
            return float("inf")
        now = self._clock.time_ns()
        session = self._calendar.latest(now)
        if session is None or session.state(now) is not MarketState.REGULAR:
            return 0.0
        return (now - session.open_ns) / NANOS_PER_S

    def _peers_trade(self, symbol: str) -> bool:
        """Whether others of its market trade; too few to tell count as trading."""
        market = is_always_open(symbol)
        peers = [other for other in self.socket if is_always_open(other) == market]
        if len(peers) < CROWD:
            return True
        since = self._clock.monotonic() - LATELY_S
        return any(self._traded_at.get(other, since) > since for other in peers)

    # -- for the poller -----------------------------------------------------------------------

    @property
    def _is_down(self) -> bool:
        return self._lost_at is not None and self._clock.monotonic() - self._lost_at > DOWN_S

    @property
    def polled(self) -> list[str]:
        """Symbols that only come by polling now."""
        down = self._is_down
        return [*self.beyond, *(s for s in self.socket if down or s in self.quiet)]

    @property
    def beside(self) -> list[str]:
        """Symbols that the socket covers."""
        return [] if self._is_down else [s for s in self.socket if s not in self.quiet]

    def outage(self) -> Coverage | None:
        """The socket has been down for too long; told once an outage."""
        if self._outage_told or not self._is_down or not self.socket:
            return None
        self._outage_told = True
        return self._told("polling", self.socket, "the socket is down")

    def polling(self) -> list[Coverage]:
        """Polling begins: what is not on the socket comes so."""
        return [self._told("polling", self.beyond, self.beyond_reason)] if self.beyond else []

    def achieved(self, symbols: list[str], every_s: float) -> Coverage:
        """Polled symbols have come every so many seconds."""
        return self._told("polling", symbols, "achieved", every_s)

    def without(self, symbols: list[str], reason: str) -> Coverage:
        """Symbols do not come any more."""
        return self._told("none", symbols, reason)

    def _told(
        self, channel: Channel, symbols: list[str], reason: str, every_s: float | None = None
    ) -> Coverage:
        return Coverage(self._clock.time_ns(), channel, list(symbols), reason, every_s)
