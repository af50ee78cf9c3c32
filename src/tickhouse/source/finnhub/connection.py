"""Connecting to Finnhub's WebSocket.

The address holds the key, so nothing that the library says of it is passed on unscrubbed.
"""

import logging
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from tickhouse.clock import Clock
from tickhouse.errors import ConfigError, FeedClosedError, TickhouseError
from tickhouse.source.http import within
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret
from tickhouse.source.websocket import CLOSE_S, MESSAGE_BYTES_MAX, Connection

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import InvalidStatus

OPEN_S: Final = 20.0
WAITING_HIGH: Final = 4096
WAITING_LOW: Final = 1024
LIMITED_S: Final = 30.0
CERTIFICATE_S: Final = 60.0
KEY_REFUSED: Final = frozenset({401, 403})
TOO_MANY_REQUESTS: Final = 429
CERTIFICATE_NOT_YET_VALID: Final = 9
CERTIFICATE_EXPIRED: Final = 10


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
    return Connection(opened, clock=clock, scrub=options.token.scrub)


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
