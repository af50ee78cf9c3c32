"""HTTP GETs of one host: bounded in time (by the feed's clock) and in size, failures in words.

Whatever a server answers is an answer, also 500 and garbage; only what prevents an answer raises.
"""

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import ConfigError, TransientError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 10.0
CONNECT_SHARE: Final = 0.8
"""Part of the time-out that may pass until the connection stands."""
BODY_BYTES_MAX: Final = 8 << 20
RETRY_S: Final = 5.0
"""How long to leave a host alone that cannot be reached."""

T = TypeVar("T")


class HttpAnswer(msgspec.Struct, frozen=True):
    """What a server answered.

    Attributes:
        status: HTTP status.
        headers: by name in lower case.
        body: as sent, after the transfer's own compression.
        received_at_ns: receipt of the last byte, UNIX nanoseconds UTC.
        server_time_ns: the server's clock (header `Date`, whole seconds); None = unsaid.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    received_at_ns: int
    server_time_ns: int | None


class HttpClient:
    """GETs under one base address; an async context manager. Redirects are answers, not followed.

    Args:
        base_url: such as `https://finnhub.io/api/v1`; no key in it.
        clock: of receipts and the time-out.
        headers: sent with every call; never shown.
        setting: name of the setting that holds `base_url`, for messages.
        timeout_s: an answer that is not complete after so long is given up.
        body_bytes_max: a larger body is given up.
        transport: tests replace the network here.

    Raises:
        ConfigError: not an HTTP address, or one with a user, a password or a query.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        headers: Mapping[str, str] | None = None,
        setting: str = "url",
        timeout_s: float = TIMEOUT_S,
        body_bytes_max: int = BODY_BYTES_MAX,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self.host = _host_of(base_url, setting)
        self._base_url = base_url.rstrip("/")
        self._setting = setting
        self._clock = clock
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._body_bytes_max = body_bytes_max
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        """Make the connection pool; the first call connects."""
        import httpx

        self._client = httpx.AsyncClient(
            headers=self._headers,
            # The feed's clock keeps time (`within`); but a handshake cut off from outside would
            # leave its socket open, which the library's own time-out closes.
            timeout=httpx.Timeout(None, connect=self._timeout_s * CONNECT_SHARE),
            transport=self._transport,
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, path: str, params: Mapping[str, str]) -> HttpAnswer:
        """One GET.

        Raises:
            TransientError: no whole answer: unreachable, TLS, time-out, cut off, too large.
        """
        where = f"{self.host}{path}"
        try:
            return await within(self._clock, self._timeout_s, self._fetch(path, params))
        except TimeoutError:
            raise TransientError(
                f"{where}: no whole answer within {self._timeout_s:g} s", retry_after_s=RETRY_S
            ) from None

    async def _fetch(self, path: str, params: Mapping[str, str]) -> HttpAnswer:
        import httpx

        if self._client is None:
            raise RuntimeError("enter the client before calling it")
        url = f"{self._base_url}{path}"
        try:
            async with self._client.stream("GET", url, params=params or None) as response:
                body = await self._read(response, path)
        except httpx.RequestError as error:
            raise TransientError(self._say(error, path), retry_after_s=RETRY_S) from error
        return HttpAnswer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            received_at_ns=self._clock.time_ns(),
            server_time_ns=_server_time_ns(response.headers.get("date")),
        )

    async def _read(self, response: "httpx.Response", path: str) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._body_bytes_max:
                raise TransientError(
                    f"{self.host}{path}: answer {response.status_code} is larger than"
                    f" {self._body_bytes_max} bytes; given up",
                    retry_after_s=RETRY_S,
                )
        return bytes(body)

    def _say(self, error: "httpx.RequestError", path: str) -> str:
        """What happened to a call, in words; httpx's own words hold no header."""
        import httpx

        tls = _tls_error(error)
        if isinstance(tls, ssl.SSLCertVerificationError):
            return (
                f"{self.host}: its certificate is not valid ({tls.verify_message}); check this"
                f" machine's clock and certificates, and {self._setting}; nothing was sent"
            )
        if tls is not None:
            return (
                f"{self.host}: no TLS connection ({tls.reason or tls}); is {self._setting} right"
                " (https for a server that speaks TLS, http for one that does not)?"
            )
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return (
                f"{self.host}: cannot be reached ({reason}); check the network and {self._setting}"
            )
        return f"{self.host}{path}: the answer broke off ({reason})"


def _host_of(base_url: str, setting: str) -> str:
    """Host and port of a base address, checked."""
    import httpx

    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{setting}: not an address: {error}") from None
    if url.userinfo or url.query:
        raise ConfigError(f"{setting}: has a user, a password or a query; give the address alone")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"{setting}: {base_url!r} is not an address such as https://host/path")
    return url.netloc.decode()


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS failure behind an error, if there is one."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _server_time_ns(date: str | None) -> int | None:
    if date is None:
        return None
    try:
        return int(parsedate_to_datetime(date).timestamp()) * NANOS_PER_S
    except (ValueError, OverflowError):
        return None


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled after so many seconds of the clock.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        task.cancel()
        timer.cancel()
        await asyncio.gather(task, timer, return_exceptions=True)
