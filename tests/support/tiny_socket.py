"""A tiny Finnhub socket on 127.0.0.1 that does exactly what a test tells it to, and fake time."""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tickhouse.clock import Clock, ScaledClock
from tickhouse.model.frame import Envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import SessionEvent
from tickhouse.source.feed import Delivery, Feed, History
from tickhouse.source.finnhub.feed import open_finnhub
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret

TOKEN = "c9secret7token"  # noqa: S105 - nobody's key
WAIT_S = 20.0
SECOND = 1_000_000_000


def at(text: str) -> int:
    """UNIX nanoseconds UTC of a moment such as "2026-11-23 15:00"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


OPEN = at("2026-11-23 15:00")
"""A Monday, half an hour after the opening bell."""
CLOSED = at("2026-11-21 15:00")
"""A Saturday."""


def trade(*symbols: str, price: float = 100.0) -> str:
    data = [{"c": ["1"], "p": price, "s": s, "t": 1_795_446_000_000, "v": 1} for s in symbols]
    return json.dumps({"data": data, "type": "trade"}, separators=(",", ":"))


PING = '{"type":"ping"}'
TOO_MANY = '{"msg":"Subscribing to too many symbols","type":"error"}'

Script = Callable[["Call"], Awaitable[None]]


class Call:
    """One connection of a client.

    Attributes:
        number: from 0.
        asked: every message that came, decoded.
    """

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.asked: list[dict[str, str]] = []

    def symbols(self, verb: str = "subscribe") -> list[str]:
        return [message["symbol"] for message in self.asked if message["type"] == verb]

    async def hear(self, count: int, verb: str = "subscribe") -> list[str]:
        """Wait until so many symbols were asked for."""
        async with asyncio.timeout(WAIT_S):
            while len(self.symbols(verb)) < count:
                self.asked.append(json.loads(await self.connection.recv()))
        return self.symbols(verb)

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            await self.connection.send(message)

    async def stay(self) -> None:
        """Say nothing more until the client has gone."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.asked.append(json.loads(await self.connection.recv()))


class TinySocket:
    """An async context manager.

    Args:
        script: what to do on a connection; it is closed when this returns.
        status: answer every handshake so instead.
        tls: speak TLS with this context.
    """

    def __init__(
        self,
        script: Script,
        *,
        status: HTTPStatus | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._script = script
        self._status = status
        self._tls = tls
        self.paths: list[str] = []
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        quiet = logging.getLogger("tests.quiet")
        quiet.disabled = True
        self._server = await serve(
            self._accept,
            "127.0.0.1",
            0,
            process_request=self._greet,
            process_response=self._sign,
            ssl=self._tls,
            close_timeout=0.2,
            logger=quiet,
            compression=None,
            max_size=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        if self._status is None:
            return None
        return connection.respond(self._status, f"no, not with {TOKEN}")

    @staticmethod
    def _sign(_connection: ServerConnection, _request: Request, response: Response) -> None:
        response.headers["CF-Ray"] = "8f00-LHR"

    async def _accept(self, connection: ServerConnection) -> None:
        call = Call(connection, len(self.calls))
        self.calls.append(call)
        with contextlib.suppress(ConnectionClosed):
            await self._script(call)


class FakeClock(Clock):
    """Time that only `sleep` moves, at once; others get their turn in between."""

    def __init__(self, start_ns: int = OPEN) -> None:
        self.start_ns = start_ns
        self.elapsed_s = 0.0
        self._alarm: tuple[float, Callable[[], object]] | None = None

    def until(self, seconds: float, ring: Callable[[], object]) -> None:
        """Call `ring` once so much time has passed."""
        self._alarm = (seconds, ring)

    def monotonic(self) -> float:
        return self.elapsed_s

    def time_ns(self) -> int:
        return self.start_ns + int(self.elapsed_s * SECOND)

    async def sleep(self, seconds: float) -> None:
        self.elapsed_s += seconds
        if self._alarm is not None and self.elapsed_s >= self._alarm[0]:
            self._alarm[1]()
        await asyncio.sleep(0)


class ListHistory(History):
    """A history that a test writes, oldest first.

    Args:
        told: events by shard, with their session's id.
        held: frames by shard.
    """

    def __init__(
        self,
        told: dict[int, Sequence[tuple[str, SessionEvent]]] | None = None,
        held: dict[int, Sequence[Envelope]] | None = None,
    ) -> None:
        self.told = told or {}
        self.held = held or {}

    def frames(self, stream: Stream, shard: int) -> Iterator[Envelope]:
        assert stream is Stream.TRADES
        return iter(self.held.get(shard, [])[::-1])

    def events(self, shard: int) -> Iterator[tuple[str, SessionEvent]]:
        return iter(self.told.get(shard, [])[::-1])


def options(server: TinySocket | None = None, **values: Any) -> FinnhubOptions:
    url = "ws://127.0.0.1:9" if server is None else server.url
    return FinnhubOptions(**{"token": Secret(TOKEN), "ws_url": url, **values})


def live(
    server: TinySocket, rest: str = "AAPL,MSFT?poll=off", *, clock: Clock | None = None, **more: Any
) -> Feed:
    """The feed under test, listening to a server."""
    return open_finnhub(rest, options(server, **more), clock=clock or ScaledClock(1, start_ns=OPEN))


@asynccontextmanager
async def connected(feed: Feed, shard: int = 0) -> AsyncIterator[AsyncIterator[Delivery]]:
    """What a connection delivers; closed as the recorder closes it."""
    items: Any = feed.connect(shard, 0)
    try:
        yield items
    finally:
        await items.aclose()


async def take(items: AsyncIterator[Delivery], count: int) -> list[Delivery]:
    """The next so many things that a connection delivers."""
    async with asyncio.timeout(WAIT_S):
        return [await anext(items) for _ in range(count)]
