"""The double: WebSocket, REST and control API on one port of 127.0.0.1."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.http11 import Request, Response
from websockets.protocol import State

from tickhouse.clock import SYSTEM_CLOCK, Clock

from .faults import CONNECTION, DELAY_S, FRAME, KINDS, REST, Faults, spoil
from .market import Market
from .record import Record, Sent
from .rest import BAD_KEY, NO_KEY, NS, Rest

API = "/api/v1"
TOO_MANY = '{"msg":"Subscribing to too many symbols","type":"error"}'
PING = '{"type":"ping"}'
PING_S = 60.0
SYMBOLS_MAX = 50
SPURT = 200
"""Frames sent before anything else gets a turn."""


class _Client:
    def __init__(self, connection: ServerConnection, sent: Sent, token: str) -> None:
        self.connection = connection
        self.sent = sent
        self.token = token
        self.sending = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        return self.connection.state is State.OPEN


class FinnhubDouble:
    """Finnhub on a free port; an async context manager.

    Args:
        market: what happens.
        clock: when; shared with the client under test.
        token: the one good key.
        port: 0 = a free one.
        seed: of how frames are spoiled.
        is_premium: whether the plan has the premium endpoints.

    Attributes:
        faults: to be switched on.
        record: what was sent, and what nobody got.
        rest: the REST half.
        symbols_max: symbols a connection may have.
        is_over: set once the market has no more frames.
        connected: how many connections there have been.
    """

    def __init__(
        self,
        market: Market,
        *,
        clock: Clock = SYSTEM_CLOCK,
        token: str = "double",  # noqa: S107 - of the double alone
        port: int = 0,
        seed: int = 1,
        is_premium: bool = False,
    ) -> None:
        self.faults = Faults()
        self.record = Record()
        self.rest = Rest(
            market, clock=clock, token=token, is_premium=is_premium, faults=self.faults
        )
        self.symbols_max = SYMBOLS_MAX
        self.is_over = asyncio.Event()
        self.connected = 0
        self.token = token
        self.port = port
        self._market = market
        self._clock = clock
        self._chance = random.Random(seed)
        self._rays = itertools.count(1)
        self._ray_of: dict[ServerConnection, str] = {}
        self._client: _Client | None = None
        self._not_yet: set[str] = set()
        self._wanted: Sent | None = None
        self._cause = "not connected"
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ws_url(self) -> str:
        """Base address of the socket."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """Base address of REST."""
        return f"http://127.0.0.1:{self.port}{API}"

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            process_request=self._process,
            process_response=self._sign,
            open_timeout=None,
            ping_interval=None,
            compression=None,
            max_queue=None,
            close_timeout=1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._tasks = [asyncio.create_task(self._play()), asyncio.create_task(self._ping())]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for result in results:
            if isinstance(result, Exception):
                raise result

    @property
    def is_up(self) -> bool:
        """Whether a client is connected and has subscribed."""
        client = self._client
        return client is not None and client.is_open and client.sent is self._wanted

    # -- HTTP ---------------------------------------------------------------------------------

    async def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/control"):
            return self._respond(200, self._control(parts.path, query), {})
        if parts.path.startswith(API):
            target = request.path.removeprefix(API)
            return self._respond(
                *await self.rest.answer(target, request.headers.get("X-Finnhub-Token"))
            )
        token = query.get("token")
        if token != self.token:
            return self._respond(401, BAD_KEY if token else NO_KEY, {})
        return None

    def _sign(
        self, connection: ServerConnection, _request: Request, response: Response
    ) -> Response:
        """Headers of the handshake: the connection's name, and what time it is."""
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            ray = self._ray_of[connection] = f"ray-{next(self._rays)}"
            response.headers["CF-Ray"] = ray
            del response.headers["Date"]
            response.headers["Date"] = self._date()
        return response

    def _respond(self, status: int, body: bytes, headers: dict[str, str]) -> Response:
        known = {"Content-Type": "application/json; charset=utf-8", "Connection": "close"}
        fields = {**known, "Date": self._date(), "Content-Length": str(len(body)), **headers}
        return Response(status, HTTPStatus(status).phrase, Headers(fields), body)

    def _date(self) -> str:
        return formatdate(self._clock.time_ns() / NS, usegmt=True)

    def _control(self, path: str, query: dict[str, str]) -> bytes:
        """`/control/strike?kind=…&count=…`, `/control/state`."""
        if path == "/control/strike" and query.get("kind") in KINDS:
            for _ in range(int(query.get("count", "1"))):
                self._tasks.append(asyncio.create_task(self.strike(query["kind"])))
        state: dict[str, Any] = {
            "kinds": KINDS,
            "struck": dict(self.faults.struck),
            "connections": len(self.record.connections),
            "outages": len(self.record.outages),
            "requests": len(self.rest.requests),
        }
        return json.dumps(state).encode()

    # -- the socket ---------------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        ray = self._ray_of.pop(connection)
        client = _Client(connection, self.record.connected(ray), query["token"][-1])
        other, self._client = self._client, client
        self.connected += 1
        if other is not None and other.is_open:
            self._cause = "second connection"
            await asyncio.gather(other.connection.close(1008), connection.close(1008))
            return
        self.faults.is_silent = False
        try:
            async for message in connection:
                await self._heed(client, message)
        except ConnectionClosed:
            pass
        finally:
            if self._client is client:
                self._client = None

    async def _heed(self, client: _Client, message: str | bytes) -> None:
        asked = json.loads(message)
        symbols = client.sent.symbols
        if asked["type"] == "unsubscribe":
            symbols.discard(asked["symbol"])
        elif len(symbols) >= self.symbols_max and asked["symbol"] not in symbols:
            self.faults.struck["too_many"] += 1
            await self._send(client, [TOO_MANY])
        else:
            if self._wanted is not None and self._wanted is not client.sent:
                self._not_yet = set(self._wanted.symbols)
            self._wanted = client.sent
            symbols.add(asked["symbol"])
            self._not_yet.discard(asked["symbol"])

    async def _send(
        self, client: _Client, messages: list[bytes | str], due_ns: int | None = None
    ) -> None:
        """Send now and note it; what the connection no longer takes was not sent."""
        async with client.sending:
            for message in messages:
                data = message if isinstance(message, bytes) else message.encode()
                with contextlib.suppress(ConnectionClosed):
                    if client.is_open:
                        if len(data) > 1 << 20:
                            client.sent.oversized.append(len(client.sent.messages))
                        client.sent.messages.append(data)
                        client.sent.due_ns.append(due_ns or self._clock.time_ns())
                        await client.connection.send(message)

    async def _ping(self) -> None:
        while True:
            await self._clock.sleep(PING_S)
            if self._client is not None and not self.faults.is_silent:
                await self._send(self._client, [PING])

    async def _play(self) -> None:
        for number, (due_ns, payload) in enumerate(self._market.frames(self._clock.time_ns())):
            ahead_s = (due_ns - self._clock.time_ns()) / NS + self.faults.lag_s
            if ahead_s > 0 or number % SPURT == 0:
                await self._clock.sleep(max(0.0, ahead_s))
            self._market.add(payload)
            await self._deliver(due_ns, payload)
        self.is_over.set()

    async def _deliver(self, due_ns: int, payload: bytes) -> None:
        client = self._client
        if self._wanted is None:
            return
        is_up = client is not None and client.is_open and not self.faults.is_silent
        if client is None or not is_up or self._wanted is not client.sent:
            self._miss(due_ns, payload, self._wanted.symbols)
            return
        if self._not_yet:
            self._miss(due_ns, payload, self._not_yet)
        else:
            self.record.delivered()
        cut = self._market.cut(payload, client.sent.symbols)
        if cut is not None:
            spoilt = spoil(cut, self.faults.next_frame(), self._chance)
            await self._send(client, spoilt, due_ns)

    def _miss(self, due_ns: int, payload: bytes, symbols: Collection[str]) -> None:
        assert self._wanted is not None
        cut = self._market.cut(payload, symbols)
        if cut is not None:
            self.record.undelivered(self._wanted, self._cause, due_ns, cut)

    # -- faults -------------------------------------------------------------------------------

    async def strike(self, kind: str) -> None:
        """Let a fault strike: the connection now, or the next frame or answer."""
        if kind in FRAME:
            self.faults.frames.append(kind)
        elif kind in REST:
            self.faults.rest.append(kind)
        elif kind in CONNECTION:
            await self._strike_connection(kind)
        else:
            raise ValueError(kind)

    async def _strike_connection(self, kind: str) -> None:
        client = self._client
        if client is None or not client.is_open:
            return
        self._cause = kind
        self.faults.struck[kind] += 1
        if kind == "drop_close":
            await client.connection.close(1001)
        elif kind == "drop_reset":
            client.connection.transport.abort()
        elif kind == "silence":
            self.faults.is_silent = True
        elif kind == "second_connection":
            with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError):
                async with connect(f"{self.ws_url}?token={self.token}", compression=None) as other:
                    await other.recv()
        else:
            self.faults.lag_s = DELAY_S
            await self._clock.sleep(30)
            self.faults.lag_s = 0.0
