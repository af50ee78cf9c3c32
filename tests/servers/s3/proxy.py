"""A proxy in front of an S3 server that fails as services and networks do, on demand.

Requests go through byte for byte, so that their signatures hold.
"""

import asyncio
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec


class Fault(StrEnum):
    """What happens to a request; those `AFTER_APPLY` reach the server first."""

    BUSY = "503"
    THROTTLED = "429"
    CONFLICT = "409"
    DENIED = "403"
    FULL = "507"
    HTML = "html"
    RESET = "reset"
    ERROR_AFTER_APPLY = "500-after-apply"
    RESET_AFTER_APPLY = "reset-after-apply"
    HANG_AFTER_APPLY = "hang-after-apply"
    HANG = "hang"
    SLOW = "slow"
    CUT_ANSWER = "cut-answer"


_APPLIED = {
    Fault.ERROR_AFTER_APPLY,
    Fault.RESET_AFTER_APPLY,
    Fault.HANG_AFTER_APPLY,
    Fault.SLOW,
    Fault.CUT_ANSWER,
}
_STATUS = {
    Fault.BUSY: ("503 Service Unavailable", "SlowDown"),
    Fault.THROTTLED: ("429 Too Many Requests", "TooManyRequests"),
    Fault.CONFLICT: ("409 Conflict", "ConditionalRequestConflict"),
    Fault.DENIED: ("403 Forbidden", "AccessDenied"),
    Fault.FULL: ("507 Insufficient Storage", "XMinioStorageFull"),
    Fault.ERROR_AFTER_APPLY: ("500 Internal Server Error", "InternalError"),
}
_PAGE = b"<!DOCTYPE html><html><body>Welcome to the router</body></html>"


class Request(msgspec.Struct, frozen=True):
    """A request as it came: its first line's words, its head and its body."""

    method: str
    path: str
    head: bytes
    body: bytes


Matches = Callable[[Request], bool]


class FaultProxy:
    """Listens on a port of 127.0.0.1 and hands on to `upstream`; thread-safe.

    Args:
        upstream: the server's address.
        hang_s: how long a hang takes.
        tls: speak TLS with its certificate; None = plain.

    Attributes:
        requests: how many came, by method.
        faults: how many failed, by kind.
        bytes_sent: sizes of the answers that went through.
        delay_s: every request takes so much longer, as from another place.
        strips_conditions: `If-None-Match` does not reach the server, as if it did not know it.
    """

    def __init__(
        self, upstream: str, *, hang_s: float = 4.0, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.hang_s = hang_s
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.bytes_sent = 0
        self.strips_conditions = False
        self.delay_s = 0.0
        self._queued: list[tuple[Fault, Matches]] = []
        self._rates: dict[Fault, float] = {}
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._tls = tls
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # -- control -----------------------------------------------------------------------------

    def inject(self, fault: Fault, times: int = 1, *, method: str = "", path: str = "") -> None:
        """Fail the next requests of a method whose path holds `path`."""

        def matches(request: Request) -> bool:
            return request.method.startswith(method) and path in request.path

        with self._lock:
            self._queued += [(fault, matches)] * times

    def set_rates(self, rates: Mapping[Fault, float], *, seed: int = 0) -> None:
        """Fail this share of all requests, by kind, from now on; `{}` = none."""
        with self._lock:
            self._rates, self._random = dict(rates), random.Random(seed)

    def refuse(self) -> None:
        """Refuse connections and drop those there are, until `listen`."""
        self._run(self._close())

    def listen(self) -> None:
        """Take connections on the same port again."""
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self._run(self._open())

    def start(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        self._run(self._open())
        return self

    def stop(self) -> None:
        """End it, and every connection."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._tls)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- one connection ----------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream = await asyncio.open_connection(*self._upstream)
            try:
                while (request := await _read_request(reader, writer)) is not None:
                    await self._serve(request, writer, *upstream)
            finally:
                upstream[1].close()
        except (OSError, EOFError, _DroppedError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            if task.cancelling():
                writer.transport.abort()
            writer.close()

    async def _serve(
        self,
        request: Request,
        client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        fault = self._choose(request)
        await asyncio.sleep(self.delay_s)
        if fault is None or fault in _APPLIED:
            to_server.write(self._head(request) + request.body)
            answer = await _read_answer(server, request.method)
            if fault is None:
                self.bytes_sent += len(answer)
                client.write(answer)
                await client.drain()
                return
        else:
            answer = b""
        await self._fail(fault, answer, client)

    def _choose(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests[request.method] += 1
            fault = self._queued_for(request) or self._drawn()
            if fault is not None:
                self.faults[fault.value] += 1
            return fault

    def _queued_for(self, request: Request) -> Fault | None:
        for place, (fault, matches) in enumerate(self._queued):
            if matches(request):
                del self._queued[place]
                return fault
        return None

    def _drawn(self) -> Fault | None:
        draw = self._random.random()
        for fault, rate in self._rates.items():
            if draw < rate:
                return fault
            draw -= rate
        return None

    def _head(self, request: Request) -> bytes:
        if not self.strips_conditions:
            return request.head
        lines = request.head.split(b"\r\n")
        return b"\r\n".join(x for x in lines if not x.lower().startswith(b"if-none-match:"))

    async def _fail(self, fault: Fault, answer: bytes, client: asyncio.StreamWriter) -> None:
        if fault in (Fault.HANG, Fault.HANG_AFTER_APPLY):
            await asyncio.sleep(self.hang_s)
        if fault is Fault.SLOW:
            for begin in range(0, len(answer), max(1, len(answer) // 20)):
                client.write(answer[begin : begin + max(1, len(answer) // 20)])
                await client.drain()
                await asyncio.sleep(self.hang_s / 20)
            return
        if fault is Fault.HTML:
            client.write(_answer_of("200 OK", "text/html", _PAGE))
        elif fault in _STATUS:
            status, code = _STATUS[fault]
            body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            client.write(_answer_of(status, "application/xml", body))
        else:
            client.write(answer[: len(answer) // 2] if fault is Fault.CUT_ANSWER else b"")
            await client.drain()
            client.transport.abort()
            raise _DroppedError
        await client.drain()


class _DroppedError(Exception):
    """The connection was ended on purpose."""


def _answer_of(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes]]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return head, {name.strip().lower(): value.strip() for name, _, value in lines if name}


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    try:
        head, fields = await _read_head(reader)
    except asyncio.IncompleteReadError:
        return None
    if b"100-continue" in fields.get(b"expect", b""):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        lines = head.split(b"\r\n")
        head = b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))
    body = await _read_body(reader, fields)
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    return Request(method, path, head, body)


async def _read_answer(reader: asyncio.StreamReader, method: str) -> bytes:
    head, fields = await _read_head(reader)
    status = int(head.split(b" ", 2)[1])
    if status == 100:
        return await _read_answer(reader, method)
    if method == "HEAD" or status in (204, 304):
        return head
    return head + await _read_body(reader, fields)


async def _read_body(reader: asyncio.StreamReader, fields: Mapping[bytes, bytes]) -> bytes:
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.readexactly(int(fields.get(b"content-length", b"0")))
    parts: list[bytes] = []
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        parts += [size, chunk]
        if len(chunk) == 2:
            return b"".join(parts)
