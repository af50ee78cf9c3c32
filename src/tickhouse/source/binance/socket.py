"""Connecting to Binance's WebSocket; a connection that is silent for too long is dead."""

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from tickhouse.clock import Clock
from tickhouse.errors import ConfigError, FeedClosedError
from tickhouse.source.http import within
from tickhouse.source.websocket import CLOSE_S, MESSAGE_BYTES_MAX, Batch, Connection

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.datastructures import Headers

OPEN_S: Final = 15.0
PAUSE_S: Final = 60.0
"""Wait after an answer that will not change soon (refused, certificate)."""


class Socket:
    """An open connection that ends once it is silent for too long.

    Args:
        connection: what it reads.
        clock: of the silence.
        silence_s: without a message for so long the connection is dead.
    """

    def __init__(self, connection: Connection, clock: Clock, *, silence_s: float) -> None:
        self._connection = connection
        self._clock = clock
        self._silence_s = silence_s
        self._watcher = asyncio.create_task(self._watch())
        self.remote = connection.remote

    async def next(self) -> Batch:
        """The messages that wait, or the next ones to come.

        Raises:
            FeedClosedError: the connection has ended and everything received has been given.
        """
        while (batch := self._connection.take()) is None:
            await self._connection.wait()
        return batch

    async def _watch(self) -> None:
        while (quiet_s := self._connection.silent_s) < self._silence_s:
            await self._clock.sleep(max(self._silence_s - quiet_s, 1.0))
        self._connection.end(f"silent for {quiet_s:.0f} s")

    async def close(self) -> None:
        """End the connection and everything that belongs to it."""
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
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
            max_size=MESSAGE_BYTES_MAX,
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
    return Socket(Connection(connection, clock=clock), clock, silence_s=silence_s)


def _refused(host: str, status: int, headers: "Headers") -> FeedClosedError:
    given = headers.get("Retry-After", "")
    wait_s = float(given[:9]) if given.isdecimal() else PAUSE_S
    is_passing = status >= 500  # noqa: PLR2004 - HTTP's server errors
    return FeedClosedError(
        f"{host}: refused the connection with HTTP {status}",
        retry_after_s=1.0 if is_passing else wait_s,
    )
