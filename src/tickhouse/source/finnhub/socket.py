"""The socket session: subscribe, tell what was missed, deliver, notice silence."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import FeedClosedError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Coverage, Gap
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.source.finnhub.connection import Connection, open_connection
from tickhouse.source.finnhub.coverage import REVIEW_S, CoverageBoard
from tickhouse.source.finnhub.filler import FinnhubFiller
from tickhouse.source.finnhub.messages import TRADE_END, Message, ask, read_message
from tickhouse.source.finnhub.missed import MUTE, Missed
from tickhouse.source.options import FinnhubOptions
from tickhouse.telemetry import get_logger

PATIENCE: Final = 4.0
"""While nothing can trade, only the server's pings tell that it is there. They come about once a
minute, but nobody promises them; and a connection found dead at the opening bell is replaced at
once, as silence is then judged strictly. So silence may last this many times as long."""
WATCHES: Final = 10
"""How often silence is looked at while it may last."""
QUICK_S: Final = 2.0
QUICK_DROPS: Final = 3
SETTLE_S: Final = 1.0
"""A gap is told to last this much longer than until the last subscription was sent, or twice the
time of the handshake: nothing acknowledges a subscription."""
SETTLE_S_MAX: Final = 30.0

_log = get_logger("record")


class FinnhubSocket:
    """Connections to the socket, one at a time.

    Args:
        options: key, base address, silence.
        board: which symbols to subscribe to.
        clock: of receipts and silence.
        filler: told the gaps that are told here, where the plan lets it fill them.
    """

    def __init__(
        self,
        options: FinnhubOptions,
        board: CoverageBoard,
        *,
        clock: Clock,
        filler: FinnhubFiller | None = None,
    ) -> None:
        self._options = options
        self._board = board
        self._filler = filler
        self._clock = clock
        self._quick_drops = 0
        self._events: deque[Coverage] = deque()
        self._errors: set[str] = set()

    async def deliver(self, missed: Missed | None) -> AsyncGenerator[Delivery]:
        """Open a connection and yield what it delivers.

        Args:
            missed: what the last connection left off.

        Raises:
            FeedClosedError: the connection ended, for the reason it says.
            ConfigError: the key is refused.
        """
        began = self._clock.monotonic()
        connection = await open_connection(self._options, clock=self._clock)
        settle_s = 2 * (self._clock.monotonic() - began)
        watch = asyncio.create_task(self._watch(connection))
        watch.add_done_callback(lambda _watch: connection.wake())
        self._events.clear()
        try:
            yield connection.remote()
            for symbol in self._board.socket:
                await connection.send(ask("subscribe", symbol))
            for gap in self._gaps(missed, min(max(SETTLE_S, settle_s), SETTLE_S_MAX)):
                if gap.symbols:
                    yield gap
            for coverage in self._board.subscribed():
                yield coverage
            async with contextlib.aclosing(self._receive(connection, watch)) as items:
                async for item in items:
                    yield item
        except FeedClosedError as error:
            raise self._judge_end(connection, error) from None
        finally:
            self._board.lost()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await connection.close()

    def _gaps(self, missed: Missed | None, settle_s: float) -> list[Gap]:
        """The gap that ends here, as far as its symbols are still asked for.

        Where it may be filled it ends sharply, so that no trade comes twice; and what cannot be
        filled is a gap of its own.
        """
        if missed is None:
            return []
        symbols = [symbol for symbol in self._board.socket if symbol in missed.symbols]
        if self._filler is None:
            return [_gap(missed, missed.session, symbols, self._clock.time_ns(), settle_s)]
        fillable = [symbol for symbol in symbols if self._filler.may_fill(symbol)]
        others = [symbol for symbol in symbols if symbol not in fillable]
        now = self._clock.time_ns()
        gap = _gap(missed, missed.session, fillable, now, 0.0)
        self._filler.tell(gap)
        return [gap, _gap(missed, f"{missed.session}:unfillable", others, now, settle_s)]

    async def _receive(
        self, connection: Connection, watch: asyncio.Task[None]
    ) -> AsyncGenerator[Delivery]:
        while not watch.done():
            await connection.wait()
            while (batch := connection.take()) is not None:
                yield Arrivals(batch.payloads, batch.received_at_ns)
                for payload in self._of_interest(batch.payloads):
                    await self._heed(connection, read_message(payload))
                while self._events:
                    yield self._events.popleft()
            while self._events:
                yield self._events.popleft()
        watch.result()

    def _of_interest(self, payloads: list[bytes]) -> Iterator[bytes]:
        """What must be looked into: all, until each symbol was seen; then what are not trades."""
        rest = iter(payloads)
        while self._board.unseen:
            payload = next(rest, None)
            if payload is None:
                return
            yield payload
        yield from [payload for payload in rest if not payload.endswith(TRADE_END)]

    async def _heed(self, connection: Connection, message: Message | None) -> None:
        if message is None:
            return
        if message.data:
            back = self._board.traded(message.symbols)
            if back is not None:
                self._events.append(back)
        elif message.is_too_many:
            refused = self._board.refuse_last()
            if refused is not None:
                # The message names no symbol: only one given up for good is surely not on it.
                await connection.send(ask("unsubscribe", refused[0]))
                self._events.append(refused[1])
        elif message.type == "error":
            self._say_error(message.msg)

    def _say_error(self, text: str) -> None:
        said = self._options.token.scrub(text)[:200]
        if said not in self._errors:
            self._errors.add(said)
            _log.warning("feed_said_error", message=said)

    # -- silence ------------------------------------------------------------------------------

    async def _watch(self, connection: Connection) -> None:
        """Give the connection up when it is silent; look at silent symbols now and then."""
        reviewed_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(min(self._options.silence_s / WATCHES, REVIEW_S))
            now = self._clock.monotonic()
            self._mind_silence(connection)
            if now - reviewed_at >= REVIEW_S:
                reviewed_at = now
                self._review(connection)

    def _mind_silence(self, connection: Connection) -> None:
        silent_s = connection.silent_s
        if self._board.is_expecting:
            if silent_s > self._options.silence_s:
                connection.end(f"silent for {silent_s:.0f} s while the market is open")
        elif silent_s > PATIENCE * self._options.silence_s:
            connection.end(f"silent for {silent_s:.0f} s, without a ping")

    def _review(self, connection: Connection) -> None:
        mute_s = self._board.mute_s(self._options.silence_s)
        if mute_s is not None:
            connection.end(f"{MUTE} for {mute_s:.0f} s while the market is open")
        fallen = self._board.review()
        if fallen is not None:
            self._events.append(fallen)
            connection.wake()

    def _judge_end(self, connection: Connection, error: FeedClosedError) -> FeedClosedError:
        """Say more of a connection that was dropped as soon as it was open, again and again."""
        lived_s = self._clock.monotonic() - connection.opened_at
        is_quick = connection.was_dropped and lived_s <= QUICK_S
        self._quick_drops = self._quick_drops + 1 if is_quick else 0
        if self._quick_drops < QUICK_DROPS:
            return error
        return FeedClosedError(
            f"{error.reason}; dropped {self._quick_drops} times as soon as it was open: the key"
            " seems to be in use elsewhere: one connection a key",
            retry_after_s=error.retry_after_s,
        )


def _gap(missed: Missed, name: str, symbols: list[str], now: int, settle_s: float) -> Gap:
    return Gap(
        at=now,
        stream=Stream.TRADES,
        seq_from=None,
        seq_to=None,
        time_from=missed.time_from,
        time_to=max(now + int(settle_s * NANOS_PER_S), missed.time_from),
        symbols=symbols,
        cause=missed.cause,
        name=name,
    )
