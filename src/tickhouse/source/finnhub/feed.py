"""Finnhub as a feed: trades over the socket, quotes by polling, gaps filled where the plan may."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from tickhouse.clock import Clock
from tickhouse.model.calendar import new_york
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Delivery, History
from tickhouse.source.finnhub.address import Watch, by_liquidity, read_address
from tickhouse.source.finnhub.budget import Budget
from tickhouse.source.finnhub.connection import check_address
from tickhouse.source.finnhub.coverage import CoverageBoard
from tickhouse.source.finnhub.filler import FinnhubFiller
from tickhouse.source.finnhub.missed import find_missed
from tickhouse.source.finnhub.poller import FinnhubPoller
from tickhouse.source.finnhub.rest import RestClient, check_token
from tickhouse.source.finnhub.socket import FinnhubSocket
from tickhouse.source.options import FinnhubOptions

SCHEME: Final = "finnhub"
REST_SCHEME: Final = "finnhub+rest"
SOCKET: Final = 0
POLLER: Final = 1
FILLER: Final = 2


class FinnhubFeed:
    """Trades (shard 0), quotes and reference (shard 1), filled gaps (shard 2, if the plan may).

    Args:
        watch: what to watch.
        options: key, plan and addresses.
        clock: of receipts, waits and time-outs.
    """

    def __init__(self, watch: Watch, options: FinnhubOptions, *, clock: Clock) -> None:
        self.url = watch.url
        self.source = "finnhub.ws"
        self.mode: Mode = "live"
        self.shards = 1
        if watch.polls:
            self.shards = POLLER + 1
        if options.can_fetch_ticks:
            self.shards = FILLER + 1
        self.endless = True
        self.resumes = False
        self._polls = watch.polls
        self._history: History | None = None
        calendar = new_york()
        budget = Budget(options.calls_per_minute, clock=clock)

        def rest() -> RestClient:
            return RestClient(options, clock=clock, budget=budget)

        self._board = CoverageBoard(
            by_liquidity(watch.symbols),
            socket_max=options.symbols_max,
            polls=watch.polls,
            clock=clock,
            calendar=calendar,
        )
        self._filler = FinnhubFiller(rest, clock=clock, calendar=calendar)
        self._socket = FinnhubSocket(
            options,
            self._board,
            filler=self._filler if options.can_fetch_ticks else None,
            clock=clock,
        )
        self._poller = FinnhubPoller(rest, self._board, clock=clock, calendar=calendar)

    def begin(self, history: History) -> None:
        """See `Feed.begin`."""
        self._history = history

    def waits(self, shard: int) -> bool:
        """See `Feed.waits`."""
        return shard != SOCKET

    def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        """See `Feed.connect`; there is no cursor.

        What the log holds is read here and now, before it holds the new session.
        """
        del cursor
        history = self._history
        if shard == SOCKET:
            if not self._board.socket:
                return _nothing()
            missed = None if history is None else find_missed(history, SOCKET, SCHEME)
            return self._socket.deliver(missed)
        if shard == POLLER:
            return self._poller.deliver() if self._polls else _nothing()
        if history is not None:
            self._filler.read(history, told=SOCKET, own=FILLER)
        return self._filler.deliver()

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing follows from it: what was missed is found in the log."""

    def close(self) -> None:
        """Connections are closed by whoever iterates over them."""


class FinnhubRestFeed:
    """Quotes and reference by polling alone (shard 0).

    Args:
        watch: what to watch.
        options: key, plan and addresses.
        clock: of receipts, waits and time-outs.
    """

    def __init__(self, watch: Watch, options: FinnhubOptions, *, clock: Clock) -> None:
        self.url = watch.url
        self.source = "finnhub.quote"
        self.mode: Mode = "live"
        self.shards = 1
        self.endless = True
        self.resumes = False
        calendar = new_york()
        board = CoverageBoard(
            list(watch.symbols), socket_max=0, polls=True, clock=clock, calendar=calendar
        )
        budget = Budget(options.calls_per_minute, clock=clock)
        self._poller = FinnhubPoller(
            lambda: RestClient(options, clock=clock, budget=budget),
            board,
            clock=clock,
            calendar=calendar,
        )

    def begin(self, history: History) -> None:
        """Every poll stands for itself."""

    def waits(self, shard: int) -> bool:  # noqa: ARG002 - one shard
        """A poll that is not made loses nothing that is here already."""
        return True

    def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        """See `Feed.connect`; there is no cursor."""
        del shard, cursor
        return self._poller.deliver()

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing follows from it."""

    def close(self) -> None:
        """Connections are closed by whoever iterates over them."""


def open_finnhub(rest: str, options: FinnhubOptions, *, clock: Clock) -> FinnhubFeed:
    """The feed of `finnhub://<rest>`.

    Raises:
        ConfigError: no key, no symbol, a malformed one, or an address that is not one.
    """
    watch = read_address(SCHEME, rest)
    check_token(options)
    check_address(options)
    return FinnhubFeed(watch, options, clock=clock)


def open_finnhub_rest(rest: str, options: FinnhubOptions, *, clock: Clock) -> FinnhubRestFeed:
    """The feed of `finnhub+rest://<rest>`.

    Raises:
        ConfigError: no key, no symbol, a malformed one, or an address that is not one.
    """
    watch = read_address(REST_SCHEME, rest)
    check_token(options)
    return FinnhubRestFeed(watch, options, clock=clock)


async def _nothing() -> AsyncGenerator[Delivery]:
    for item in ():
        yield item
