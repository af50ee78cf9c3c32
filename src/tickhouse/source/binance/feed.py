"""`binance://btcusdt,ethusdt`: shard 0 is the socket, shard 1 fills what the socket missed."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from tickhouse.clock import SYSTEM_CLOCK, Clock
from tickhouse.errors import ConfigError, FeedClosedError, TransientError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Channel, Coverage, Gap, Mode, Remote
from tickhouse.source.binance.filler import SETTLE_S, Filler
from tickhouse.source.binance.gaps import GapBook, OpenGap
from tickhouse.source.binance.ids import TRADES_KIND, VENUE
from tickhouse.source.binance.past import SOCKET, Past, load_gaps, read_past
from tickhouse.source.binance.rest import BinanceRest
from tickhouse.source.binance.socket import open_socket
from tickhouse.source.binance.trail import Jump, Trail
from tickhouse.source.feed import Arrivals, Delivery, History
from tickhouse.source.options import BinanceOptions
from tickhouse.source.parameters import Parameters, split_query
from tickhouse.source.websocket import Batch
from tickhouse.telemetry import get_logger

PAIR: Final = re.compile(r"[a-z0-9]{5,20}")
PAIRS_MAX: Final = 200
"""Binance allows 1024 streams a connection; the address of so many would be refused before."""
SILENCE_S: Final = 120.0
"""The pairs of a connection together are never silent for so long, unless all are obscure."""
UNHEARD_S: Final = 10.0
"""A pair without a trade for so long is looked up: is it known at all?"""
IDLE_S: Final = 0.25
"""Between two looks at whether there is something to fill."""
DELAY_S_MAX: Final = 60.0
"""Longest wait before REST is tried again, unless it asks for a longer one."""
CONTINUOUS: Final = "ids"
"""What fills a silence in which, by the ids, nothing was traded."""

_log = get_logger("record")


class BinanceFeed:
    """Public trades of some pairs: live, endless, not resumable, but its gaps can be filled.

    Args:
        pairs: as Binance writes them in stream names, such as "btcusdt".
        options: base addresses.
        clock: of receipts, waits and time-outs.
        silence_s: without a message for so long the connection is dead.
    """

    def __init__(
        self,
        pairs: Sequence[str],
        options: BinanceOptions,
        *,
        clock: Clock = SYSTEM_CLOCK,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.url = f"binance://{','.join(pairs)}"
        self.source = TRADES_KIND
        self.mode: Mode = "live"
        self.shards = 2
        self.endless = True
        self.resumes = False
        self._pairs = list(pairs)
        self._symbols = [pair.upper() for pair in pairs]
        self._options = options
        self._clock = clock
        self._silence_s = silence_s
        self._book = GapBook()
        self._history: History | None = None
        self._loading = asyncio.Lock()
        self._is_loaded = False
        self._last_ids: dict[str, int] = {}
        self._lost: str | None = None
        self._heard: frozenset[str] = frozenset()
        self._connected_at: float | None = None
        self._unknown: set[str] = set()
        self._looked_up: set[str] = set()

    def begin(self, history: History) -> None:
        """See `Feed.begin`."""
        self._history = history

    def waits(self, shard: int) -> bool:
        """The filler asks for no more than is taken; the socket cannot."""
        return shard != SOCKET

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: the log's own end is the position."""

    def close(self) -> None:
        """Connections end with their iterators."""

    def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:  # noqa: ARG002 - no cursor
        """See `Feed.connect`."""
        return self._listen() if shard == SOCKET else self._fill()

    # -- the socket ---------------------------------------------------------------------------

    async def _listen(self) -> AsyncIterator[Delivery]:
        past = await self._read_past()
        trail = Trail(self._known(self._symbols), past.last_ids)
        streams = "/".join(f"{pair}@trade" for pair in self._known(self._pairs))
        socket = await open_socket(
            f"{self._options.ws_url.rstrip('/')}/stream?streams={streams}",
            self._clock,
            silence_s=self._silence_s,
            setting="binance_ws_url",
        )
        listener = _Listener(trail, past, self._book, lost=self._lost, clock=self._clock)
        try:
            yield socket.remote()
            yield self._coverage("socket", self._known(self._symbols), "subscribed")
            self._connected_at = self._clock.monotonic()
            while True:
                batch = await socket.next()
                for item in listener.take(batch):
                    yield item
                self._heard = trail.heard
        except FeedClosedError as error:
            self._lost = error.reason
            raise
        finally:
            self._connected_at = None
            self._last_ids = trail.last_ids()
            await socket.close()

    async def _read_past(self) -> Past:
        """Where the durable trades end, counting what was told missing as accounted for."""
        if self._history is None:
            return Past({})
        await self._load()
        sought = [name for name in self._known(self._symbols) if name not in self._last_ids]
        past = await read_past(self._history, self._symbols, self._clock, sought=sought)
        last_ids = {
            symbol: max(last_id, self._book.told_to(symbol))
            for symbol, last_id in {**self._last_ids, **past.last_ids}.items()
        }
        return Past(last_ids, past.session, past.received_at)

    async def _load(self) -> None:
        async with self._loading:
            if not self._is_loaded and self._history is not None:
                await load_gaps(self._history, self._book, self._clock)
                self._is_loaded = True

    # -- the filler ---------------------------------------------------------------------------

    async def _fill(self) -> AsyncIterator[Delivery]:
        await self._load()
        async with BinanceRest(self._options.rest_url, clock=self._clock) as rest:
            offset_ms = await rest.clock_offset_ms()
            if offset_ms is not None:
                yield Remote(self._clock.time_ns(), clock_offset_ms=offset_ms)
            filler = Filler(self._book, rest, self._clock)
            failures = 0
            while True:
                try:
                    for item in await filler.step():
                        yield item
                    coverage = await self._look_up(rest)
                    if coverage is not None:
                        yield coverage
                    failures = 0
                except TransientError as error:
                    wait_s = max(error.retry_after_s, min(2.0**failures, DELAY_S_MAX))
                    failures += 1
                    _log.warning("fill_delayed", reason=str(error), retry_s=wait_s)
                    await self._clock.sleep(wait_s)
                if self._book.due(self._clock.monotonic()) is None:
                    await self._clock.sleep(IDLE_S)

    async def _look_up(self, rest: BinanceRest) -> Coverage | None:
        """Whether a pair that stays without a trade is one at all; each is asked for once."""
        since = self._connected_at
        if since is None or self._clock.monotonic() - since < UNHEARD_S:
            return None
        symbol = next(iter(set(self._symbols) - self._heard - self._looked_up), None)
        if symbol is None:
            return None
        is_known = await rest.knows(symbol)
        self._looked_up.add(symbol)
        if is_known:
            return None
        self._unknown.add(symbol)
        _log.error("pair_unknown", pair=symbol.lower())
        if self._unknown == set(self._symbols):
            pairs = ", ".join(self._pairs)
            raise ConfigError(f"binance: Binance knows no pair of these: {pairs}")
        return self._coverage("none", [symbol], "Binance knows no such pair")

    def _known(self, symbols: Sequence[str]) -> list[str]:
        """Pairs or symbols without those that the exchange does not know."""
        return [symbol for symbol in symbols if symbol.upper() not in self._unknown]

    def _coverage(self, channel: Channel, symbols: Sequence[str], reason: str) -> Coverage:
        named = [VENUE + symbol for symbol in symbols]
        return Coverage(self._clock.time_ns(), channel, named, reason)


class _Listener:
    """Turns batches of one connection into what is recorded: messages, and gaps before them."""

    def __init__(
        self, trail: Trail, past: Past, book: GapBook, *, lost: str | None, clock: Clock
    ) -> None:
        self._trail = trail
        self._past = past
        self._book = book
        self._lost = "not connected" if lost is None else f"disconnected: {lost}"
        self._clock = clock
        self._opened_at = clock.time_ns()
        self._before = past.received_at or self._opened_at
        self._received_at = self._before
        self._is_continuity_told = past.session is None

    def take(self, batch: Batch) -> Iterator[Delivery]:
        """The batch, cut where ids are missing: a gap stands before the message that shows it.

        So whatever is durable of a connection, every id up to there is a frame's or a gap's.
        """
        start = 0
        for jump in self._trail.follow(batch.payloads):
            if jump.index > start:
                yield Arrivals(batch.payloads[start : jump.index], batch.received_at_ns)
            start = jump.index
            yield self._tell(jump, batch.received_at_ns)
        yield Arrivals(batch.payloads[start:], batch.received_at_ns)
        yield from self._take_late()
        yield from self._tell_continuity()
        self._received_at = batch.received_at_ns

    def _tell(self, jump: Jump, received_at: int) -> Gap:
        gap = OpenGap(
            jump.symbol,
            jump.ids,
            time_from=self._before if jump.is_first else self._received_at,
            time_to=self._opened_at if jump.is_first else received_at,
            cause=self._lost if jump.is_first else "left out of the stream",
        )
        gap.retry_at = self._clock.monotonic() + SETTLE_S
        self._book.add(gap)
        self._is_continuity_told = self._is_continuity_told or jump.is_first
        _log.warning("gap_found", gap=gap.name, ids=len(gap.ids), cause=gap.cause)
        return gap.event(self._clock.time_ns())

    def _take_late(self) -> Iterator[Gap]:
        late: dict[str, list[int]] = {}
        for symbol, trade_id in self._trail.late:
            late.setdefault(symbol, []).append(trade_id)
        for symbol, ids in late.items():
            yield from self._book.arrived_late(symbol, ids, self._clock.time_ns())

    def _tell_continuity(self) -> Iterator[Gap]:
        """Where every pair goes on with the id after its last, nothing was missed: that is said."""
        if self._is_continuity_told or not self._trail.proves_continuity:
            return
        self._is_continuity_told = True
        yield Gap(
            at=self._clock.time_ns(),
            stream=Stream.TRADES,
            seq_from=None,
            seq_to=None,
            time_from=self._before,
            time_to=self._opened_at,
            symbols=[],
            cause=self._lost,
            filled_by=CONTINUOUS,
            name=self._past.session,
        )


def open_binance(rest: str, options: BinanceOptions, *, clock: Clock = SYSTEM_CLOCK) -> BinanceFeed:
    """The feed behind `binance://<rest>`, such as `btcusdt,ethusdt?silence=300`.

    Raises:
        ConfigError: no pair, one that is none or comes twice, or an unknown parameter.
    """
    listed, _, query = rest.partition("?")
    parameters = Parameters("binance", split_query("binance", query), ("silence",))
    pairs = [pair.strip() for pair in listed.rstrip("/").split(",") if pair.strip()]
    if not pairs:
        raise ConfigError("binance: no pair; give some, such as binance://btcusdt,ethusdt")
    for pair in pairs:
        if PAIR.fullmatch(pair) is None:
            raise ConfigError(
                f"binance: {pair!r} is no pair; give lower-case letters and digits, as in btcusdt"
            )
    if len(set(pairs)) < len(pairs):
        raise ConfigError(f"binance: a pair is given twice in {listed!r}")
    if len(pairs) > PAIRS_MAX:
        raise ConfigError(f"binance: {len(pairs)} pairs; one connection takes {PAIRS_MAX}")
    silence_s = parameters.factor("silence", SILENCE_S)
    return BinanceFeed(pairs, options, clock=clock, silence_s=silence_s)
