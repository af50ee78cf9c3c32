"""The web server of the dashboard: REST, WebSocket and static files on 127.0.0.1."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect
from typing_extensions import override

from tickhouse.dashboard.fanout import Client, Fanout
from tickhouse.dashboard.gaps import LIMIT_MAX as GAPS_MAX
from tickhouse.dashboard.gaps import merge
from tickhouse.dashboard.hub import Hub, is_channel
from tickhouse.dashboard.pipeline import pipeline_state
from tickhouse.dashboard.queries import BAR_S, LIMIT_MAX, GoldQueries
from tickhouse.dashboard.security import LocalGuard
from tickhouse.errors import TickhouseError
from tickhouse.model.symbols import is_symbol

STATIC: Final = Path(__file__).parent / "static"
TIME_S_MAX: Final = 253_402_300_799
DIGITS_MAX: Final = 15
MESSAGE_BYTES_MAX: Final = 4096
TRY_AGAIN_LATER: Final = 1013


class _Command(msgspec.Struct):
    op: str
    ch: list[str] = []
    t: int = 0


_command_decoder = msgspec.json.Decoder(_Command)


class _Files(StaticFiles):
    """Static files that a browser asks for anew each time (they answer 304 where unchanged)."""

    @override
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Dashboard:
    """The handlers; what they need is given, nothing is global.

    Args:
        hub: live state.
        gold: questions to published gold.
        fanout: the viewers.
        run_folder: status files of the stages.
        clock_ms: wall clock, UNIX milliseconds.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        gold: GoldQueries,
        fanout: Fanout,
        run_folder: Path,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.hub = hub
        self.gold = gold
        self.fanout = fanout
        self.run_folder = run_folder
        self._clock_ms = clock_ms

    def app(self, *, port: int) -> Starlette:
        """The application, answering for this port of this machine only."""
        return Starlette(
            routes=[
                Route("/healthz", self.health),
                Route("/api/v1/snapshot", self.snapshot),
                Route("/api/v1/candles/{symbol:path}", self.candles),
                Route("/api/v1/gaps", self.gaps),
                Route("/api/v1/symbols", self.symbols),
                Route("/api/v1/pipeline", self.pipeline),
                WebSocketRoute("/api/v1/ws", self.live),
                Mount("/", _Files(directory=STATIC, html=True)),
            ],
            middleware=[
                Middleware(LocalGuard, port=port),
                Middleware(GZipMiddleware, minimum_size=1024, compresslevel=1),
            ],
        )

    async def health(self, _request: Request) -> Response:
        """Whether the page can be served and what it lacks."""
        heartbeat = self.hub.heartbeat()
        is_degraded = heartbeat["fault"] is not None
        return _json({"status": "degraded" if is_degraded else "ok", "fault": heartbeat["fault"]})

    async def snapshot(self, request: Request) -> Response:
        """The whole market by columns; 304 where the viewer has it."""
        body = msgspec.json.encode(self.hub.snapshot())
        tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def candles(self, request: Request) -> Response:
        """Bars of a symbol from published gold."""
        symbol = request.path_params["symbol"]
        interval = request.query_params.get("interval", "1m")
        if not is_symbol(symbol):
            return _refused("symbol: not a symbol")
        if interval not in BAR_S:
            return _refused(f"interval: one of {', '.join(BAR_S)}")
        try:
            from_s = _number(request, "from", None, TIME_S_MAX)
            to_s = _number(request, "to", None, TIME_S_MAX)
            limit = _number(request, "limit", 600, LIMIT_MAX) or 600
        except ValueError as error:
            return _refused(str(error))
        try:
            found = await run_in_threadpool(
                self.gold.candles, symbol, interval, from_s=from_s, to_s=to_s, limit=limit
            )
        except TickhouseError as error:
            return _json({"error": str(error)}, status=503)
        return _json(found)

    async def gaps(self, request: Request) -> Response:
        """What is missing, or was until it was filled, in [from, to), oldest first."""
        symbol = request.query_params.get("symbol", "")
        if symbol and not is_symbol(symbol):
            return _refused("symbol: not a symbol")
        try:
            from_s = _number(request, "from", 0, TIME_S_MAX) or 0
            to_s = _number(request, "to", TIME_S_MAX, TIME_S_MAX) or 0
            limit = _number(request, "limit", 200, GAPS_MAX) or 200
        except ValueError as error:
            return _refused(str(error))
        if from_s > to_s:
            return _refused("from: not after to")
        bounds = (symbol, from_s * 1000, to_s * 1000)
        try:
            published = await run_in_threadpool(self.gold.gaps, *bounds, limit)
        except TickhouseError as error:
            return _json({"error": str(error)}, status=503)
        found = merge(published, self.hub.told_gaps(*bounds), limit)
        return _json({"symbol": symbol, "gaps": found})

    async def symbols(self, request: Request) -> Response:
        """Symbols that match `q`, best first."""
        text = request.query_params.get("q", "")[:32]
        return _json({"symbols": self.hub.universe.find(text, 20)})

    async def pipeline(self, _request: Request) -> Response:
        """The stage lane."""
        return _json(await self.pipeline_content())

    async def pipeline_content(self) -> dict[str, Any]:
        """See `pipeline_state`."""
        heartbeat = self.hub.heartbeat()
        return await run_in_threadpool(
            pipeline_state, self.run_folder, heartbeat, now_ms=self._clock_ms()
        )

    async def send_pipeline(self) -> None:
        """Send the stage lane to its viewers once a second, until cancelled."""
        number = 0
        while True:
            if self.fanout.has_listeners("pipeline"):
                number += 1
                content = await self.pipeline_content()
                frame = {"ch": "pipeline", "seq": number, "pipeline": content}
                self.fanout.send("pipeline", msgspec.json.encode(frame))
            await asyncio.sleep(1.0)

    async def live(self, socket: WebSocket) -> None:
        """One viewer: its commands in, its frames out."""
        await socket.accept()
        client = self.fanout.connect()
        if client is None:
            await socket.close(TRY_AGAIN_LATER, "too many viewers")
            return
        client.put(msgspec.json.encode(self.hub.heartbeat()).decode())
        sender = asyncio.create_task(_send_frames(socket, client))
        try:
            await self._obey(socket, client)
        except WebSocketDisconnect:
            pass
        finally:
            self.fanout.disconnect(client)
            sender.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender

    async def _obey(self, socket: WebSocket, client: Client) -> None:
        while True:
            text = await socket.receive_text()
            try:
                self._do(client, _command_decoder.decode(text[: MESSAGE_BYTES_MAX + 1]))
            except (msgspec.DecodeError, ValueError) as error:
                client.put(msgspec.json.encode({"op": "error", "reason": str(error)}).decode())

    def _do(self, client: Client, command: _Command) -> None:
        match command.op:
            case "sub":
                for channel in command.ch:
                    if not is_channel(channel):
                        raise ValueError("no such channel")
                    if not self.fanout.subscribe(client, channel):
                        raise ValueError("too many channels")
            case "unsub":
                for channel in command.ch:
                    self.fanout.unsubscribe(client, channel)
            case "ping":
                pong = {"op": "pong", "t": command.t, "srv": self._clock_ms()}
                client.put(msgspec.json.encode(pong).decode())
            case _:
                raise ValueError("no such op")


async def _send_frames(socket: WebSocket, client: Client) -> None:
    with suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await client.take())


def _json(content: object, *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _refused(reason: str) -> Response:
    return _json({"error": reason}, status=400)


def _number(request: Request, name: str, default: int | None, maximum: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name}: a whole number from 0 to {maximum}")
    return min(int(text[:DIGITS_MAX]), maximum)
