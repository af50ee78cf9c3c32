"""One WebSocket connection: messages as they came, in batches of what is already waiting.

A task of its own takes messages off the connection as soon as they are there, so that their receipt
is stamped at receipt, however long the recorder is busy with the ones before.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import ConfigError, FeedClosedError
from tickhouse.model.session import Remote
from tickhouse.source.http import within

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed

OPEN_S: Final = 15.0
CLOSE_S: Final = 1.0
FRAME_BYTES_MAX: Final = 16 << 20
"""A larger message ends the connection; the recorder refuses much smaller ones by itself."""
BATCH_MESSAGES: Final = 1000
BATCH_NS: Final = 1_000_000
"""Messages of one batch share a receipt, so they came within a millisecond."""
WAITING_MESSAGES: Final = 100_000
"""With so many not taken the connection is no longer read; the sender has to wait."""
PAUSE_S: Final = 60.0
"""Wait after an answer that will not change soon (refused, certificate)."""


class Batch(msgspec.Struct):
    """Messages received together, and when (UNIX nanoseconds UTC)."""

    received_at_ns: int
    payloads: list[bytes]


class Socket:
    """An open connection.

    Args:
        connection: the library's.
        clock: of receipts and silence.
        silence_s: without a message for so long the connection is dead.
    """

    def __init__(self, connection: "ClientConnection", clock: Clock, *, silence_s: float) -> None:
        self._connection = connection
        self._clock = clock
        self._silence_s = silence_s
        self._waiting: deque[Batch] = deque()
        self._count = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended: str | None = None
        self._heard_at = clock.monotonic()
        self._receiver = asyncio.create_task(self._receive())
        self._watcher = asyncio.create_task(self._watch())

    def remote(self) -> Remote:
        """What the server said of itself when it opened the connection."""
        now = self._clock.time_ns()
        headers = None if self._connection.response is None else self._connection.response.headers
        date = None if headers is None else headers.get("Date")
        offset_ms: int | None = None
        with contextlib.suppress(ValueError, OverflowError):
            if date is not None:
                seconds = int(parsedate_to_datetime(date).timestamp())
                offset_ms = (seconds * NANOS_PER_S - now) // 1_000_000
        return Remote(now, None if headers is None else headers.get("CF-Ray"), offset_ms)

    async def next(self) -> Batch:
        """The messages that wait, or the next one to come.

        Raises:
            FeedClosedError: the connection has ended and everything received has been given.
        """
        while not self._waiting:
            if self._ended is not None:
                raise FeedClosedError(self._ended)
            if self._receiver.done():
                self._receiver.result()
            self._arrived.clear()
            await self._arrived.wait()
        batch = self._waiting.popleft()
        self._count -= len(batch.payloads)
        if self._count < WAITING_MESSAGES:
            self._room.set()
        return batch

    async def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                self._put(await self._connection.recv(decode=False))
                if self._count >= WAITING_MESSAGES:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed as error:
            self._end(_say_closed(error))
        except OSError as error:
            self._end(f"connection lost: {error}")
        finally:
            self._arrived.set()

    def _put(self, message: bytes) -> None:
        now = self._clock.time_ns()
        self._heard_at = self._clock.monotonic()
        last = self._waiting[-1] if self._waiting else None
        is_together = last is not None and 0 <= now - last.received_at_ns < BATCH_NS
        if last is None or not is_together or len(last.payloads) >= BATCH_MESSAGES:
            self._waiting.append(Batch(now, [message]))
        else:
            last.payloads.append(message)
        self._count += 1
        self._arrived.set()

    async def _watch(self) -> None:
        """End the connection once nothing has come for too long."""
        while True:
            quiet_s = self._clock.monotonic() - self._heard_at
            if quiet_s >= self._silence_s and self._room.is_set():
                self._end(f"silent for {quiet_s:.0f} s")
                return
            await self._clock.sleep(max(self._silence_s - quiet_s, 1.0))

    def _end(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._arrived.set()

    async def close(self) -> None:
        """End the connection and everything that belongs to it."""
        tasks = (self._receiver, self._watcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connection.close()


async def open_socket(url: str, clock: Clock, *, silence_s: float, setting: str) -> Socket:
    """Connect.

    Args:
        url: `ws://…` or `wss://…`, without secrets.
        clock: of the time-out, receipts and silence.
        silence_s: see `Socket`.
        setting: name of the setting that holds the address, for messages.

    Raises:
        FeedClosedError: not reachable now, or refused.
        ConfigError: not an address.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

    async def opened() -> "ClientConnection":
        return await connect(
            url,
            open_timeout=None,
            close_timeout=CLOSE_S,
            max_size=FRAME_BYTES_MAX,
            max_queue=4096,
            compression=None,
        )

    host = url.partition("://")[2].partition("/")[0]
    try:
        connection = await within(clock, OPEN_S, opened())
    except InvalidURI as error:
        raise ConfigError(f"{setting}: {error.uri!r} is not an address: {error.msg}") from None
    except InvalidStatus as error:
        raise _refused(host, error.response.status_code, error.response.headers) from None
    except TimeoutError:
        raise FeedClosedError(f"{host}: not connected within {OPEN_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        reason = f"{host}: its certificate is not valid ({error.verify_message})"
        raise FeedClosedError(
            f"{reason}; check this machine's clock and certificates, and {setting}",
            retry_after_s=PAUSE_S,
        ) from None
    except (InvalidHandshake, OSError, EOFError) as error:
        reason = str(error) or type(error).__name__
        raise FeedClosedError(f"{host}: cannot be reached ({reason})") from None
    return Socket(connection, clock, silence_s=silence_s)


def _refused(host: str, status: int, headers: "Headers") -> FeedClosedError:
    given = headers.get("Retry-After", "")
    wait_s = float(given[:9]) if given.isdecimal() else PAUSE_S
    is_passing = status >= 500  # noqa: PLR2004 - HTTP's server errors
    return FeedClosedError(
        f"{host}: refused the connection with HTTP {status}",
        retry_after_s=1.0 if is_passing else wait_s,
    )


def _say_closed(error: "ConnectionClosed") -> str:
    received = error.rcvd
    if received is None:
        return "connection lost without a close frame"
    reason = f" ({received.reason})" if received.reason else ""
    return f"closed by the server: {received.code}{reason}"
