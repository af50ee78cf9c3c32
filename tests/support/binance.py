"""A recorded Binance, a recorder that listens to it, and what the log then holds of each id."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Self

from servers.binance import BinanceServer
from tickhouse.clock import ScaledClock
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap, SessionEvent
from tickhouse.source.binance import BinanceFeed, open_binance
from tickhouse.source.binance.ids import read_filled_ids, read_trade_id
from tickhouse.source.options import BinanceOptions
from tickhouse.stream.history import LogHistory
from tickhouse.stream.log import LogReader
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

PAIRS = "btcusdt,ethusdt"
PATIENT = f"{PAIRS}?silence=1000000"
"""A fast clock and a busy machine make long silences."""
SPEED = 10.0
"""The feed's clock, so that backoff and pacing of seconds pass in milliseconds."""
WAIT_S = 60.0


Script = Callable[[BinanceServer, BinanceFeed, SqliteLog], Awaitable[None]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fails after a while."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def feed_of(server: BinanceServer, rest: str = PATIENT, *, speed: float = SPEED) -> BinanceFeed:
    """The feed under test, listening to a server."""
    options = BinanceOptions(server.ws_url, server.rest_url)
    return open_binance(rest, options, clock=ScaledClock(speed))


@asynccontextmanager
async def recording(feed: BinanceFeed, log: SqliteLog) -> AsyncIterator[asyncio.Task[None]]:
    """Record until the block ends, then stop in an orderly way."""
    stop = asyncio.Event()
    recorder = Recorder(feed, log, commit_ms=2, clock=feed._clock)
    task = asyncio.create_task(recorder.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await task


def run(log: SqliteLog, *scripts: Script, between: int = 0, rest: str = PATIENT) -> BinanceServer:
    """One server; a recorder a script, one after another, each from the log alone.

    Args:
        log: where everything goes.
        scripts: what happens while a recorder runs.
        between: messages that happen while none runs.
        rest: the feed's address.
    """

    async def play() -> BinanceServer:
        async with BinanceServer() as server:
            for number, script in enumerate(scripts):
                await server.emit(between if number else 0)
                feed = feed_of(server, rest)
                async with recording(feed, log):
                    await server.connected()
                    await script(server, feed, log)
            return server

    return asyncio.run(play())


async def emit(server: BinanceServer, feed: BinanceFeed | None, log: SqliteLog) -> None:
    await server.emit(200)
    await recorded(server, log)


async def recorded(server: BinanceServer, log: LogReader) -> None:
    """Wait until everything that the server sent is in the log."""
    await until(lambda: sum(map(len, server.sent.values())) <= sum(ids_on_socket(log).values()))


async def settled(feed: BinanceFeed) -> None:
    """Wait until no gap is being filled: none is open, or all are put off."""

    def is_settled() -> bool:
        soon = feed._clock.monotonic() + 2.0
        return feed._book.due(soon) is None

    await until(is_settled)


def frames_of(log: SqliteLog, shard: int = 0) -> int:
    return sum(1 for _ in LogHistory(log).frames(Stream.TRADES, shard))


def ids_on_socket(log: LogReader) -> Counter[tuple[str, int]]:
    """How often each trade is in the log as a frame of the socket."""
    frames = LogHistory(log).frames(Stream.TRADES, 0)
    trades = (read_trade_id(frame.raw) for frame in frames if frame.src == "binance.ws")
    return Counter((trade.symbol, trade.id) for trade in trades if trade is not None)


def ids_filled(log: LogReader) -> Counter[tuple[str, int]]:
    """How often each trade is in the log in a page of the filler."""
    frames = LogHistory(log).frames(Stream.TRADES, 1)
    return Counter(
        (frame.sym or "", trade_id)
        for frame in frames
        if frame.src == "binance.trades"
        for trade_id in read_filled_ids(frame.raw) or []
    )


def events_of(log: LogReader, shard: int) -> list[SessionEvent]:
    """Session events of a shard, oldest first."""
    return [event for _, event in LogHistory(log).events(shard)][::-1]


def gaps_of(log: LogReader) -> list[Gap]:
    """Gap events of ids, of both shards, each shard's oldest first."""
    events = [*events_of(log, 0), *events_of(log, 1)]
    return [event for event in events if isinstance(event, Gap) and event.id_from is not None]


def ids_missing(log: LogReader) -> Counter[tuple[str, int]]:
    """How often each trade is in a gap that nothing filled."""
    told = gaps_of(log)
    filled = {event.name for event in told if event.filled_by is not None}
    return Counter(
        (event.symbols[0].removeprefix("BINANCE:"), trade_id)
        for event in told
        if event.filled_by is None and event.name not in filled
        for trade_id in range(event.id_from or 0, (event.id_to or 0) + 1)
    )


def account_of(server: BinanceServer, log: LogReader) -> dict[str, list[tuple[str, int]]]:
    """Ids between a symbol's first and last in the log that are nowhere, or in several places."""
    places = ids_on_socket(log) + ids_filled(log) + ids_missing(log)
    expected: set[tuple[str, int]] = set()
    for symbol in server.exchange.symbols:
        found = [trade_id for name, trade_id in places if name == symbol]
        first, last = min(found, default=0), max(found, default=-1)
        expected |= {(symbol, i) for i in server.exchange.ids(symbol) if first <= i <= last}
    return {
        "nowhere": sorted(expected - set(places)),
        "twice": sorted(place for place, count in places.items() if count > 1),
        "invented": sorted(
            (symbol, i) for symbol, i in places if i not in server.exchange.ids(symbol)
        ),
    }


WELL: dict[str, list[tuple[str, int]]] = {"nowhere": [], "twice": [], "invented": []}


class ThreadedBinance:
    """The server in a thread of its own, for tests that wait for processes."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.server: BinanceServer

    def __enter__(self) -> Self:
        self._thread.start()
        self.server = self.run(self._make())
        return self

    async def _make(self) -> BinanceServer:
        return await BinanceServer(**self._options).__aenter__()

    def __exit__(self, *error: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self.server.__aexit__(None, None, None)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's loop and wait for it."""
        return self.start(work).result(WAIT_S)

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine in the server's loop until it ends or is cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)
