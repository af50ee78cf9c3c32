"""One WebSocket connection: messages as they came, in batches of what came together.

A task takes messages off the connection as they come, so that a receipt is stamped at receipt
however long the recorder is busy. The address holds the key, so nothing that the library says of it
is passed on unscrubbed.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import ConfigError, FeedClosedError, TickhouseError
from tickhouse.model.session import Remote
from tickhouse.source.http import within
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed, InvalidStatus

OPEN_S: Final = 20.0
CLOSE_S: Final = 1.0
MESSAGE_BYTES_MAX: Final = 16 << 20
"""A larger message ends the connection; the recorder refuses much smaller ones, each as a gap."""
WAITING_HIGH: Final = 4096
WAITING_LOW: Final = 1024
WAITING_BYTES_MAX: Final = 64 << 20
"""So much that nobody takes: the connection is no longer read, the server has to wait."""
LIMITED_S: Final = 30.0
CERTIFICATE_S: Final = 60.0
KEY_REFUSED: Final = frozenset({401, 403})
TOO_MANY_REQUESTS: Final = 429
CERTIFICATE_NOT_YET_VALID: Final = 9
CERTIFICATE_EXPIRED: Final = 10


class Batch(msgspec.Struct):
    """Messages received together, and when (UNIX nanoseconds UTC)."""

    received_at_ns: int
    payloads: list[bytes]


class Connection:
    """An open connection.

    Args:
        connection: the library's.
        clock: of receipts.
        token: kept out of what the connection says when it ends.

    Attributes:
        opened_at: when it was opened, monotonic seconds.
        was_dropped: whether the other end, or the network, ended it.
    """

    def __init__(self, connection: "ClientConnection", *, clock: Clock, token: Secret) -> None:
        self._connection = connection
        self._clock = clock
        self._token = token
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
                    self._heard_at = self._clock.monotonic()
        except ConnectionClosed as error:
            self.was_dropped = True
            self.end(self._token.scrub(_say_closed(error)))

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


def check_address(options: FinnhubOptions) -> None:
    """Refuse a base address that cannot be one before the key is put behind it.

    Raises:
        ConfigError: not `ws://host` or `wss://host`, or one that holds a password.
    """
    try:
        url = urlsplit(options.ws_url)
        is_address = url.scheme in {"ws", "wss"} and bool(url.hostname) and url.port != 0
        is_address = is_address and url.username is None
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(
            "finnhub_ws_url: not an address such as wss://ws.finnhub.io, without user or password"
        )


async def open_connection(options: FinnhubOptions, *, clock: Clock) -> Connection:
    """Connect with the key.

    Raises:
        FeedClosedError: not reachable now, refused for now, or a certificate that is not valid.
        ConfigError: the key is refused, or the address is not one.
    """
    # Raised out here, an error has no context, so nothing shows the library's own error, which may
    # hold the address with the key.
    opened = await _try_open(options, clock)
    if isinstance(opened, TickhouseError):
        raise opened
    return Connection(opened, clock=clock, token=options.token)


async def _try_open(
    options: FinnhubOptions, clock: Clock
) -> "ClientConnection | FeedClosedError | ConfigError":
    from websockets.exceptions import WebSocketException

    try:
        return await within(clock, OPEN_S, _connect(options))
    except ImportError as error:  # A proxy of a kind that needs another package.
        return ConfigError(f"finnhub: {error}")
    except (OSError, EOFError, WebSocketException) as error:
        host = urlsplit(options.ws_url).hostname or "finnhub_ws_url"
        return _explain(error, host, options.token)


def _explain(error: Exception, host: str, token: Secret) -> FeedClosedError | ConfigError:
    """Why there is no connection, without the key."""
    from websockets.exceptions import InvalidStatus

    if isinstance(error, InvalidStatus):
        return _refused(host, error, token)
    if isinstance(error, ssl.SSLCertVerificationError):
        return FeedClosedError(_say_certificate(host, error), retry_after_s=CERTIFICATE_S)
    if isinstance(error, ssl.SSLError):
        return FeedClosedError(
            f"{host}: no TLS connection ({error.reason or 'failed'}); is finnhub_ws_url right"
            " (wss for a server that speaks TLS, ws for one that does not)?"
        )
    if isinstance(error, TimeoutError):
        return FeedClosedError(f"{host}: not connected within {OPEN_S:g} s")
    said = token.scrub(str(error)) or type(error).__name__
    return FeedClosedError(f"{host}: cannot be reached ({said})")


async def _connect(options: FinnhubOptions) -> "ClientConnection":
    from websockets.asyncio.client import connect

    separator = "&" if "?" in options.ws_url else "?"
    return await connect(
        f"{options.ws_url}{separator}token={quote(options.token.reveal(), safe='')}",
        open_timeout=None,
        ping_interval=None,
        close_timeout=CLOSE_S,
        max_size=MESSAGE_BYTES_MAX,
        max_queue=(WAITING_HIGH, WAITING_LOW),
        compression=None,
        logger=_quiet_logger(),
    )


def _quiet_logger() -> logging.Logger:
    """The library's logs hold the address with the key, at whatever level someone sets."""
    logger = logging.getLogger("tickhouse.finnhub.websockets")
    logger.disabled = True
    return logger


def _refused(host: str, error: "InvalidStatus", token: Secret) -> FeedClosedError | ConfigError:
    status = error.response.status_code
    said = token.scrub((error.response.body or b"")[:200].decode(errors="replace").strip())
    answer = f"{host}: HTTP {status} at the handshake{f' ({said})' if said else ''}"
    if status in KEY_REFUSED:
        return ConfigError(
            f"{answer}: the API key is refused; set TICKHOUSE_FINNHUB_TOKEN or finnhub_token_file"
            " to the key on your Finnhub dashboard (a free key: https://finnhub.io/register)"
        )
    if status == TOO_MANY_REQUESTS:
        return FeedClosedError(f"{answer}: too many connections", retry_after_s=LIMITED_S)
    return FeedClosedError(f"{answer}; if it stays so, check finnhub_ws_url")


def _say_certificate(host: str, error: ssl.SSLCertVerificationError) -> str:
    what = {
        CERTIFICATE_EXPIRED: "has expired",
        CERTIFICATE_NOT_YET_VALID: "is not valid yet",
    }.get(error.verify_code, f"is not valid ({error.verify_message})")
    return f"{host}: its certificate {what}; check this machine's clock, and finnhub_ws_url"


def _say_closed(error: "ConnectionClosed") -> str:
    if error.rcvd is None:
        sent = error.sent.reason if error.sent is not None else ""
        return f"connection lost{f': {sent}' if sent else ' without a close frame'}"
    reason = f" ({error.rcvd.reason})" if error.rcvd.reason else ""
    return f"closed by the server: {error.rcvd.code}{reason}"
