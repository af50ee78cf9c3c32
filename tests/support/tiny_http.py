"""A tiny HTTP server on 127.0.0.1 that answers exactly what a test tells it to."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import Self

import msgspec


class Request(msgspec.Struct, frozen=True):
    """A GET as it arrived: path with its query, headers by name in lower case."""

    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Reply(msgspec.Struct, frozen=True):
    """What to answer; `cut` ends the connection after so many bytes of the body."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = {}
    cut: int | None = None
    hang: bool = False


class TinyServer:
    """Answers every GET by a function; an async context manager.

    Args:
        answer: the reply to a request, or raw bytes to send instead of one.
        tls: speak TLS with this context.
    """

    def __init__(
        self, answer: Callable[[Request], Reply | bytes], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._answer = answer
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/api/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await self._reply(_parse(head), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        self.requests.append(request)
        reply = self._answer(request)
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
            return False
        if reply.hang:
            await asyncio.Event().wait()
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body[: reply.cut])
        await writer.drain()
        return reply.cut is None


@contextlib.contextmanager
def served(answer: Callable[[Request], Reply | bytes]) -> Generator[TinyServer]:
    """The server in a thread of its own, for code that runs its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TinyServer(answer)
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _parse(head: bytes) -> Request:
    first, *lines = head.decode().strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Request(first.split(" ")[1], {name.lower(): value.strip() for name, _, value in pairs})


def as_json(content: object) -> bytes:
    """Compact JSON."""
    return json.dumps(content, separators=(",", ":")).encode()
