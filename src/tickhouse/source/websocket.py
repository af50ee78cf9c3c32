"""One open WebSocket connection: messages as they came, in batches of what came together.

A task takes messages off the connection as they come, so that a receipt is stamped at receipt
however long the recorder is busy. What the library says of an ended connection may hold its
address, and so a key: it is passed on only through `scrub`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import FeedClosedError
from tickhouse.model.session import Remote

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

CLOSE_S: Final = 1.0
MESSAGE_BYTES_MAX: Final = 16 << 20
"""A larger message ends the connection; the recorder refuses much smaller ones, each as a gap."""
WAITING_BYTES_MAX: Final = 64 << 20
"""So much that nobody takes: the connection is no longer read, the server has to wait."""


class Batch(msgspec.Struct):
    """Messages received together, and when (UNIX nanoseconds UTC)."""

    received_at_ns: int
    payloads: list[bytes]


class Connection:
    """An open connection.

    Args:
        connection: the library's.
        clock: of receipts.
        scrub: takes secrets out of what the connection says when it ends.

    Attributes:
        opened_at: when it was opened, monotonic seconds.
        was_dropped: whether the other end, or the network, ended it.
    """

    def __init__(
        self, connection: "ClientConnection", *, clock: Clock, scrub: Callable[[str], str] = str
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._scrub = scrub
        self._batches: deque[Batch] = deque()
        self._open_batch: Batch | None = None
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended: str | None = None
        self.was_dropped = False
        self.opened_at = self._heard_at = clock.monotonic()
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(lambda _reader: self.wake())

    def remote(self) -> Remote:
        """What the server said of itself when it opened the connection."""
        now = self._clock.time_ns()
        response = self._connection.response
        if response is None:
            return Remote(now)
        offset_ms: int | None = None
        with contextlib.suppress(ValueError, OverflowError, LookupError):
            seconds = int(parsedate_to_datetime(response.headers.get("Date", "")).timestamp())
            offset_ms = (seconds * NANOS_PER_S - now) // 1_000_000
        return Remote(now, response.headers.get("CF-Ray"), offset_ms)

    @property
    def silent_s(self) -> float:
        """Seconds without a message; none while it is we who do not listen."""
        return self._clock.monotonic() - self._heard_at if self._room.is_set() else 0.0

    async def wait(self) -> None:
        """Wait until something came, the connection ended, or `wake` was called."""
        await self._arrived.wait()
        self._arrived.clear()

    def wake(self) -> None:
        """Let `wait` return."""
        self._arrived.set()

    def take(self) -> Batch | None:
        """The oldest batch that waits.

        Raises:
            FeedClosedError: the connection has ended and everything received has been taken.
        """
        if self._batches:
            batch = self._batches.popleft()
            self._open_batch = None
            self._waiting_bytes -= sum(map(len, batch.payloads))
            if not self._room.is_set():
                # Silence counts from here: until now it was we who did not listen.
                self._heard_at = self._clock.monotonic()
                self._room.set()
            return batch
        if self._ended is not None:
            raise FeedClosedError(self._ended)
        if self._reader.done():
            self._reader.result()
        return None

    async def send(self, message: str) -> None:
        """Send a text; where the connection has ended, `take` says so."""
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(message)

    def end(self, reason: str) -> None:
        """Give the connection up; what has been received is still there to be taken."""
        self._ended = self._ended or reason
        self._arrived.set()

    async def close(self) -> None:
        """Close it and everything that belongs to it."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._connection.close()

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while self._ended is None:
                self._put(await self._connection.recv(decode=False))
                while self._waiting_bytes >= WAITING_BYTES_MAX:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed as error:
            self.was_dropped = True
            self.end(self._scrub(_say_closed(error)))

    def _put(self, message: bytes) -> None:
        """Messages found waiting in one go of the event loop are one batch, of one receipt."""
        batch = self._open_batch
        if batch is None:
            batch = self._open_batch = Batch(self._clock.time_ns(), [])
            self._batches.append(batch)
            self._heard_at = self._clock.monotonic()
            self._loop.call_soon(self._cut)
            self._arrived.set()
        batch.payloads.append(message)
        self._waiting_bytes += len(message)

    def _cut(self) -> None:
        self._open_batch = None


def _say_closed(error: "ConnectionClosed") -> str:
    if error.rcvd is None:
        sent = error.sent.reason if error.sent is not None else ""
        return f"connection lost{f': {sent}' if sent else ' without a close frame'}"
    reason = f" ({error.rcvd.reason})" if error.rcvd.reason else ""
    return f"closed by the server: {error.rcvd.code}{reason}"
