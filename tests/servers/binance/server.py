"""The server: WebSocket and REST on one port of 127.0.0.1, with faults to be switched on."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .exchange import Exchange, RecordedTrade, read_capture

WEIGHT_LIMIT = 6000
SHORT_PAGE = 7
FILL_MODES = (
    "ok",
    "refused",  # 401, as where an API key is asked for
    "limited",  # 429
    "banned",  # 418
    "waf",  # 403
    "failing",  # 500
    "garbage",  # 200 with half a body
    "empty",  # 200 with no trades
    "short",  # 200 with few trades
    "holes",  # 200 without every tenth id
    "excess",  # 200 with more trades than asked for, once a page
    "hang",  # no answer
)


class BinanceServer:
    """A Binance on a free port; an async context manager.

    Args:
        messages: what happens, in order; None = the capture of 2024.
        port: 0 = a free one.

    Attributes:
        exchange: what has happened.
        is_silent: connections stay open, and nothing is sent any more.
        refuses: HTTP status with which connections are refused; None = they are not.
        fill: how old trades are answered, one of FILL_MODES.
        next_answers: modes of the next answers, before `fill` counts again.
        retry_after: header of 429 and 418; None = none.
        sent: ids sent on a connection, by symbol, in order.
        served: ids given as old trades, by symbol, in order.
        requests: REST calls, as path and query.
        connections: how many there have been.
    """

    def __init__(self, messages: Sequence[RecordedTrade] | None = None, *, port: int = 0) -> None:
        self.exchange = Exchange(read_capture() if messages is None else messages)
        self.port = port
        self.is_silent = False
        self.refuses: int | None = None
        self.fill = "ok"
        self.next_answers: deque[str] = deque()
        self.retry_after: str | None = "1"
        self.used_weight = 0
        self.clock_offset_ms = 0
        self.sent: dict[str, list[int]] = {}
        self.served: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.connections = 0
        self._open: dict[ServerConnection, frozenset[str]] = {}
        self._minute = -1
        self._closing = asyncio.Event()
        self._came = asyncio.Event()
        self._gone = asyncio.Event()
        self._gone.set()
        self._server: Server | None = None
        self._player: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve_streams,
            "127.0.0.1",
            self.port,
            process_request=self._answer,
            open_timeout=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing.set()
        if self._player is not None:
            self._player.cancel()
            await asyncio.gather(self._player, return_exceptions=True)
        if self._server is not None:
            self._server.close(code=1001, reason="going away")
            await self._server.wait_closed()

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what tests do ------------------------------------------------------------------------

    async def connected(self) -> None:
        """Wait for a connection whose client listens: one may give up while it is let in."""
        await self._came.wait()

    async def disconnected(self) -> None:
        """Wait until there is none."""
        await self._gone.wait()

    async def emit(self, count: int) -> None:
        """The next messages happen; whoever is connected gets them."""
        for message in self.exchange.advance(count):
            await self.send(message.payload, message.stream, message.symbol, message.id)

    async def send(
        self, payload: bytes, stream: str = "", symbol: str = "", trade_id: int | None = None
    ) -> None:
        """Send a message to whoever subscribed to its stream ("" = everyone)."""
        for connection, streams in list(self._open.items()):
            if self.is_silent or (stream and stream not in streams):
                continue
            try:
                await connection.send(payload, text=True)
            except ConnectionClosed:
                continue
            if trade_id is not None:
                self.sent.setdefault(symbol, []).append(trade_id)

    async def drop(self, how: str = "close") -> None:
        """End every connection: "close" after all that was sent, "reset" at once."""
        for connection in list(self._open):
            if how == "reset":
                connection.transport.abort()
            else:
                await connection.close(1001, "24 h are over")
        await self.disconnected()

    def play(self, speed: float, *, batch_s: float = 0.02) -> None:
        """Let messages happen by themselves, at a multiple of the recorded pace."""
        self._player = asyncio.create_task(self._play(speed, batch_s))

    async def _play(self, speed: float, batch_s: float) -> None:
        messages = self.exchange.messages
        loop = asyncio.get_running_loop()
        started, first_ns = loop.time(), messages[self.exchange.happened].recorded_ns
        while self.exchange.happened < len(messages):
            reached_ns = first_ns + (loop.time() - started) * speed * 1e9
            end = self.exchange.happened
            while end < len(messages) and messages[end].recorded_ns <= reached_ns:
                end += 1
            await self.emit(end - self.exchange.happened)
            await asyncio.sleep(batch_s)

    def missed(self, symbol: str) -> list[int]:
        """Ids that happened since the first one sent, and were never sent on a connection."""
        sent = set(self.sent.get(symbol, []))
        first = min(sent, default=0)
        return sorted(i for i in self.exchange.ids(symbol) - sent if i > first)

    # -- streams ------------------------------------------------------------------------------

    async def _serve_streams(self, connection: ServerConnection) -> None:
        query = parse_qs(urlsplit(connection.request.path).query)
        self._open[connection] = frozenset(query.get("streams", [""])[0].split("/"))
        self.connections += 1
        self._gone.clear()
        try:
            with contextlib.suppress(ConnectionClosed):
                await (await connection.ping())
                self._came.set()
            await connection.wait_closed()
        finally:
            del self._open[connection]
            if not self._open:
                self._came.clear()
                self._gone.set()

    # -- REST ---------------------------------------------------------------------------------

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/stream":
            return None if self.refuses is None else self._error(self.refuses, 0, "Unavailable")
        if url.path.startswith("/control/"):
            return await self._control(url.path.removeprefix("/control/"), query)
        self.requests.append(request.path)
        if url.path == "/api/v3/time":
            return self._json({"serverTime": time.time_ns() // 1_000_000 + self.clock_offset_ms})
        if url.path == "/api/v3/historicalTrades":
            return await self._old_trades(query)
        return _respond(HTTPStatus.NOT_FOUND, b"<html>404 Not found</html>")

    async def _old_trades(self, query: dict[str, str]) -> Response:
        symbol = query.get("symbol", "")
        if not symbol:
            text = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            return self._error(400, -1102, text)
        if symbol not in self.exchange.symbols:
            return self._error(400, -1121, "Invalid symbol.")
        for name in ("fromId", "limit"):
            if not query.get(name, "0").isdecimal():
                legal = "legal range is '^[0-9]{1,20}$'."
                return self._error(
                    400, -1100, f"Illegal characters found in parameter '{name}'; {legal}"
                )
        mode = self.next_answers.popleft() if self.next_answers else self.fill
        fault = await self._fault(mode)
        if fault is not None:
            return fault
        first_id = int(query["fromId"]) if "fromId" in query else None
        limit = min(int(query.get("limit", 500)), 1000)
        return self._page(symbol, first_id, limit, mode)

    async def _fault(self, mode: str) -> Response | None:
        if mode == "hang":
            await self._closing.wait()
        limit = (
            f"Too much request weight used; current limit is {WEIGHT_LIMIT} request weight per"
            " 1 MINUTE. "
        )
        answers = {
            "refused": (401, -2014, "API-key format invalid."),
            "limited": (429, -1003, limit + "Please use WebSocket Streams for live updates."),
            "banned": (
                418,
                -1003,
                "Way too much request weight used; IP banned until 1723161999999.",
            ),
            "failing": (500, -1000, "An unknown error occurred while processing the request."),
        }
        if mode == "waf":
            return _respond(HTTPStatus.FORBIDDEN, b"<html>403 Forbidden</html>")
        if mode == "garbage":
            return _respond(HTTPStatus.OK, b'[{"id":37356')
        return self._error(*answers[mode]) if mode in answers else None

    def _page(self, symbol: str, first_id: int | None, limit: int, mode: str) -> Response:
        if mode == "excess":
            limit += 5
        if mode == "short":
            limit = min(limit, SHORT_PAGE)
        trades = self.exchange.old_trades(symbol, first_id, limit)
        if mode == "empty":
            trades = []
        if mode == "holes":
            trades = [trade for trade in trades if trade["id"] % 10]
        self.served.setdefault(symbol, []).extend(trade["id"] for trade in trades)
        return self._json(trades)

    def _json(self, document: object) -> Response:
        minute = int(time.monotonic() // 60)
        self.used_weight = self.used_weight + 25 if minute == self._minute else 25
        self._minute = minute
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = {"X-MBX-USED-WEIGHT-1M": str(self.used_weight)}
        return _respond(HTTPStatus.OK, body, headers)

    def _error(self, status: int, code: int, text: str) -> Response:
        headers: dict[str, str] = {}
        if status in {418, 429} and self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        body = json.dumps({"code": code, "msg": text}).encode()
        return _respond(HTTPStatus(status), body, headers)

    # -- control over HTTP --------------------------------------------------------------------

    async def _control(self, verb: str, query: dict[str, str]) -> Response:
        """`/control/drop?how=reset`, `/control/set?fill=refused&silent=1`, `/control/record`."""
        if verb == "drop":
            await self.drop(query.get("how", "close"))
        elif verb == "emit":
            await self.emit(int(query["count"]))
        elif verb == "set":
            self.fill = query.get("fill", self.fill)
            self.is_silent = query.get("silent", str(int(self.is_silent))) == "1"
            self.refuses = int(query["refuses"]) or None if "refuses" in query else self.refuses
        elif verb != "record":
            return _respond(HTTPStatus.NOT_FOUND, b"drop, emit, set or record")
        return self._json(self.record())

    def record(self) -> dict[str, Any]:
        """The server's own account: ids that happened, that were sent, that were asked for."""
        symbols = sorted(self.exchange.symbols)
        return {
            "happened": self.exchange.happened,
            "of": len(self.exchange.messages),
            "connections": self.connections,
            "ids": {symbol: sorted(self.exchange.ids(symbol)) for symbol in symbols},
            "sent": self.sent,
            "served": self.served,
        }


def _respond(status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> Response:
    given = Headers(
        {
            "Content-Type": "application/json;charset=UTF-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **(headers or {}),
        }
    )
    return Response(status.value, status.phrase, given, body)
